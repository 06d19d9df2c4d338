"""A real run posts to the real progress server: what the operator believes is where the run is."""

from __future__ import annotations

import json
import re
import signal
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.cluster.progressing import JOB, Reporting, reporting

from hone_api.contract.report import CA_ENV, TOKEN_ENV, URL_ENV, ProgressReport
from hone_operator.progress.numbers import update
from hone_operator.reconcile.run.progress import extend_curves
from hone_trainer.reporting import live
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


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[ProgressReport]:
    """Every report of a run in this process, at no interval; the log has every line."""
    sent: list[ProgressReport] = []

    class Sent(live.LogLines):
        def report(self, progress: Progress) -> None:
            super().report(progress)
            sent.append(live.to_report(progress))

    monkeypatch.setattr(live, "ROWS_INTERVAL", 0.0)
    monkeypatch.setattr(live, "SIGN_INTERVAL", 0.0)
    monkeypatch.setattr(live, "from_environment", lambda: live.Reporters(Sent(interval=0.0)))
    return sent


def test_log_status_and_artifact_agree_about_each_step(
    runs: Any, make_plan: Any, reports: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """One report a step, with its own loss. Each report alone is right: any of them may be the last to arrive."""
    plan = make_plan(evaluation={"everySteps": 2})
    runs.finish(plan)
    written = [json.loads(line) for line in (Path(plan.output_path) / "adapter/metrics.jsonl").read_text().splitlines()]
    losses = {point["step"]: f"{point['loss']:.6g}" for point in written if "loss" in point}
    shown = {(str(point["step"]), f"{point['loss']:.4f}") for point in written if "loss" in point}
    scores = {point["step"]: f"{point['eval_loss']:.6g}" for point in written if "eval_loss" in point}
    assert (list(losses), list(scores)) == ([*range(1, 9)], [0, 2, 4, 6, 8])

    steps, curves, latest = [], list[Any](), None
    for report in reports:
        hone = report.hone
        assert hone.loss == (losses[hone.loss_step] if hone.step else None)
        assert hone.loss_step == (hone.step or None)
        assert hone.eval_loss == (scores[hone.eval_step] if hone.eval_step else None)
        steps += [hone.step] if hone.step not in steps else []
        latest = update(report, 1, latest, datetime.now(UTC))
        assert latest
        curves = extend_curves(curves, latest.progress.to_json())
    assert steps == [*range(9)]
    told = {series["name"]: series["curve"].split() for series in curves}
    assert told["loss"] == [f"{step}:{loss}" for step, loss in losses.items()]
    assert told["eval_loss"] == [f"{step}:{loss}" for step, loss in scores.items() if step]

    lines = re.findall(r"^Training (\d+)/8 loss (\S+)", capsys.readouterr().err, re.M)
    assert {*lines} == shown


def test_every_stage_that_counts_rows_reports_them(runs: Any, make_plan: Any, reports: list[Any]) -> None:
    """16 held-out rows and two questions, of the base and of the trained model. No stage shows values of another."""
    runs.finish(make_plan(evaluation={"everySteps": 100, "samples": 2}))
    stages: dict[str, list[Any]] = {}
    for report in reports:
        stages.setdefault(report.hone.stage, []).append(report)
    assert list(stages) == ["Loading", "Encoding", "EvaluatingBase", "Training", "Evaluating", "Exporting"]
    for stage, last in (("Encoding", 96), ("EvaluatingBase", 18)):
        counted = [report.hone for report in stages[stage]]
        assert (counted[-1].rows, counted[-1].total_rows) == (last, last)
        assert all(later.rows >= earlier.rows for earlier, later in pairwise(counted))
    for stage, (first, *_) in stages.items():
        values = first.hone.tokens_per_second, first.hone.rows_per_second
        assert (*values, first.trainer_status.estimated_remaining_seconds) == (None, None, None), stage
    assert len(stages["EvaluatingBase"]) > 18  # also while an answer is written


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
