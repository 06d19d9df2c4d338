"""`python -m hone_trainer plan`: what a run needs. Rows are encoded, no weights are read."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hone_api.advice import advise
from hone_api.estimate import Setup, change_that_fits, estimate, gib, setup
from hone_api.gpus import TABLE
from hone_api.outlay import CPU_TFLOPS, disk, seconds
from hone_api.passes import BY_TOKENS, micro_batch
from hone_api.plan import TrainingPlan
from hone_trainer import checks, model, rows, sizes, teacher_model
from hone_trainer.device import Device
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS

if TYPE_CHECKING:
    from hone_trainer.loop import Run
    from hone_trainer.settings import Settings


def show(plan: TrainingPlan) -> None:
    """Print the tables.

    Raises:
        TrainerError: what would end the run before its first step; UnsupportedModel where no estimate knows the model.
    """
    from rich.console import Console
    from rich.table import Table

    ranks = plan.nodes * plan.processes_per_node
    checks.plan(plan, Device(ranks, cuda=True, bf16=True), methods=METHODS)
    base = model.open_base(plan.model_path)
    checks.base(plan, base)
    data = rows.load(plan, base)
    on_gpu, tokens, steps = _setup(plan, base, data, ranks)
    console = Console()
    console.print(f"{plan.method} by {plan.adapter.type}: {steps:,} steps, {tokens:,} tokens, {ranks} ranks")
    console.print(f"trained: {on_gpu.trained:,} of {on_gpu.shape.parameters:,} weights")

    memory = Table("memory of a rank", "on a GPU", "on a CPU", title_justify="left")
    on_cpu = replace(on_gpu, gpu=False, bf16=False)
    if plan.method in BY_TOKENS and not plan.training.micro_batch_size:
        on_cpu = replace(on_cpu, micro_batch=micro_batch(plan.training.batch_size // ranks, on_gpu.max_length))
    found = {True: estimate(on_gpu), False: estimate(on_cpu)}
    for name in dict.fromkeys([*found[True].terms, *found[False].terms]):
        memory.add_row(name, *(gib(found[gpu].terms.get(name, 0)) for gpu in (True, False)))
    memory.add_row("peak", gib(found[True].total), gib(found[False].total))
    console.print(memory)

    fits = Table("GPU", "memory", "fits", "time", "cheapest change that fits")
    for gpu in TABLE:
        room = found[True].total <= gpu.memory
        way = "" if room else change_that_fits(on_gpu, gpu.memory) or "-"
        fits.add_row(gpu.name, gib(gpu.memory), "yes" if room else "no", _time(on_gpu, tokens, gpu.tflops), way)
    fits.add_row("one CPU core", "", "", _time(on_cpu, tokens, CPU_TFLOPS), "")
    console.print(fits)

    store = disk(on_gpu, keep=plan.checkpoints.keep, merge=plan.output.merge)
    console.print("disk: " + ", ".join(f"{name} {gib(size)}" for name, size in store.items()))
    for sentence in advise(plan.method, plan.adapter, plan.training, len(data.train)):
        console.print(f"advice: {sentence}")


def of_run(run: Run) -> int | None:
    """Estimated peak of one pod, bytes, with the numbers that the run has resolved; None for an unknown model."""
    made = _sized(run.plan, run.base, run.settings, gpu=not run.settings.cpu)
    return estimate(made).total * run.plan.processes_per_node if made else None


def _sized(plan: TrainingPlan, base: model.Base, numbers: Settings, *, gpu: bool) -> Setup | None:
    """With the numbers that are resolved; None where a model's sizes are unknown."""
    shape, theirs = sizes.shape(base.path), None
    if plan.distillation and plan.distillation.by_logits:
        theirs = sizes.shape(Path(teacher_model.named(plan)[1]))
        if theirs is None:
            return None
    if shape is None:
        return None
    made = setup(
        plan,
        shape,
        ranks=numbers.world_size,
        gpu=gpu,
        bf16=numbers.bf16,
        max_length=numbers.max_length,
        teacher=theirs,
    )
    return replace(made, micro_batch=numbers.micro_batch_size)


def _setup(plan: TrainingPlan, base: model.Base, data: rows.Data, ranks: int) -> tuple[Setup, int, int]:
    """The run on GPUs, its tokens and its steps."""
    from hone_trainer import pipeline

    device = Device(ranks, cuda=True, bf16=True)
    dataset, numbers = pipeline.settle(plan, base, data, device)
    made = _sized(plan, base, numbers, gpu=True)
    if made is None:
        words = f"no estimate knows a {base.config.model_type}, or the teacher"
        raise TrainerError("UnsupportedModel", f"{base.path}: {words}")
    epochs = numbers.total_steps * plan.training.batch_size / max(1, len(dataset))
    return made, int(epochs * sum(len(ids) for row in data.train for ids in row.sequences)), numbers.total_steps


def _time(s: Setup, tokens: int, tflops: float) -> str:
    return str(timedelta(seconds=round(seconds(s, tokens, tflops))))
