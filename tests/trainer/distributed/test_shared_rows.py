"""Rows that several ranks compute together: training is as on one rank."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from support.runs import curves, method_plans

from hone_trainer import device
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.run import preflight
from hone_trainer.training.checkpoints import RunCheckpoints

pytestmark = pytest.mark.trainer

TOGETHER = {"sequenceParallel": 2}
BY_PASS = ("epoch", "useful_tokens")
"""What is of a pass, and not of a step."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "SFT": ("SFT", {"rows": 7}),
    "SFT of all weights": ("SFT", {"adapter": {"type": "None"}}),
    "SFT packed": ("SFT", {"training": {"packing": True, "maxLength": 64}}),
    "SFT recomputed": ("SFT", {"training": {"activationCheckpointing": "Full"}}),
    "DAPT": ("DAPT", {}),
    "SFT of two groups": ("SFT", {"processesPerNode": 4, "rows": 7}),
    "SFT in ZeRO 2": ("SFT", {"deepspeed": {"zeroStage": 2}}),
    "SFT in ZeRO 3": ("SFT", {"deepspeed": {"zeroStage": 3}}),
}


@pytest.mark.parametrize(
    "case", ["SFT", *(pytest.param(case, marks=pytest.mark.long) for case in CASES if case != "SFT")]
)
def test_a_step_is_the_same_on_ranks_that_share_rows(
    runs: Any, make_plan: Any, tmp_path: Path, tiny_model: Path, case: str
) -> None:
    """Losses, gradient norms and tokens of four steps, each on the weights of the one before."""
    method, fields = CASES[case]
    training = {"batchSize": 6, "microBatchSize": 3, "maxSteps": 4, **fields.get("training", {})}
    alone, shared = (
        method_plans.plan_of(make_plan, method, tmp_path, tiny_model, name, **{"processesPerNode": 2, **fields, **own})
        for name, own in {
            "alone": {"deepspeed": None, "processesPerNode": 1, "training": training},
            "shared": {"training": {**training, **TOGETHER}},
        }.items()
    )
    runs.finish(alone)
    runs.wait(shared, runs.start(runs.encoded(shared)))
    curves.assert_alike(alone, shared, 4, BY_PASS, rel=1e-4)


@pytest.mark.long
def test_a_document_may_end_in_a_piece_of_fewer_tokens_than_ranks(
    runs: Any, make_plan: Any, tmp_path: Path, tiny_model: Path
) -> None:
    training = {"batchSize": 2, "microBatchSize": 1, "maxSteps": 12, "maxLength": 10}
    own: dict[str, dict[str, Any]] = {
        "alone": {"training": training},
        "shared": {"training": {**training, "sequenceParallel": 4}, "processesPerNode": 4},
    }
    alone, shared = (
        method_plans.plan_of(make_plan, "DAPT", tmp_path, tiny_model, name, dapt={"pack": False}, **fields)
        for name, fields in own.items()
    )
    runs.finish(alone)
    runs.wait(shared, runs.start(runs.encoded(shared)))
    curves.assert_alike(alone, shared, 12, BY_PASS, rel=1e-4)


@pytest.mark.long
def test_ranks_that_share_rows_resume_in_the_middle_of_an_epoch(
    runs: Any, make_plan: Any, tmp_path: Path, tiny_model: Path
) -> None:
    """As if nobody had stopped them: a rank that is stopped saves, and both go on with the rows that are left."""
    fields = {
        "processesPerNode": 2,
        "training": {"batchSize": 2, "microBatchSize": 1, "maxSteps": 40, **TOGETHER},
        "checkpoints": {"everySteps": 3},
    }
    whole, stopped = (
        method_plans.plan_of(make_plan, "SFT", tmp_path, tiny_model, name, **fields) for name in ("whole", "stopped")
    )
    runs.wait(whole, runs.start(runs.encoded(whole)))
    process = runs.start(runs.encoded(stopped))
    runs.wait_for(RunCheckpoints(Path(stopped.work_path) / "checkpoints", 2).path(3), process)
    process.send_signal(signal.SIGTERM)
    assert runs.wait(stopped, process, 75).failure.code == "Interrupted"
    result = runs.wait(stopped, runs.start(stopped)).result
    assert 3 <= result.start_step < 40
    assert runs.curve(stopped) == runs.curve(whole)


def test_a_plan_whose_ranks_cannot_share_rows_is_refused(runs: Any, make_plan: Any) -> None:
    for fields, words in (
        ({}, "training.sequenceParallel 2 must divide the 1 ranks of a node"),
        ({"method": "DPO"}, "training.sequenceParallel is for methods SFT and DAPT"),
        ({"sft": {"neftuneAlpha": "5"}}, "which training.sequenceParallel does not have"),
    ):
        with pytest.raises(TrainerError, match=words):
            preflight.check_plan(make_plan(training=TOGETHER, **fields), device.here(), methods=METHODS)
