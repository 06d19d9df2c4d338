"""How many rows of a forward pass fit: real steps with more and more rows, each as long as the longest of the run.

`python -m hone_trainer.run.micro_batch_probe <plan.json> <file of the outcome>` is one rank, alone with its GPU. What
the steps do to weights and random numbers ends with the process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone_api.blocks.evaluation import Evaluation
from hone_api.plan import TrainingPlan
from hone_trainer.encoding import mapped, rendering
from hone_trainer.errors import TrainerError, classify
from hone_trainer.methods.rl import longest_samples
from hone_trainer.reporting.live import Reporters
from hone_trainer.run import apart, pipeline, resolve, rows_in_one_pass
from hone_trainer.run.micro_batch_record import RANK_ENV, record_file
from hone_trainer.signals import Stop
from hone_trainer.store.manifest import write_atomically
from hone_trainer.training import out_of_memory
from hone_trainer.training.batches import indexed
from hone_trainer.training.loop import Loop, Run
from hone_trainer.training.micro_batch_memory import Gauge, Measured, candidates

_RATE = "1e-9"
"""Learning rate: the same memory as with any other, and a loss that stays finite."""


def sizes(plan: TrainingPlan) -> list[int]:
    """Rows of the passes that are tried, fewest first."""
    of_rank = plan.training.batch_size // (plan.nodes * plan.processes_per_node)
    return candidates(max(size for size in candidates(of_rank) if size <= (plan.micro_batch_limit or size)))


def alone(plan: TrainingPlan) -> TrainingPlan:
    """The plan of one rank without the others: a step is a pass of at most its rows, and nothing is evaluated."""
    tried = sizes(plan)
    group = plan.grpo.generations if plan.grpo else 1
    rows = -(-tried[-1] // group) * group  # TRL wants whole groups of samples
    batches = {"batch_size": rows, "micro_batch_size": rows, "max_steps": len(tried) + 1, "epochs": None}
    return plan.model_copy(
        update={
            "nodes": 1,
            "max_nodes": None,
            "processes_per_node": 1,
            "training": plan.training.model_copy(update={**batches, "learning_rate": _RATE}),
            "evaluation": Evaluation(),
            "evaluation_datasets": [],
            "early_stopping": None,
            "micro_batch_limit": None,
            "learning_rate_halvings": None,
        }
    )


def probe(plan: TrainingPlan) -> None:
    """Measure for the rank of `RANK_ENV`, and write its `record_file`.

    Raises:
        TrainerError: OutOfMemory or GpuOutOfMemory if a pass of one row fails; what ends a run before its first step.
    """
    gauge, rank = Gauge(cuda=torch.cuda.is_available()), int(os.environ[RANK_ENV])
    measured = Measured(gauge.limit(plan))
    file = record_file(plan, rank)
    file.parent.mkdir(parents=True, exist_ok=True)
    with rendering.of_run(plan.template_date, plan.training.thinking):
        _measure(plan, gauge, measured, file, says=rank == 0)
    _write(measured, file)


def _write(measured: Measured, file: Path, trying: int | None = None) -> None:
    record = {"microBatchSize": measured.largest, "limitBytes": measured.limit, "measuredBytes": measured.peaks}
    unfinished = {} if trying is None else {"trying": trying}
    write_atomically(file, json.dumps(record | unfinished).encode())


class _Ladder(TrainerCallback):
    """Measures each step, and ends the training where the next one would not fit."""

    def __init__(self, steps: Sequence[int], gauge: Gauge, measured: Measured, file: Path, *, says: bool) -> None:
        self._steps, self._gauge, self._measured, self._file, self._says = steps, gauge, measured, file, says

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._gauge.restart()
        if state.global_step == 1:
            self._measured.idle = self._gauge.now()
        # Before the pass: the kernel may kill this process in it, or all processes of the container.
        _write(self._measured, self._file, trying=self._steps[state.global_step])
        if state.global_step and self._says:
            print(f"probing micro batch {self._steps[state.global_step]}…", file=sys.stderr, flush=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == 1:
            return
        done, left = self._steps[state.global_step - 1], self._steps[state.global_step :]
        self._measured.peaks[done] = self._gauge.peak()
        # On a GPU, a pass that does not fit raises an error. Without one, the kernel would kill the pod.
        goes_on = self._gauge.cuda or not left or self._measured.is_expected_to_fit(left[0])
        control.should_training_stop |= not (self._measured.fits(done) and goes_on)


def _measure(plan: TrainingPlan, gauge: Gauge, measured: Measured, file: Path, *, says: bool) -> None:
    run = pipeline.prepare(alone(plan), Stop(), Reporters())
    # The first step allocates what stays: the optimizer's state, the buffers of libraries.
    steps = [1, *sizes(plan)]
    hooks = [*pipeline.penalties(run.plan), _Ladder(steps, gauge, measured, file, says=says)]
    arguments = run.method.arguments(run.plan, run.settings)
    run, network = pipeline.load(run, arguments)
    run = rows_in_one_pass.decided(run, network, arguments, record=False)
    arguments = run.method.arguments(run.plan, run.settings)
    trainer = pipeline.build_trainer(run, arguments, network, hooks, None)
    _feed(trainer, run, steps)
    if plan.grpo:
        longest_samples.stand_in(trainer, plan.grpo.max_completion_length)
    buckets = _gradient_buckets(trainer) if plan.nodes * plan.processes_per_node > 1 else []
    try:
        trainer.train()
    except Exception as error:
        spent = classify(error)
        if spent.code not in out_of_memory.CODES:
            raise
        if not measured.peaks:
            tokens = resolve.longest_sequence(run.plan, run.dataset, run.rows)
            raise TrainerError(spent.code, f"a step with one row of {tokens} tokens: {error}") from error
    del buckets


def _feed(trainer: Loop, run: Run, steps: Sequence[int]) -> None:
    """Let each step of the trainer have so many copies of the longest row."""
    lengths = indexed.sequence_lengths(run.dataset)
    longest = int((mapped.lengths(run.rows) if lengths is None else lengths).argmax())
    usual = trainer.get_train_dataloader()
    batches = [[longest] * rows for rows in steps]
    loader = torch.utils.data.DataLoader(usual.dataset, batch_sampler=batches, collate_fn=usual.collate_fn)
    vars(trainer).update(get_train_dataloader=lambda: trainer.accelerator.prepare(loader))


def _gradient_buckets(trainer: Loop) -> list[torch.Tensor]:
    """As much memory as data parallelism takes for the gradients that it sums, which one rank alone does not have."""
    return [torch.ones_like(weight) for weight in trainer.model.parameters() if weight.requires_grad]


if __name__ == "__main__":
    sys.exit(apart.main(probe))
