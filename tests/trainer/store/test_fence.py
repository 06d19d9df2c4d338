"""Two attempts of a run at once: the earlier one ends before it writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.errors import TrainerError
from hone_trainer.store import fence
from hone_trainer.training.checkpoints import RunCheckpoints

LONG = {"training": {"maxSteps": 100_000}, "evaluation": {"samples": 0, "everySteps": 100_000}}


@pytest.fixture
def start(make_plan: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts an attempt, and gives what a process of it does from then on."""

    def begin(attempt: int) -> Any:
        plan = make_plan(attempt=attempt)
        monkeypatch.delenv(fence.ENV, raising=False)
        fence.take_folder(plan)
        own = os.environ[fence.ENV]

        def within(action: Any) -> None:
            monkeypatch.setenv(fence.ENV, own)
            action(plan)

        return within

    return begin


def lost(words: str) -> Any:
    return pytest.raises(TrainerError, match=words)


@pytest.mark.pure
@pytest.mark.torch
def test_an_earlier_attempt_ends_where_a_later_one_has_started(start: Any) -> None:
    first = start(1)
    first(fence.check)
    second = start(2)
    with lost("attempt 1 ends without writing: attempt 2 has taken over") as caught:
        first(fence.check)
    assert (caught.value.code, caught.value.exit_code) == ("Interrupted", 75)
    second(fence.check)
    with lost("attempt 2 has taken over"):
        start(1)


@pytest.mark.pure
@pytest.mark.torch
def test_a_second_start_of_the_same_attempt_takes_over(start: Any) -> None:
    first, again = start(1), start(1)
    with lost("another start of it has taken over"):
        first(fence.check)
    again(fence.check)


@pytest.mark.pure
@pytest.mark.torch
def test_the_later_attempt_wins_where_both_took_the_folder_at_the_same_moment(start: Any) -> None:
    first = start(1)
    second = start(2)
    first(fence._write)
    second(fence.check)
    with lost("attempt 2 has taken over"):
        first(fence.check)


@pytest.mark.pure
@pytest.mark.torch
def test_errors_are_explained_by_the_loss_alone(start: Any) -> None:
    error, seen = FileNotFoundError("a checkpoint"), []
    first = start(1)
    first(lambda plan: seen.append(fence.explain(plan, error)))
    start(2)
    first(lambda plan: seen.append(fence.explain(plan, error)))
    assert seen[0] is error
    assert seen[1].code == "Interrupted"


@pytest.mark.pure
@pytest.mark.torch
def test_a_checkpoint_that_was_begun_before_is_not_completed_after(start: Any) -> None:
    """Nor does the later attempt write into the folder of the earlier one."""
    first = start(1)
    stores = []
    first(lambda plan: stores.append(RunCheckpoints(Path(plan.work_path) / "checkpoints", 2, plan)))
    first(lambda _: (stores[0].begin() / "model").write_text("half"))
    start(2)(lambda plan: stores.append(RunCheckpoints(Path(plan.work_path) / "checkpoints", 2, plan)))
    assert stores[0].partial != stores[1].partial
    with lost("attempt 2 has taken over"):
        first(lambda _: stores[0].complete(4, None))
    assert stores[1].steps() == []


@pytest.mark.trainer
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_pod_that_lost_its_job_ends_once_the_next_attempt_runs(runs: Any, make_plan: Any, ranks: int) -> None:
    first, second = (make_plan(attempt=attempt, processesPerNode=ranks, **LONG) for attempt in (1, 2))
    orphan = runs.start(runs.encoded(first))
    store = RunCheckpoints(Path(first.work_path) / "checkpoints", 2)
    runs.wait_for(store.path(4), orphan)
    fence.take_folder(second)
    failure = runs.wait(first, orphan, 75).failure
    assert failure.code == "Interrupted"
    assert "attempt 1 ends without writing: attempt 2 has taken over" in failure.message
    assert (Path(first.work_path) / fence.FILE).read_text().startswith("2 ")
    assert not (Path(first.work_path) / "result.json").exists()
