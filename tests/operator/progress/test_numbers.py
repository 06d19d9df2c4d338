"""Reports to status.progress."""

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from hone_api.base.wording import duration
from hone_api.contract.report import HoneStatus, Metric, ProgressReport, TrainerStatus
from hone_api.contract.termination import parse_outcome
from hone_api.kinds.finetunejob_status import FineTuneJobStatus
from hone_api.words.progress_numbers import OF_STAGE, PROGRESS_NUMBERS
from hone_operator.progress.numbers import Origin, number, reached_before, remembered, update
from hone_operator.reconcile.core.outcome_builder import as_json
from hone_operator.reconcile.run.progress import extend_curves

pytestmark = pytest.mark.pure
COUNTS = {number.name for number in PROGRESS_NUMBERS if number.count}
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def stock(percent=None, eta=None, **metrics):
    pairs = [Metric(name=k, value=str(v)) for k, v in metrics.items()]
    status = TrainerStatus(progress_percentage=percent, estimated_remaining_seconds=eta, metrics=pairs)
    return ProgressReport(trainer_status=status)


def ours(step, **fields):
    return ProgressReport(trainer_status=TrainerStatus(), hone=HoneStatus(stage="Training", step=step, **fields))


def test_a_stock_script_from_start_to_end():
    latest = update(stock(percent=0, total_steps=200), 1, None, NOW)
    assert (latest.progress.step, latest.progress.total_steps, latest.progress.summary) == (0, 200, "0/200 0%")
    latest = update(
        stock(percent=20, eta=480, loss=1.2041999, current_step=41, total_steps=200, current_epoch=0.21, foo="x"),
        1,
        latest,
        NOW,
    )
    progress = latest.progress
    assert (progress.step, progress.percent, progress.loss, progress.epoch) == (41, 20, "1.2042", "0.21")
    assert (progress.eta, progress.summary) == ("8m", "41/200 20%")
    assert progress.last_updated_time == "2026-01-02T03:04:05Z"
    latest = update(stock(percent=100, eta=0, loss=1.1), 1, latest, NOW)
    assert (latest.progress.step, latest.progress.percent, latest.progress.eta) == (200, 100, "0s")


def test_a_resumed_stock_script_does_not_fall_back_to_zero():
    latest = update(stock(percent=20, current_step=40, total_steps=200), 1, None, NOW)
    latest = update(stock(percent=0, total_steps=200), 1, latest, NOW)
    assert latest.progress.step == 40
    assert latest.progress.percent == 20


@pytest.mark.faults("T10")
def test_older_steps_and_older_attempts_are_ignored():
    latest = update(ours(10, total_steps=20), 2, None, NOW)
    assert update(ours(9), 2, latest, NOW) is None
    assert update(ours(11), 1, latest, NOW) is None
    assert update(ours(10, eval_loss="0.5"), 2, latest, NOW).progress.eval_loss == "0.5"


def test_the_methods_own_metrics_keep_their_last_value():
    latest = update(ours(10, metrics={"reward_accuracy": "0.71234567", "kl": "bad"}), 1, None, NOW)
    assert latest.progress.metrics == {"reward_accuracy": "0.712346"}
    latest = update(ours(11, metrics={"eval_reward_accuracy": "0.8"}), 1, latest, NOW)
    assert latest.progress.metrics == {"reward_accuracy": "0.712346", "eval_reward_accuracy": "0.8"}
    assert update(ours(12), 2, latest, NOW).progress.metrics is None


def test_a_new_attempt_starts_over_from_its_own_step():
    latest = update(ours(10, total_steps=20, loss="1"), 1, None, NOW)
    latest = update(ours(5, total_steps=20), 2, latest, NOW)
    assert (latest.attempt, latest.step, latest.progress.loss) == (2, 5, None)


