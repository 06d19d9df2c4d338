"""Bodies that ask for a repetition of a Model's job: our own, and Alertmanager's version 4."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from hone_api.contract.metric_report import Reading, read_metric

pytestmark = pytest.mark.pure


def read(body: Any) -> Reading | None:
    return read_metric(body if isinstance(body, bytes) else json.dumps(body).encode())


def alert(start: str, status: str = "firing", name: str = "WrongAnswers", **annotations: str) -> dict[str, Any]:
    """As Alertmanager 0.28 writes it: `template.Alert`."""
    return {
        "status": status,
        "labels": {"alertname": name, "namespace": "team-a", "severity": "warning"},
        "annotations": annotations,
        "startsAt": start,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph?g0.expr=x",
        "fingerprint": "c6eadffa33fcdf37",
    }


def notification(*alerts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """As Alertmanager writes it: `webhook.Message`, which embeds `template.Data`."""
    return {
        "receiver": "retrain",
        "status": "firing",
        "alerts": list(alerts),
        "groupLabels": {"alertname": "WrongAnswers"},
        "commonLabels": {"alertname": "WrongAnswers"},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "version": "4",
        "groupKey": '{}:{alertname="WrongAnswers"}',
        "truncatedAlerts": 0,
        **fields,
    }


def test_the_alert_that_began_last_is_the_reason() -> None:
    first = alert("2026-01-02T09:52:26.739266876+02:00", value="0.12", summary="12 %\nof answers are wrong")
    body = notification(first, alert("2026-01-01T00:00:00Z"), alert("2026-01-03T00:00:00Z", "resolved"))
    reading = read(body)
    assert reading
    assert reading[:3] == ("WrongAnswers", "0.12", "12 % of answers are wrong")
    assert reading.since
    assert reading.since.astimezone(UTC).replace(microsecond=0) == datetime(2026, 1, 2, 7, 52, 26, tzinfo=UTC)


def test_an_alert_without_annotations_is_enough_and_later_fields_are_ignored() -> None:
    start = "2026-01-02T00:00:00Z"
    later = {**alert(start, description="d" * 999), "newField": 1}
    reading = read(notification(later, newField={"a": 1}))
    assert reading
    assert (reading.value, reading.reason) == (None, "d" * 253)


def test_a_notification_that_nothing_fires_any_more_asks_for_nothing() -> None:
    assert read(notification(alert("2026-01-02T00:00:00Z", "resolved"), status="resolved")) is None


@pytest.mark.parametrize("value", [0.12, "0.12", "-3e-7", 4])
def test_our_own_format(value: Any) -> None:
    body = {"metric": "wrong_answers", "value": value, "reason": "more than 0.1", "since": "2026-01-02T00:00:00Z"}
    since = datetime(2026, 1, 2, tzinfo=UTC)
    assert read(body) == Reading("wrong_answers", str(value), "more than 0.1", since)
    assert read({"metric": "m"}) == Reading("m", None, None, None)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"metric": "m", "limit": 3}, "limit"),
        ({"value": 3}, "metric"),
        ({"metric": ""}, "metric"),
        ({"metric": "m" * 129}, "metric"),
        ({"metric": "m", "value": "much"}, "value"),
        (b'{"metric": "m", "value": NaN}', "value"),
        ({"metric": "m", "reason": "r" * 254}, "reason"),
        ({"metric": "m", "since": "2026-01-02T00:00:00"}, "since"),
        ({"metric": "m", "since": "0001-01-01T00:00:00Z"}, "since"),
        (notification(alert("2026-01-02T00:00:00Z"), version="5"), "version"),
        (notification({"status": "firing"}), "startsAt"),
        ({"alerts": []}, "version"),
        ([], "MetricReport"),
        (b"metric=3", "expected"),
        (b"[" * 10_000, "recursion"),
        (b"\xff", "expected"),
    ],
)
def test_anything_else_is_refused_with_its_place(body: Any, where: str) -> None:
    with pytest.raises(ValueError, match=where):
        read(body)
