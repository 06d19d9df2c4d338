"""Reports of metrics whose senders wait until the status of the Model has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hone_api.contract.status_json import RetrainReportJson
from hone_api.words.states import ConditionType
from hone_operator.times import read_time

Body = Mapping[str, Any]


class Inbox:
    """The newest report for each Model, by its uid: the server puts it in, decisions about the Model read it.

    Nothing is lost when the operator ends: the sender has no answer then, and sends it again.
    """

    def __init__(self) -> None:
        self._reports: dict[str, RetrainReportJson] = {}

    @contextmanager
    def waiting(self, uid: str, report: RetrainReportJson) -> Iterator[None]:
        """Hand the report to decisions about the Model with this uid during the block."""
        self._reports[uid] = max(self._reports.get(uid, report), report, key=lambda each: each["since"])
        try:
            yield
        finally:
            if self._reports.get(uid) is report:
                del self._reports[uid]

    def of(self, model: Body) -> RetrainReportJson | None:
        """The report whose sender waits."""
        return self._reports.get(model["metadata"]["uid"])


def recorded(model: Body) -> RetrainReportJson | None:
    """The newest report in the status of a Model; one that lacks a part was written by somebody else, and is none."""
    report: RetrainReportJson | None = ((model.get("status") or {}).get("retrain") or {}).get("reported")
    return report if report and {"metric", "by", "since"} <= report.keys() else None


def is_recorded(model: Body, report: RetrainReportJson) -> bool:
    """Whether the status has this report or a newer one."""
    newest = recorded(model)
    return newest is not None and newest["since"] >= report["since"]


def answer(model: Body, report: RetrainReportJson) -> tuple[bool, str]:
    """Whether a recorded report asks for a job, and what that job waits for."""
    status = model.get("status") or {}
    start = (status.get("retrain") or {}).get("lastStart")
    since, last_start = read_time(report["since"]), read_time(start)
    if since and last_start and last_start >= since:
        return False, f"A job of this model was created at {start}, after the metric was reported first."
    conditions = status.get("conditions") or ()
    up_to_date: Body = next((c for c in conditions if c["type"] == ConditionType.UP_TO_DATE), {})
    return True, f"{up_to_date.get('reason', 'Recorded')}: {up_to_date.get('message', '')}"
