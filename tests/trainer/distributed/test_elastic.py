"""A run whose attempts have different numbers of ranks trains the same steps as an undisturbed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone_dev.cluster.objectstore import free_port
from hone_trainer.errors import TrainerError
from hone_trainer.run import preflight, rows
from hone_trainer.store import finished, manifest
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


@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "adapter", "form"),
    [(2, {"type": "None"}, "full"), (3, {"type": "LoRA"}, "adapter"), (2, {"type": "QLoRA"}, "adapter")],
)
def test_a_sharded_run_goes_on_with_fewer_ranks_and_with_more_again(
    runs: Any, make_plan: Any, two_nodes: dict[str, Any], stage: int, adapter: dict[str, str], form: str
) -> None:
    """Two ranks to step 2, one to step 4, two to the end. Each reads what the others have saved, and leaves it."""
    common = {"adapter": adapter, "training": {"maxSteps": 6, "weightDecay": "0.1"}, "evaluation": {"everySteps": 6}}
    common |= {"checkpoints": {"everySteps": 2}}
    first = runs.encoded(make_plan("elastic", maxNodes=2, deepspeed={"zeroStage": stage}, **two_nodes, **common))
    checkpoints = RunCheckpoints(Path(first.work_path) / "checkpoints", 2)
    killed = {FAILPOINT_ENV: "after-rename"}
    second_rank = runs.start(first, JOB_COMPLETION_INDEX="1", **killed)
    runs.start(first, JOB_COMPLETION_INDEX="0", **killed).wait()
    second_rank.wait()
    assert (checkpoints.steps(), ranks_of(checkpoints.path(2))) == ([2], 2)

    runs.start(first.model_copy(update={"nodes": 1, "attempt": 2}), **killed).wait()
    assert (checkpoints.steps(), ranks_of(checkpoints.path(4))) == ([2, 4], 1)
    manifest.verify(checkpoints.path(2))
    words = "of 2 ranks on 1: a step still has 8 rows, now 1 forward pass of 8 on each rank"
    log = (Path(first.work_path).parent / "log-0").read_text()
    assert f"resuming from step-000002 {words}" in log
    assert "dropout draws other numbers; each holds all of what ZeRO divides, no longer 1/2" in log

    last = first.model_copy(update={"attempt": 3})
    second_rank = runs.start(last, JOB_COMPLETION_INDEX="1")
    result = runs.wait(last, runs.start(last, JOB_COMPLETION_INDEX="0")).result
    runs.wait(last, second_rank, node=1)
    assert (result.start_step, result.steps, result.resolved["worldSize"]) == (4, 6, 2)
    assert [path.name for path in sorted(checkpoints.folder.iterdir())] == ["step-000004", "step-000006"]

    undisturbed = make_plan("undisturbed", **common)
    runs.finish(undisturbed)
    ours, theirs = ([loss for _, loss, _ in runs.curve(plan, form)] for plan in (last, undisturbed))
    assert len(ours) == 6
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_attempts_with_other_numbers_of_nodes_are_one_run(make_plan: Any, two_nodes: dict[str, Any]) -> None:
    elastic, fixed = make_plan(maxNodes=2, **two_nodes), make_plan(**two_nodes)
    for identity in (rows.identity, finished.identity):
        fewer = [plan.model_copy(update={"nodes": 1}) for plan in (elastic, fixed)]
        assert identity(elastic) == identity(fewer[0])
        assert identity(fixed) != identity(fewer[1])
    assert rows.identity(elastic) == rows.identity(fixed), "checkpoints of an earlier release are found"


def test_what_cannot_go_on_with_other_ranks_is_refused(make_plan: Any, two_nodes: dict[str, Any]) -> None:
    with pytest.raises(TrainerError, match="maxNodes is for the methods SFT, DAPT, DPO, Reward, Distillation"):
        preflight.before_ranks(make_plan(maxNodes=2, method="ORPO", **two_nodes))
