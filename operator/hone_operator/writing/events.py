"""Kubernetes Events of our own: one for each transition, with a name that makes a second write harmless."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hone_api import API_VERSION
from hone_operator.desired.core import names
from hone_operator.reconcile.core.outcome import Event

CONTROLLER = "hone.dev/operator"
MAX_NOTE_BYTES = 1024
"""The API server says characters and counts bytes; it refuses an Event with more."""


def event_body(about: Mapping[str, Any], event: Event, now: datetime) -> dict[str, Any]:
    """events.k8s.io/v1 Event about one of our objects."""
    meta = about["metadata"]
    number = len((about.get("status") or {}).get("attempts") or ())
    key = names.digest(meta["uid"], meta.get("generation"), number, event.reason, event.message, length=16)
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name'][:200]}.{key}", "namespace": meta["namespace"]},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": "hone-operator",
        "action": "Reconcile",
        "reason": str(event.reason),
        "note": event.message.encode("utf-8", "replace")[:MAX_NOTE_BYTES].decode(errors="ignore"),
        "type": event.type,
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": about["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
    }
