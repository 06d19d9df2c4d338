"""Metrics that ServiceAccounts of spec.retrain.requesters reported: each is a request for a job. Pure."""

from hone_api.contract.status_json import RetrainReportJson
from hone_api.words.states import Reason
from hone_operator.progress.inbox import is_recorded, recorded
from hone_operator.reconcile.core.outcome_builder import ModelBuilder


def take_newest(builder: ModelBuilder, arrived: RetrainReportJson | None) -> RetrainReportJson | None:
    """The newest report, with an Event if it has just arrived; it is in the status from now on."""
    if arrived is None or is_recorded(builder.body, arrived):
        return recorded(builder.body)
    builder.put(retrain={**(builder.old.get("retrain") or {"datasets": []}), "reported": arrived})
    words = f"{described(arrived)}, since {arrived['since']}"
    builder.add_event(Reason.METRIC_REPORTED, f"{words}: {arrived['reason']}" if arrived.get("reason") else f"{words}.")
    return arrived


def described(report: RetrainReportJson) -> str:
    """Who reported what."""
    value = f" {report['value']}" if report.get("value") else ""
    return f"{report['by']} reported {report['metric']}{value}"
