"""The numbers of a run, from real rows and a real model's sizes."""

from __future__ import annotations

from typing import Any

import pytest

from hone_api.estimate.memory import RUNTIME_CPU
from hone_api.estimate.micro_batch import FILLED
from hone_trainer.device import Device
from hone_trainer.models import base_model, read_shape
from hone_trainer.run import resolve, rows
from hone_trainer.training.settings import RunSettings

pytestmark = pytest.mark.trainer
CPU = Device(1, cuda=False, bf16=False)
TIGHT = int((RUNTIME_CPU + 5 * 2**20) / FILLED)
"""Bytes: 8 rows of the tiny model need 7 MiB in addition to the runtime, one row 3."""


def settled(plan: Any) -> RunSettings:
    base = base_model.open_base(plan.model_path)
    return resolve.resolve_run(plan, base, rows.load(plan, base), CPU)[1]


def test_a_pass_has_as_many_rows_as_the_memory_takes_and_a_step_as_many_as_before(make_plan: Any) -> None:
    roomy, tight = settled(make_plan()), settled(make_plan(memory=TIGHT))
    assert (roomy.micro_batch_size, roomy.accumulation) == (8, 1)
    assert 1 < tight.micro_batch_size < 8
    assert tight.micro_batch_size * tight.accumulation == 8
    assert settled(make_plan(memory=1)).micro_batch_size == 1
    assert settled(make_plan(memory=1, training={"microBatchSize": 4})).micro_batch_size == 4


def test_a_model_of_unknown_sizes_takes_what_a_pass_may_have(make_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_shape, "shape", lambda folder: None)
    assert settled(make_plan(memory=1)).micro_batch_size == 8


def test_the_losses_are_those_of_a_pass_with_room(runs: Any, make_plan: Any) -> None:
    roomy, tight = runs.finish(make_plan("roomy")), runs.finish(make_plan("tight", memory=TIGHT))
    assert roomy.resolved["microBatchSize"] > tight.resolved["microBatchSize"]
    assert float(tight.train_loss) == pytest.approx(float(roomy.train_loss), rel=1e-4)