def test_numbers_that_a_report_lacks_keep_their_last_value():
    latest = update(ours(1, loss="2.5", eval_loss="2.6"), 1, None, NOW)
    latest = update(ours(2, loss="2.4"), 1, latest, NOW)
    assert (latest.progress.loss, latest.progress.eval_loss) == ("2.4", "2.6")
    latest = update(stock(percent=20, eta=480, current_step=3, tokens_per_second=74), 1, None, NOW)
    latest = update(stock(percent=25, current_step=4), 1, latest, NOW)
    assert (latest.progress.tokens_per_second, latest.progress.eta, latest.eta_seconds) == ("74", "8m", 480)


STAGES = ["Encoding", "EvaluatingOtherVersion", "EvaluatingBase", "BenchmarkingBase", "Training", "Exporting"]


@pytest.mark.parametrize(("before", "after"), [(a, b) for a in STAGES for b in STAGES if a != b])
def test_a_value_never_outlives_its_stage(before, after):
    """Also if every report between the two was lost."""
    values = {name: 7 if name in COUNTS else "7" for name in OF_STAGE}
    timed = TrainerStatus(estimated_remaining_seconds=7)
    full = ProgressReport(trainer_status=timed, hone=HoneStatus(stage=before, step=0, **values))
    latest = update(full, 1, None, NOW)
    assert all(getattr(latest.progress, name) for name in OF_STAGE)
    assert latest.progress.eta == "7s"
    empty = HoneStatus(stage=after, step=0)
    latest = update(ProgressReport(trainer_status=TrainerStatus(), hone=empty), 1, latest, NOW)
    assert [getattr(latest.progress, name) for name in OF_STAGE] == [None] * len(OF_STAGE)
    assert (latest.progress.eta, latest.eta_seconds) == (None, None)


def test_our_fields_win_over_the_stock_metrics():
    report = stock(percent=1, loss=9, current_step=1)
    report.hone = HoneStatus(stage="Training", step=7, total_steps=70, loss="nan")
    progress = update(report, 1, None, NOW).progress
    assert (progress.step, progress.percent, progress.loss) == (7, 10, "nan")


def test_the_newest_checkpoint_is_kept():
    latest = update(ours(5, checkpoint_step=5), 1, None, NOW)
    latest = update(ours(6), 1, latest, NOW)
    assert latest.checkpoint_step == 5
    assert update(ours(10, checkpoint_step=10), 1, latest, NOW).checkpoint_step == 10


def test_the_size_of_the_checkpoints_is_kept():
    latest = update(ours(5, checkpoint_bytes=700), 1, None, NOW)
    latest = update(ours(6), 1, latest, NOW)
    assert latest.progress.checkpoint_bytes == 700
    assert update(ours(10, checkpoint_bytes=0), 1, latest, NOW).progress.checkpoint_bytes == 0


def status(told, attempts=((1, "2026-01-02T03:00:00Z"),)):
    progress = {"step": 40, "totalSteps": 200, "percent": 20, "evalLoss": "2.6", "lastUpdatedTime": told}
    return {"attempts": [{"number": n, "startTime": t} for n, t in attempts], "progress": progress}


def test_after_a_restart_the_status_is_remembered():
    known = remembered(status("2026-01-02T03:04:00Z"), 1)
    assert update(ours(39, total_steps=200), 1, known, NOW) is None
    progress = update(ours(41, total_steps=200, loss="1"), 1, known, NOW).progress
    assert (progress.step, progress.loss, progress.eval_loss) == (41, "1", "2.6")


def test_what_an_earlier_attempt_reported_is_not_remembered():
    two = ((1, "2026-01-02T03:00:00Z"), (2, "2026-01-02T03:30:00Z"))
    assert remembered(status("2026-01-02T03:04:00Z", two), 2) is None
    assert remembered(status("2026-01-02T03:40:00Z", two), 2).step == 40
    assert remembered({}, 1) is None


def made(minute, reached=0):
    return Origin(datetime(2026, 1, 2, 3, minute, tzinfo=UTC), reached)


def at(minute):
    return datetime(2026, 1, 2, 3, minute, 30, tzinfo=UTC)


