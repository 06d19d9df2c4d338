"""An object in a namespace that has not let the operator in: it waits, and its status says how to change that."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hone_operator.reconcile.conditions import is_true
from hone_operator.reconcile.draft import Draft
from hone_operator.reconcile.outcome import Outcome

REASON = "NamespaceNotEnabled"


def not_enabled(body: Mapping[str, Any], now: datetime, problem: str | None = None) -> Outcome:
    """Status only: there is no right to anything else.

    Args:
        problem: why a namespace that has opted in cannot be served yet; None: it has not opted in.
    """
    draft = Draft(body, now)
    if body["metadata"].get("deletionTimestamp") or is_true(body, "Finished") or _is_settled(body):
        return Outcome()
    namespace = body["metadata"]["namespace"]
    message = problem or (
        f"Namespace {namespace} is not enabled for Hone. Somebody who may edit namespaces must run: "
        f"kubectl label namespace {namespace} hone.dev/enabled=true"
    )
    draft.conditions.keep_all()
    draft.ready(False, REASON, message, reconciling=True)
    if body["kind"] != "ModelVersion" and "phase" not in draft.status:
        draft.put(phase="Pending")
    return draft.outcome()


def _is_settled(body: Mapping[str, Any]) -> bool:
    """A Dataset or ModelVersion that is Ready in this generation stays so: nothing has to be done for it."""
    seen = (body.get("status") or {}).get("observedGeneration") == body["metadata"].get("generation")
    return body["kind"] != "FineTuneJob" and seen and is_true(body, "Ready")
