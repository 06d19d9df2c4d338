"""`python -m hone_trainer plan`: what a run needs. Rows are encoded, no weights are read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from hone_api.estimate.advice import advise
from hone_api.estimate.cost import CPU_TFLOPS, disk, seconds_range
from hone_api.estimate.gpus import TABLE
from hone_api.estimate.memory import Setup, estimate, gib
from hone_api.estimate.micro_batch import fitted
from hone_api.estimate.savings import change_that_fits
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.run_summary import duration
from hone_trainer.device import Device
from hone_trainer.encoding import rendering
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.models import base_model
from hone_trainer.run import preflight, resolve, rows

if TYPE_CHECKING:
    from hone_trainer.training.loop import Run


def show(plan: TrainingPlan) -> None:
    """Print the tables.

    Raises:
        TrainerError: what would end the run before its first step; UnsupportedModel where no estimate knows the model.
    """
    plan = plan.model_copy(update={"memory": None})  # the tables are about other devices than the plan's
    ranks = plan.nodes * plan.processes_per_node
    on_gpus, on_cpus = Device(ranks, cuda=True, bf16=True), Device(ranks, cuda=False, bf16=False)
    preflight.check_plan(plan, on_gpus, methods=METHODS)
    base = base_model.open_base(plan.model_path, training=plan.training)
    preflight.check_base(plan, base)
    with rendering.of_run(plan.template_date, plan.training.thinking):
        data = rows.load(plan, base)
    dataset, numbers = resolve.resolve_run(plan, base, data, on_gpus)
    longest = resolve.longest_sequence(plan, dataset, data.train)
    on_gpu, on_cpu = (_known_setup(plan, base, device, longest, data.tokens) for device in (on_gpus, on_cpus))
    epochs = numbers.total_steps * plan.training.batch_size / max(1, len(dataset))
    tokens = int(epochs * data.tokens)
    console = Console()
    for sentence in data.sentences:
        console.print(sentence, markup=False)
    console.print(
        f"{plan.method} by {plan.adapter.type}: {numbers.total_steps:,} steps, {tokens:,} tokens, "
        f"{ranks} rank{'s' if ranks > 1 else ''}"
    )
    console.print(f"trained: {on_gpu.trained:,} of {on_gpu.shape.parameters:,} weights")
    console.print(_memory(on_gpu, on_cpu))

    on_host = estimate(on_gpu)
    if on_host.host or on_host.rows:
        console.print(
            f"host memory on a GPU node: {gib(on_host.rows)} for the rows of all its ranks"
            + (f", {gib(on_host.host)} for what each offloads" if on_host.host else "")
        )

    fits = Table("GPU", "memory", "fits", "micro batch", "time", "cheapest change that fits")
    for gpu in TABLE:
        has = int(gpu.memory * (1 - plan.grpo.generation.gpu_fraction)) if plan.grpo else gpu.memory  # next to a vLLM
        s = fitted(replace(on_gpu, bf16=on_gpu.bf16 and gpu.bf16), plan, has)
        room = estimate(s).total <= has
        way = "" if room else change_that_fits(s, has) or "-"
        words = ("yes", str(s.micro_batch)) if room else ("no", "")
        fits.add_row(gpu.name, gib(gpu.memory), *words, _time(on_gpu, tokens, gpu.tflops), way)
    fits.add_row("one CPU core", "", "", str(on_cpu.micro_batch), _time(on_cpu, tokens, CPU_TFLOPS), "")
    console.print(fits)

    store = disk(on_gpu, keep=plan.checkpoints.keep, merge=plan.output.merge)
    console.print("disk: " + ", ".join(f"{name} {gib(size)}" for name, size in store.items()))
    for sentence in advise(plan, len(data.train), data.tokens, numbers.max_length):
        console.print(f"advice: {sentence}")


def _memory(on_gpu: Setup, on_cpu: Setup) -> Table:
    """The terms of both."""
    table = Table("memory of a rank", "on a GPU", "on a CPU", title_justify="left")
    estimates = [estimate(on_gpu), estimate(on_cpu)]
    for name in dict.fromkeys(name for one in estimates for name in one.terms):
        table.add_row(name, *(gib(one.terms.get(name, 0)) for one in estimates))
    table.add_row("peak", *(gib(one.total) for one in estimates))
    table.add_row("rows of a micro batch", str(on_gpu.micro_batch), str(on_cpu.micro_batch))
    return table


def of_run(run: Run) -> int | None:
    """Estimated peak of one pod, bytes, with the numbers that the run has resolved; None for an unknown model."""
    numbers = run.settings
    device = Device(numbers.world_size, cuda=not numbers.cpu, bf16=numbers.bf16)
    tokens = sum(use.tokens for use in run.used)
    sized = resolve.sized(run.plan, run.base, device, resolve.longest_sequence(run.plan, run.dataset, run.rows), tokens)
    if sized is None:
        return None
    return estimate(replace(sized, micro_batch=numbers.micro_batch_size)).total * run.plan.processes_per_node


def _known_setup(plan: TrainingPlan, base: base_model.Base, device: Device, longest: int, tokens: int) -> Setup:
    sized = resolve.sized(plan, base, device, longest, tokens)
    if sized is None:
        words = f"no estimate knows a {base.config.model_type}, or the teacher"
        raise TrainerError(FailureCode.UNSUPPORTED_MODEL, f"{base.path}: {words}")
    return sized


def _time(s: Setup, tokens: int, tflops: float) -> str:
    low, high = seconds_range(s, tokens, tflops)
    return "< 1 s" if high < 1 else f"{duration(low)} to {duration(high)}"
