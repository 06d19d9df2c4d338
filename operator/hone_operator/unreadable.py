"""Objects that are not read: too large, too deep or not JSON. They are counted, logged and shown to their owner."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hone_api import API_VERSION
from hone_operator.cache import API_VERSIONS, OURS
from hone_operator.decoding import Skipped
from hone_operator.events import event_body
from hone_operator.reconcile.outcome import Event
from hone_operator.routing import Key

log = logging.getLogger(__name__)
UNREADABLE = "Unreadable"
"""Kind of a key that is an Event to write; its name is `<kind>/<name>`."""
REMEMBERED = 1024
ADVICE = (
    "Hone does not read this object, and leaves its status as it is: {}. Remove what makes it so, or delete the object."
)


@dataclass
class Unreadable:
    """Takes note of each object that a list or a watch had to skip."""

    request: Callable[[Key], None] = lambda key: None
    """The queue's: the Event is written like everything else, with backoff."""
    count: Callable[[str, str], None] = lambda kind, reason: None
    """Told kind and reason of each."""
    _told: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)
    """uid and resourceVersion of what was told."""
    _waiting: dict[Key, tuple[str, Skipped]] = field(default_factory=dict)

    def note(self, kind: str, skipped: Skipped) -> None:
        """An object of this kind was skipped."""
        self.count(kind, skipped.reason)
        meta = skipped.metadata
        version = (meta.get("uid") or f"{kind}/{meta.get('name')}", meta.get("resourceVersion", ""))
        if version in self._told:
            return
        self._told[version] = None
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        name = meta.get("name", "?")
        log.warning("%s %s/%s is skipped: %s", kind, meta.get("namespace", "?"), name, skipped.message)
        if len(meta) == 4 and (kind in OURS or kind in API_VERSIONS) and len(self._waiting) < REMEMBERED:
            key = Key(UNREADABLE, meta["namespace"], f"{kind}/{name}")
            self._waiting[key] = (kind, skipped)
            self.request(key)

    def event(self, key: Key, now: datetime) -> dict[str, Any] | None:
        """The Event about the object of this key; None when it was written."""
        if key not in self._waiting:
            return None
        kind, skipped = self._waiting[key]
        about = {"apiVersion": API_VERSIONS.get(kind, API_VERSION), "kind": kind, "metadata": skipped.metadata}
        return event_body(about, Event("Unreadable", ADVICE.format(skipped.message), "Warning"), now)

    def written(self, key: Key) -> None:
        """The Event is there."""
        self._waiting.pop(key, None)
