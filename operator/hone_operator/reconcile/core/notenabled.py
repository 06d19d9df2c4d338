"""An object in a namespace that has not opted in: it waits, and its status says how to change that."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hone_api.words.states import ConditionType, JobPhase, Reason
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.outcome_builder import DatasetBuilder, JobBuilder, builder_for

REASON = Reason.NAMESPACE_NOT_ENABLED


def not_enabled(body: Mapping[str, Any], now: datetime, message: str) -> Outcome:
    """Write only the status: the operator has no other right there."""
    builder = builder_for(body, now)
    if body["metadata"].get("deletionTimestamp") or is_true(body, ConditionType.FINISHED) or _is_settled(body):
        return Outcome()
    builder.conditions.keep_all()
    builder.ready(False, REASON, message, reconciling=True)
    if isinstance(builder, JobBuilder | DatasetBuilder) and "phase" not in builder.status:
        builder.put(phase=JobPhase.PENDING)
    if isinstance(builder, JobBuilder):
        builder.put(reason=REASON)
    return builder.outcome()


def _is_settled(body: Mapping[str, Any]) -> bool:
    """A Dataset, Model or ModelVersion that is Ready in this generation stays Ready: nothing has to be done for it."""
    seen = (body.get("status") or {}).get("observedGeneration") == body["metadata"].get("generation")
    return body["kind"] != "FineTuneJob" and seen and is_true(body, ConditionType.READY)