def test_100_percent_of_a_reporter_next_to_ours_is_not_believed():
    """transformers says so at any end, also after SIGTERM at step 41."""
    latest = update(ours(41, total_steps=200, start_step=0), 1, None, NOW)
    assert update(stock(percent=100, eta=0), 1, latest, NOW) is None
    assert update(stock(percent=20, current_step=42, total_steps=200), 1, latest, NOW) is None
    known = remembered({**status("2026-01-02T03:04:00Z"), "progress": latest.progress.to_json()}, 1)
    assert update(stock(percent=100, eta=0), 1, known, NOW) is None  # after a restart of the operator


@pytest.mark.parametrize("restarted", [False, True])
def test_a_resumed_suspension_goes_on_below(restarted):
    latest = update(ours(90, total_steps=200, start_step=0), 1, None, at(10), made(5))
    if restarted:
        told = {"number": 1, "startTime": "2026-01-02T03:00:00Z", "startStep": 0, "lostSteps": 0, "endStep": 90}
        latest = remembered({"attempts": [told], "progress": latest.progress.to_json()}, 1)
    latest = update(ours(0), 1, latest, at(20), made(20))
    assert latest.step == 90  # it is loading, and does not know yet where it goes on from
    latest = update(ours(80, total_steps=200, start_step=80), 1, latest, at(21), made(20))
    assert (latest.step, latest.start_step, latest.lost) == (80, 0, 10)
    latest = update(ours(85, total_steps=200, start_step=80), 1, latest, at(22), made(20))
    assert (latest.step, latest.lost) == (85, 10)
    assert update(ours(84, total_steps=200, start_step=80), 1, latest, at(22), made(20)) is None
    assert update(ours(91, total_steps=200, start_step=0), 1, latest, at(22), made(5)) is None  # the pod that was there


@pytest.mark.faults("T10")
def test_a_late_report_of_the_suspended_pod_does_not_freeze_the_new_one():
    latest = update(ours(90, total_steps=200, start_step=0), 1, None, at(10), made(5))
    latest = update(ours(91, total_steps=200, start_step=0), 1, latest, at(30), made(5))  # after the new pod was made
    latest = update(ours(80, total_steps=200, start_step=80), 1, latest, at(31), made(20))
    assert (latest.step, latest.lost) == (80, 11)


def test_what_another_attempt_had_done_beyond_the_checkpoint_is_lost():
    latest = update(ours(5, total_steps=20, start_step=5), 2, None, NOW, made(5, reached=9))
    assert (latest.start_step, latest.lost) == (5, 4)
    latest = update(ours(6, total_steps=20, start_step=5), 2, latest, NOW, made(5, reached=9))
    assert (latest.start_step, latest.lost) == (5, 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.20419990", "1.2042"),
        ("2e-4", "0.0002"),
        ("nan", "nan"),
        ("-inf", "-inf"),
        ("NaN", "nan"),
        ("Infinity", "inf"),
        ("<b>", None),
        ("", None),
        (None, None),
    ],
)
def test_number(text, expected):
    assert number(text) == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (11520, "3h12m"), (187200, "2d4h")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("stage", "summary"),
    [("Loading", "Loading"), ("EvaluatingBase", "Evaluating base"), ("Training", "0/20 0%"), ("Evaluating", "0/20 0%")],
)
def test_before_the_first_step_the_summary_says_the_stage(stage, summary):
    report = ProgressReport(
        trainer_status=TrainerStatus(),
        hone=HoneStatus(stage=stage, step=0, total_steps=20 if summary[0] == "0" else None),
    )
    assert update(report, 1, None, NOW).progress.summary == summary


@pytest.mark.parametrize(
    ("stage", "step", "summary"),
    [
        ("EvaluatingBase", 0, "Evaluating base 7/24 rows"),
        ("Encoding", 0, "Encoding 7/24 rows"),
        ("Evaluating", 3, "3/20 15%, evaluating 7/24 rows"),
        ("Training", 3, "3/20 15%"),
    ],
)
def test_the_summary_counts_the_rows_of_the_stage(stage, step, summary):
    rows = {} if stage == "Training" else {"rows": 7, "total_rows": 24}
    report = ProgressReport(
        trainer_status=TrainerStatus(), hone=HoneStatus(stage=stage, step=step, total_steps=20, **rows)
    )
    assert update(report, 1, None, NOW).progress.summary == summary


