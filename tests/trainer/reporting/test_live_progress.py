"""A real run posts to the real progress server: what the operator believes is where the run is."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from progressing import JOB, Reporting, reporting

from hone_api.report import CA_ENV, TOKEN_ENV, URL_ENV
from hone_trainer.reporting.live import Operator, Progress

pytestmark = pytest.mark.trainer
LONG = {"training": {"maxSteps": 100_000}, "evaluation": {"samples": 0, "everySteps": 100_000}}
HANG = 600.0


def wait_until(done: Any, process: Any) -> None:
    deadline = time.monotonic() + HANG
    while not done():
        assert process.poll() is None, "the run ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def step_of(server: Reporting) -> int:
    return server.latest.step if server.latest else 0


def test_sigterm_and_resume(runs: Any, make_plan: Any, tmp_path: Path) -> None:
    plan = make_plan(**LONG)
    with reporting(tmp_path) as server:
        first = runs.start(plan, **server.environment())
        wait_until(lambda: step_of(server) >= 8, first)
        first.send_signal(signal.SIGTERM)
        stopped = runs.wait(plan, first, 75).failure.step
        assert server.latest is not None
        assert (server.latest.step, server.latest.start_step) == (stopped, 0)
        assert server.latest.progress.percent == 0
        written = (Path(plan.work_path) / "checkpoints").rglob("step-*/**/*")
        assert server.latest.progress.checkpoint_bytes == sum(f.stat().st_size for f in written if f.is_file())
        assert all(report.hone for report in server.reports)  # nobody else posts

        server.new_pod()  # resumed
        second = runs.start(plan, **server.environment())
        wait_until(lambda: step_of(server) > stopped + 8, second)
        second.kill()
        second.wait()
        assert server.latest.start_step == 0
        assert server.latest.lost == 0


def test_early_stopping_reports_its_last_step_not_the_exported_one(runs: Any, make_plan: Any, tmp_path: Path) -> None:
    fields = {"training": {"maxSteps": 60, "learningRate": "2e-2", "scheduler": "Constant"}}
    plan = make_plan(adapter={"type": "None"}, evaluation={"everySteps": 2}, earlyStopping={"patience": 2}, **fields)
    with reporting(tmp_path) as server:
        result = runs.wait(plan, runs.start(plan, **server.environment())).result
        assert result.stopped_early
        assert server.latest is not None
        assert server.latest.step == result.steps + 4  # two evaluations without improvement


@pytest.mark.parametrize("restarted", [False, True])
def test_a_replaced_pod_goes_on_below(tmp_path: Path, restarted: bool) -> None:
    """Suspended and resumed within one attempt, by our own reporter; also when the operator has restarted since."""
    with reporting(tmp_path) as server:
        post(server, Progress(stage="Training", step=5, start_step=0, total_steps=10))
        assert server.latest is not None
        if restarted:
            record = {"number": 1, "startTime": server.created, "startStep": 0, "endStep": 5, "lostSteps": 0}
            server.status = {"attempts": [record], "progress": server.latest.progress.to_json()}
            server.store.drop(JOB)
        server.new_pod()
        post(server, Progress(stage="Training", step=3, start_step=3, total_steps=10))
        assert (server.latest.step, server.latest.start_step, server.latest.lost) == (3, 0, 2)


def post(server: Reporting, progress: Progress) -> None:
    environment = server.environment()
    operator = Operator(environment[URL_ENV], Path(environment[TOKEN_ENV]), Path(environment[CA_ENV]), interval=0.01)
    operator.report(progress)
    operator.close()
