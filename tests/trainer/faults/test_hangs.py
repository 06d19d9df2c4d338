"""A rank that stands still ends the run, with its stacks and its name."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Any

import pytest
from support.cluster.live import HANG

from hone_trainer.distributed.heartbeat import Beat
from hone_trainer.run import hangs

HALTS = """
import time

from hone_trainer.training.loop import Loop

step = Loop.training_step

def halting(self, *given, **named):
    if self.state.global_step == 2:
        time.sleep(1800)
    return step(self, *given, **named)

Loop.training_step = halting
"""
AT = (
    'Thread 0x1 (most recent call first):\n  File "{}", line 7 in {}\n  File "/hone_trainer/run/launch.py", line 1 in x'
)
WAITS = AT.format("/lib/site-packages/torch/distributed/distributed_c10d.py", "all_reduce")
REWARD = AT.format("/store/rewards/score.py", "score")
DDP = (
    '  File "/lib/site-packages/torch/nn/parallel/distributed.py", line 9 in forward\n'
    '  File "/hone_trainer/run/launch.py"'
)
BUFFERS = AT.format("/lib/site-packages/torch/nn/parallel/distributed.py", "_distributed_broadcast_coalesced")
MODEL = REWARD.replace('  File "/hone_trainer/run/launch.py"', DDP)


@pytest.mark.trainer
def test_a_single_rank_that_stands_still_leaves_its_stacks(runs: Any, make_plan: Any) -> None:
    plan = make_plan(hangTimeout=5)
    failure = runs.wait(plan, runs.start(runs.encoded(plan), before=HALTS), 1).failure
    assert (failure.code, failure.rank, failure.step) == ("Hung", 0, 2)
    assert "after step 2; rank 0 is at <string>:10 halting < " in failure.message
    assert 'File "<string>", line 10 in halting' in (Path(plan.work_path).parent / "log-0").read_text()


LONG = {"training": {"maxSteps": 100_000}, "evaluation": {"samples": 0, "everySteps": 100_000}}
SAVES = """
import time

from hone_trainer.training.checkpoints import RunCheckpoints

complete = RunCheckpoints.complete

def marked(self, *given, **named):
    made = complete(self, *given, **named)
    (self.path(4).parent.parent / "saves").touch()
    time.sleep(1800)
    return made

RunCheckpoints.complete = marked
"""
"""Halts in the phase that may take an hour."""


def child(process: Any) -> int:
    """The process id of the only rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    leads = [int(one) for one in children if os.getsid(int(one)) == int(one)]
    assert len(leads) == 1
    return leads[0]


@pytest.mark.trainer
@pytest.mark.parametrize("before", ["", SAVES], ids=["in training", "while it saves"])
def test_a_single_rank_that_is_stopped_ends_the_run(runs: Any, make_plan: Any, before: str) -> None:
    plan = make_plan(hangTimeout=5, **LONG)
    process = runs.start(runs.encoded(plan), before=before)
    runs.wait_for(Path(plan.work_path) / ("saves" if before else "checkpoints/step-000004"), process)
    os.kill(child(process), signal.SIGSTOP)
    failure = runs.wait(plan, process, 1).failure
    assert failure.code == "Hung"
    assert "rank 0 is stopped (SIGSTOP)" in failure.message


@pytest.mark.trainer
def test_a_stopped_rank_gets_the_signal_to_save(runs: Any, make_plan: Any) -> None:
    plan = make_plan(**LONG)
    process = runs.start(runs.encoded(plan))
    runs.wait_for(Path(plan.work_path) / "checkpoints/step-000004", process)
    os.kill(child(process), signal.SIGSTOP)
    process.terminate()
    failure = runs.wait(plan, process, 75).failure
    assert (failure.code, failure.step >= 4) == ("Interrupted", True)


@pytest.mark.trainer
def test_a_rank_that_is_killed_ends_its_launcher_by_the_same_signal(runs: Any, make_plan: Any) -> None:
    """The kubelet then sees what the kernel did, such as OOMKilled."""
    plan = make_plan(**LONG)
    process = runs.start(runs.encoded(plan))
    runs.wait_for(Path(plan.work_path) / "checkpoints/step-000004", process)
    rank = child(process)
    os.kill(rank, signal.SIGKILL)
    assert runs.wait(plan, process, -signal.SIGKILL) is None


@pytest.mark.trainer
def test_no_rank_outlives_its_launcher(runs: Any, make_plan: Any) -> None:
    plan = make_plan(**LONG)
    process = runs.start(runs.encoded(plan))
    runs.wait_for(Path(plan.work_path) / "checkpoints/step-000004", process)
    rank = os.pidfd_open(child(process))
    process.kill()
    assert select.select([rank], [], [], HANG)[0], "the rank goes on"


def seen(stacks: str = "", state: str = "S", step: int = 4) -> hangs.Seen:
    return hangs.Seen(Beat(9, step, 600.0, 1), state, stacks)


@pytest.mark.pure
@pytest.mark.parametrize(
    ("ranks", "rank", "words"),
    [
        ([seen(WAITS), seen("", "T")], 1, "rank 1 is stopped (SIGSTOP); rank 0 waits for other ranks at torch/distr"),
        ([seen(BUFFERS), seen("", "T")], 1, "rank 1 is stopped (SIGSTOP); rank 0 waits for other ranks at torch/nn/"),
        ([seen(MODEL), seen(BUFFERS)], 0, "rank 0 is at /store/rewards/score.py:7 score < torch/nn/parallel"),
        ([seen(REWARD), seen(WAITS)], 0, "rank 0 is at /store/rewards/score.py:7 score"),
        ([seen(WAITS), seen(REWARD, "D")], 1, "rank 1 waits for a disk or a file server /store/rewards"),
        ([seen(WAITS), seen(WAITS)], None, "rank 0 waits for other ranks at"),
        ([seen(REWARD), seen(REWARD)], None, "rank 0 is at"),
        ([seen(REWARD)], 0, "rank 0 is at"),
    ],
)
def test_the_rank_that_the_others_wait_for_is_named(ranks: list[hangs.Seen], rank: int | None, words: str) -> None:
    error = hangs.describe(dict(enumerate(ranks)), 600.0)
    assert (error.code, error.rank, error.step) == ("Hung", rank, 4)
    assert f"no step for 600 s after step 4; {words}" in error.message