def test_from_the_first_step_on_the_summary_says_steps():
    latest = update(ours(0, total_steps=20), 1, None, NOW)
    latest = update(ours(3), 1, latest, NOW)
    exporting = ProgressReport(trainer_status=TrainerStatus(), hone=HoneStatus(stage="Exporting", step=3))
    assert update(exporting, 1, latest, NOW).progress.summary == "3/20 15%"


@pytest.mark.attack("numbers")
@pytest.mark.parametrize("value", [2**53, 10**40, 10**4000, -1], ids=["2^53", "10^40", "10^4000", "-1"])
@pytest.mark.parametrize("field", ["step", "totalSteps", "checkpointStep"])
def test_a_count_that_no_status_holds_is_refused_with_the_report(field, value):
    hone = {"stage": "Training", "step": 1, field: value}
    with pytest.raises(ValidationError):
        ProgressReport.model_validate({"trainerStatus": {}, "hone": hone})


@pytest.mark.attack("numbers")
@pytest.mark.parametrize("value", [2**53, 10**40, -1], ids=str)
@pytest.mark.parametrize("field", ["progressPercentage", "estimatedRemainingSeconds"])
def test_a_time_that_no_status_holds_is_refused_with_the_report(field, value):
    with pytest.raises(ValidationError):
        ProgressReport.model_validate({"trainerStatus": {field: value}})


@pytest.mark.attack("numbers")
@pytest.mark.parametrize("text", ["9" * 17, "9" * 4000, "1e99", "-1", "٣"])
@pytest.mark.parametrize("name", ["current_step", "total_steps"])
def test_a_count_of_a_stock_script_that_no_status_holds_is_dropped(name, text):
    status = {"metrics": [{"name": name, "value": text[:64]}]}
    latest = update(ProgressReport.model_validate({"trainerStatus": status}), 1, None, NOW)
    assert latest is not None
    assert latest.progress.step == 0
    assert latest.progress.total_steps is None
    assert FineTuneJobStatus(progress=latest.progress)


@pytest.mark.attack("numbers")
@pytest.mark.parametrize("field", ["steps", "startStep", "peakMemoryBytes", "estimatedMemoryBytes", "resolved"])
@pytest.mark.parametrize("value", [2**53, 10**40], ids=["2^53", "10^40"])
def test_a_result_with_a_number_that_no_status_holds_is_no_result(field, value):
    result = {
        "kind": "Training",
        "artifacts": [],
        "steps": 1,
        field: {"micro_batch_size": value} if field == "resolved" else value,
    }
    assert parse_outcome(json.dumps({"result": result})) is None


def test_a_result_of_a_trainer_one_version_ahead_is_read():
    result = {"kind": "Training", "artifacts": [], "steps": 3, "future": {"a": [1]}}
    outcome = parse_outcome(json.dumps({"result": result, "newer": 1}))
    assert outcome is not None
    assert outcome.result.steps == 3


def test_every_evaluation_on_a_plateau_is_a_point_of_the_curve():
    latest, curves = None, []
    for step, loss in ((10, "2.50041"), (20, "2.49962"), (25, "2.49962"), (30, "2.49991")):
        latest = update(ours(step, eval_loss=loss), 1, latest, NOW)
        curves = extend_curves(curves, as_json(latest.progress))
    assert curves == [{"name": "eval_loss", "curve": "10:2.50041 20:2.49962 30:2.49991"}]


@pytest.mark.parametrize(
    ("attempt", "step"), [(1, 0), (2, 90), (3, 90), (4, 30)], ids=["first", "second", "after one that loaded", "fourth"]
)
def test_the_last_step_before_an_attempt_is_of_the_newest_that_reported_one(attempt, step):
    steps = [{"endStep": 90}, {}, {"endStep": 30}, {"endStep": 99}]
    attempts = [{"number": number, **fields} for number, fields in enumerate(steps, 1)]
    assert reached_before({"attempts": attempts}, attempt) == step
