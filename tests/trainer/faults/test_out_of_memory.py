"""Memory that runs out in a training step: an attempt with a smaller micro batch goes on, with the same losses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone_api.estimate.micro_batch import micro_batch
from hone_api.plan import TrainingPlan
from hone_trainer.training import out_of_memory

HUNGRY = """
import resource
import torch
from hone_trainer.training.loop import Loop

GIB = 1 << 30
step = Loop.training_step

def taking(size):
    def take(*_):
        torch.empty(size, dtype=torch.uint8)
    return take

def hungry(self, model, inputs, *rest):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    if self.state.global_step == 5:
        resource.setrlimit(resource.RLIMIT_AS, (used + 5 * GIB, -1))
        self.model.register_forward_pre_hook(taking(self.args.train_batch_size * GIB))
    return step(self, model, inputs, *rest)

Loop.training_step = hungry
"""
"""From the sixth step on each row takes a GiB of address space; there are five GiB."""


@pytest.mark.trainer
def test_a_smaller_micro_batch_goes_on_with_the_same_losses(runs: Any, make_plan: Any) -> None:
    first = make_plan(exportFolder="attempt-1")
    failure = runs.wait(first, runs.start(runs.encoded(first), before=HUNGRY), 1).failure
    assert failure is not None
    assert (failure.code, failure.step) == ("OutOfMemory", 6)
    assert failure.micro_batch_size == 8
    assert "step 6 with 8 rows in a forward pass" in failure.message
    assert "can't allocate memory" in failure.message
    assert not (Path(first.work_path) / "result.json").exists()  # it is not the end of the run

    fewer = {"attempt": 2, "exportFolder": "attempt-2", "microBatchLimit": failure.micro_batch_size // 2}
    second = make_plan(**fewer)
    result = runs.finish(second)
    assert (result.start_step, result.resolved["microBatchSize"]) == (4, 4)
    assert result.resolved["gradientAccumulationSteps"] == 2
    alone = make_plan("alone", training={"microBatchSize": 4})
    runs.finish(alone)
    exported = second.model_copy(update={"output_path": f"{second.output_path}/attempt-2"})
    ours, theirs = ([loss for _, loss, _ in runs.curve(one)] for one in (exported, alone))
    assert len(ours) == 8
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.pure
@pytest.mark.parametrize(
    ("batch", "asked", "limit", "ranks", "rows"),
    [
        (8, None, 4, 1, 4),
        (8, 8, 4, 1, 4),
        (8, 2, 4, 1, 2),
        (24, 6, 3, 1, 3),
        (20, 5, 2, 1, 2),
        (12, 12, 5, 1, 4),
        (16, 8, 4, 2, 4),
        (8, 8, None, 1, 8),
    ],
)
def test_the_limit_divides_the_batch(batch: int, asked: int | None, limit: int | None, ranks: int, rows: int) -> None:
    plan = TrainingPlan.model_validate(
        {
            "run": "run",
            "modelPath": "/model",
            "modelUri": "hf://org/model",
            "datasets": [{"name": "rows", "split": "train", "path": "/rows", "digest": "sha256:" + "0" * 64}],
            "training": {"batchSize": batch, "microBatchSize": asked},
            "output": {"modelName": "tutor"},
            "workPath": "/work",
            "outputPath": "/out",
            "microBatchLimit": limit,
        }
    )
    assert micro_batch(plan, ranks=ranks, gpu=True, longest=64) == rows


@pytest.mark.pure
@pytest.mark.parametrize(
    ("error", "rows", "method", "smaller", "words"),
    [
        (MemoryError(), 4, "SFT", 4, "step 3 with 4 rows in a forward pass: "),
        (MemoryError(), 1, "SFT", None, "step 3 with 1 row in a forward pass, which cannot be made smaller: "),
        (MemoryError(), 4, "KTO", None, "on which the loss of KTO depends, so that it is not made smaller: "),
        (MemoryError(), 4, "GRPO", 4, "step 3 with 4 rows in a forward pass: "),
        (MemoryError(), 4, "GRPO BNPO", None, "on which the loss of GRPO depends, so that it is not made smaller: "),
    ],
)
def test_what_can_be_made_smaller(error: Any, rows: int, method: str, smaller: int | None, words: str) -> None:
    name, *loss = method.split()
    grpo = SimpleNamespace(loss="".join(loss)) if name == "GRPO" else None
    plan = SimpleNamespace(method=name, grpo=grpo)
    run: Any = SimpleNamespace(settings=SimpleNamespace(micro_batch_size=rows), plan=plan)
    spent = out_of_memory.in_step(error, run, 3)
    assert spent is not None
    assert (spent.code, spent.micro_batch_size) == ("OutOfMemory", smaller)
    assert words in spent.message


@pytest.mark.pure
def test_another_error_is_left_alone() -> None:
    assert out_of_memory.in_step(RuntimeError("shape mismatch"), SimpleNamespace(), 3) is None
