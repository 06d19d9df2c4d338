"""What an object shows if the operator fails: a bug, or a status that the API server refuses. Pure."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from hone_api.words.states import ConditionType, JobPhase, Reason
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.outcome_builder import JobBuilder, builder_for

MAX_TEXT = 400
WEBHOOK_FAILED = "failed calling webhook"
"""In the API server's message, if a webhook of somebody does not answer."""
_SECRET = re.compile(r"(?i)(bearer|token|password|passwd|secret|api[-_ ]?key|authorization)(\W{1,3})\S+")
_CREDENTIALS = re.compile(r"://[^/\s@]+@")


def internal_error(body: Mapping[str, Any], now: datetime, error: BaseException) -> Outcome:
    """Reconciling=True with the error's type and text; everything else stays unchanged."""
    message = f"The operator failed and retries: {type(error).__name__}: {_text(error)}. Report it with this object."
    return _not_reconciled(body, now, Reason.INTERNAL_ERROR, message)


def api_server_error(body: Mapping[str, Any], now: datetime, words: str) -> Outcome:
    """The same if the API server fails again and again, e.g. because an admission webhook does not answer."""
    message = f"The API server fails, and the operator retries: {_scrub(words)}"
    if WEBHOOK_FAILED in words:
        message += ". Whoever looks after this webhook must start it"
    return _not_reconciled(body, now, Reason.API_SERVER_ERROR, message)


def status_refused(body: Mapping[str, Any], now: datetime, words: str) -> Outcome:
    """The same if the API server refused the decided status."""
    message = f"The API server refuses the status that the operator writes; the operator retries: {_scrub(words)}"
    return _not_reconciled(body, now, Reason.STATUS_REFUSED, message)


def write_refused(body: Mapping[str, Any], now: datetime, target: Mapping[str, Any], words: str) -> Outcome:
    """The same if the API server refused to create or change another object.

    Anybody who may create ConfigMaps can have made an immutable one; only such an object can be deleted safely.
    """
    kind, meta = target["kind"], target["metadata"]
    message = f"The API server refuses to write {kind} {meta['name']}; the operator retries: {_scrub(words)}"
    if kind == "ConfigMap":
        message += f". If it is immutable: kubectl delete configmap {meta['name']} -n {meta['namespace']}"
    return _not_reconciled(body, now, Reason.WRITE_REFUSED, message)


def _not_reconciled(body: Mapping[str, Any], now: datetime, reason: Reason, message: str) -> Outcome:
    builder = builder_for(body, now)
    builder.conditions.keep_all()
    if not builder.conditions.is_true(ConditionType.READY):
        builder.conditions.set(ConditionType.READY, False, reason, message)
    builder.conditions.set(ConditionType.RECONCILING, True, reason, message)
    if isinstance(builder, JobBuilder) and "phase" not in builder.status:
        builder.put(phase=JobPhase.PENDING)
    if isinstance(builder, JobBuilder) and not builder.conditions.is_true(ConditionType.READY):
        builder.put(reason=reason)
    builder.add_event_if_changed(ConditionType.RECONCILING, warning=True)
    return builder.outcome()


def _text(error: BaseException) -> str:
    """The error's text without values of the object, which may be long or private."""
    if isinstance(error, ValidationError):
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        return _scrub("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in problems))
    return _scrub(str(error))


def _scrub(text: str) -> str:
    line = " ".join(text.split())
    return _CREDENTIALS.sub("://…@", _SECRET.sub(r"\1\2…", line))[:MAX_TEXT]
