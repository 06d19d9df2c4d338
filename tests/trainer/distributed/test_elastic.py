"""A run whose attempts have different numbers of ranks trains the same steps as an undisturbed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone_dev.objectstore import free_port
from hone_trainer.errors import TrainerError
from hone_trainer.run import preflight, rows
from hone_trainer.store import finished
from hone_trainer.training.checkpoints import FAILPOINT_ENV, RunCheckpoints, ranks_of

pytestmark = pytest.mark.trainer


@pytest.fixture
def two_nodes() -> dict[str, Any]:
    port = free_port("127.0.0.1")
    return {"nodes": 2, "masterAddress": "127.0.0.1", "masterPort": port}


def test_a_run_goes_on_with_fewer_ranks_and_with_more_again(
    runs: Any, make_plan: Any, interrupt: Any, two_nodes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two ranks to step 4, one to the step after 8, two to the end."""
    common = {"training": {"maxSteps": 12}, "checkpoints": {"everySteps": 4}}
    first = runs.encoded(make_plan("elastic", maxNodes=2, **two_nodes, **common))
    checkpoints = RunCheckpoints(Path(first.work_path) / "checkpoints", 2)

    second_rank = runs.start(first, JOB_COMPLETION_INDEX="1", **{FAILPOINT_ENV: "after-rename"})
    runs.start(first, JOB_COMPLETION_INDEX="0", **{FAILPOINT_ENV: "after-rename"}).wait()
    second_rank.wait()
    assert checkpoints.steps() == [4]
    assert ranks_of(checkpoints.path(4)) == 2

    alone = first.model_copy(update={"nodes": 1, "attempt": 2})
    stopped = interrupt(alone, 8).step
    assert ranks_of(checkpoints.path(stopped)) == 1
    said = capsys.readouterr()
    words = "of 2 ranks on 1: a step still has 8 rows, now 1 forward pass of 8 on each rank"
    assert f"resuming from step-000004 {words}" in said.out + said.err

    last = first.model_copy(update={"attempt": 3})
    second_rank = runs.start(last, JOB_COMPLETION_INDEX="1")
    result = runs.wait(last, runs.start(last, JOB_COMPLETION_INDEX="0")).result
    runs.wait(last, second_rank, node=1)
    assert (result.start_step, result.steps, result.resolved["worldSize"]) == (stopped, 12, 2)

    undisturbed = make_plan("undisturbed", **common)
    runs.finish(undisturbed)
    ours, theirs = ([loss for _, loss, _ in runs.curve(plan)] for plan in (last, undisturbed))
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_attempts_with_other_numbers_of_nodes_are_one_run(make_plan: Any, two_nodes: dict[str, Any]) -> None:
    elastic, fixed = make_plan(maxNodes=2, **two_nodes), make_plan(**two_nodes)
    for identity in (rows.identity, finished.identity):
        fewer = [plan.model_copy(update={"nodes": 1}) for plan in (elastic, fixed)]
        assert identity(elastic) == identity(fewer[0])
        assert identity(fixed) != identity(fewer[1])
    assert rows.identity(elastic) == rows.identity(fixed), "checkpoints of an earlier release are found"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"deepspeed": {"zeroStage": 2}}, "maxNodes: DeepSpeed's checkpoints"),
        ({"method": "ORPO"}, "maxNodes is for the methods SFT, DAPT, DPO, Reward, Distillation"),
    ],
)
def test_what_cannot_go_on_with_other_ranks_is_refused(
    make_plan: Any, two_nodes: dict[str, Any], fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(TrainerError, match=words):
        preflight.before_ranks(make_plan(maxNodes=2, **two_nodes, **fields))
