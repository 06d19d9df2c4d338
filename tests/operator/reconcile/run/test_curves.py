"""The decimated curves of status.metrics: one line of text each, written on from what an earlier version wrote."""

from __future__ import annotations

from typing import Any

import pytest

from hone_api.kinds.finetunejob_status import MetricSeries
from hone_operator.reconcile.run.progress import MAX_POINTS, CurvePoint, extend_curves, points

pytestmark = pytest.mark.pure


def written(steps: int) -> list[dict[str, Any]]:
    status: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        status = extend_curves(status, {"step": step, "loss": f"{4 - step / 1000:.5g}", "evalLoss": "nan"})
    return status


def test_a_curve_is_one_line_however_long_the_run() -> None:
    loss, eval_loss = written(1000)
    assert (loss["name"], eval_loss) == ("loss", {"name": "eval_loss", "curve": "1:nan"})
    assert loss["curve"].startswith("1:3.999 ")
    assert loss["curve"].endswith(" 1000:3")
    assert MAX_POINTS / 2 <= len(points(loss)) <= MAX_POINTS
    MetricSeries.model_validate(loss)


def test_the_longest_curve_fits() -> None:
    longest = [CurvePoint(2**53 - 1 - MAX_POINTS + n, "-1.23457e-100") for n in range(MAX_POINTS)]
    MetricSeries(name="loss", curve=" ".join(f"{p.step}:{p.value}" for p in longest))


def test_a_list_of_an_earlier_version_is_written_on() -> None:
    earlier = [{"name": "loss", "points": [{"step": 4, "value": "1.5"}, {"step": 8, "value": "1.25"}]}]
    assert extend_curves(earlier, {"step": 12, "loss": "1"}) == [{"name": "loss", "curve": "4:1.5 8:1.25 12:1"}]
    MetricSeries.model_validate(earlier[0])


def test_a_resumed_attempt_replaces_what_it_trains_again() -> None:
    assert extend_curves([{"name": "loss", "curve": "4:1.5 8:1.25"}], {"step": 6, "loss": "1"}) == [
        {"name": "loss", "curve": "4:1.5 6:1"}
    ]


def test_a_point_is_at_the_step_at_which_it_was_measured() -> None:
    """Reports are at intervals: steps between two of them are in none, and an evaluation is some steps old."""
    progress: dict[str, Any] = {"step": 23, "lossStep": 20, "evalStep": 16, "loss": "1.5", "evalLoss": "2"}
    progress["metrics"] = {"eval_f1": "0.5"}
    curves = extend_curves(extend_curves([], progress), {**progress, "step": 25})
    assert {series["name"]: series["curve"] for series in curves} == {
        "loss": "20:1.5",
        "eval_loss": "16:2",
        "eval_f1": "16:0.5",
    }
    assert extend_curves(curves, {"step": 6, "lossStep": 8, "loss": "1"}) == []  # a resumed attempt, before its loss


@pytest.mark.parametrize("curve", ["x", "4", ":", "4:", "4:x", "-4:1", "4:1:2", "9" * 40 + ":1", "4:１x"])
def test_what_somebody_else_wrote_is_left_out(curve: str) -> None:
    assert points({"name": "loss", "curve": f"2:2 {curve} 6:1"}) == [CurvePoint(2, "2"), CurvePoint(6, "1")]
    assert points({"name": "loss", "points": [{}, {"step": curve, "value": "1"}, {"step": 6, "value": "1"}]})[-1:] == [
        CurvePoint(6, "1")
    ]
