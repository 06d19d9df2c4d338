"""Handles objects that are not read (too large, too deep or not JSON), or too large for a status to be written.

They are counted, logged and shown to their owner.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hone_api import API_VERSION
from hone_api.words.states import Reason
from hone_operator.objects.cache import API_VERSIONS, OURS
from hone_operator.objects.decoding import Skipped
from hone_operator.queueing.routing import Key
from hone_operator.reconcile.core.outcome import Event
from hone_operator.writing.events import event_body

log = logging.getLogger(__name__)
UNREADABLE = "Unreadable"
"""Kind of a key for an Event to write; its name is `<kind>/<name>`."""
REMEMBERED = 1024
UNWRITABLE = str(Reason.UNWRITABLE)
"""Reason for an object with which no status can be stored; also a label of the metric."""
ADVICE = {
    Reason.UNREADABLE: "Hone does not read this object, and leaves its status as it is: {}. "
    "Remove what makes it so, or delete the object.",
    Reason.UNWRITABLE: "Hone cannot write the status of this object, and leaves it alone: {}. "
    "Remove labels, annotations or whatever makes it large, or delete the object.",
}


@dataclass
class Unreadable:
    """Records each object that a list or a watch had to skip."""

    request: Callable[[Key], None] = lambda key: None
    """The queue's `request`: the Event is written like everything else, with backoff."""
    count: Callable[[str, str], None] = lambda kind, reason: None
    """Called with kind and reason of each."""
    _reported: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)
    """uid and resourceVersion of reported objects."""
    _unwritable: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)
    _waiting: dict[Key, tuple[str, Skipped]] = field(default_factory=dict)

    def note(self, kind: str, skipped: Skipped) -> None:
        """An object of this kind was skipped."""
        self.count(kind, skipped.reason)
        meta = skipped.metadata
        version = _version(kind, meta)
        if version in self._reported:
            return
        _remember(self._reported, version)
        if skipped.reason == UNWRITABLE:
            _remember(self._unwritable, version)
        name = meta.get("name", "?")
        log.warning("%s %s/%s is skipped: %s", kind, meta.get("namespace", "?"), name, skipped.message)
        if len(meta) == 4 and (kind in OURS or kind in API_VERSIONS) and len(self._waiting) < REMEMBERED:
            key = Key(UNREADABLE, meta["namespace"], f"{kind}/{name}")
            self._waiting[key] = (kind, skipped)
            self.request(key)

    def is_unwritable(self, kind: str, metadata: Mapping[str, Any]) -> bool:
        """Whether no status could be stored with the object in its current version; it is not retried until it
        changes."""
        return _version(kind, metadata) in self._unwritable

    def event(self, key: Key, now: datetime) -> dict[str, Any] | None:
        """The Event about the object of this key; None if it was written."""
        if key not in self._waiting:
            return None
        kind, skipped = self._waiting[key]
        about = {"apiVersion": API_VERSIONS.get(kind, API_VERSION), "kind": kind, "metadata": skipped.metadata}
        reason = Reason.UNWRITABLE if skipped.reason == UNWRITABLE else Reason.UNREADABLE
        return event_body(about, Event(reason, ADVICE[reason].format(skipped.message), "Warning"), now)

    def written(self, key: Key) -> None:
        """Record that the Event was written."""
        self._waiting.pop(key, None)


def _version(kind: str, metadata: Mapping[str, Any]) -> tuple[str, str]:
    """uid and resourceVersion, as far as they are known."""
    return (metadata.get("uid") or f"{kind}/{metadata.get('name')}", metadata.get("resourceVersion", ""))


def _remember(seen: OrderedDict[tuple[str, str], None], version: tuple[str, str]) -> None:
    seen[version] = None
    if len(seen) > REMEMBERED:
        seen.popitem(last=False)
