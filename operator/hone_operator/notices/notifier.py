"""Sends what is news about the models of a namespace, and keeps the ledger of what was sent."""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import NotFoundError, RefusedError
from hone_operator.desired.core import names
from hone_operator.notices.webhook import NotSentError, Webhook
from hone_operator.objects.cache import Cache
from hone_operator.reconcile.core.outcome import backoff
from hone_operator.reconcile.model.notices import Notice, facts, news

log = logging.getLogger(__name__)
LEDGER, ENTRY = "hone-notices", "sent.json"
TURN_SECONDS, BUSY_SECONDS = 5.0, 1.0
"""After so long, other namespaces have their turn; how soon they ask again."""


@dataclass
class Notifier:
    """Processes one namespace at a time."""

    cluster: Cluster
    cache: Cache
    webhook: Webhook
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _busy: bool = False
    _failures: Counter[str] = field(default_factory=Counter)

    async def process(self, namespace: str) -> float | None:
        """Send what was not sent; seconds until the next try, None: everything was sent.

        An event that was sent while the ledger could not be written is sent again, with the same id. One namespace
        sends at a time: a slow receiver keeps one worker of the queue, and no more.
        """
        if self._busy:
            return BUSY_SECONDS
        self._busy = True
        try:
            return await self._send_news(namespace)
        finally:
            self._busy = False

    async def _send_news(self, namespace: str) -> float | None:
        models, versions = self.cache.items("Model", namespace), self.cache.items("ModelVersion", namespace)
        current = await asyncio.to_thread(facts, models, versions)
        ledger = await self._ledger(namespace)
        unsent = news(current, ledger, self.now())
        waiting = {fact.key for fact in unsent}
        entries = (
            {f.key: f.entry(sent=False) for f in current if f.key not in waiting} if ledger is None else dict(ledger)
        )
        sent = await self._send(namespace, unsent, entries)
        present = {fact.key for fact in current}
        kept = {key: entry for key, entry in entries.items() if key in present}
        if kept != ledger and (ledger or models or versions):
            await self._write(namespace, kept)
        if namespace in self._failures:
            return backoff(self._failures[namespace])
        return 0.0 if sent < len(unsent) else None

    async def _send(self, namespace: str, unsent: Sequence[Notice], entries: dict[str, str]) -> int:
        """Send events until one fails or the turn is over, and note them in `entries`; return how many were sent."""
        end = time.monotonic() + TURN_SECONDS
        for number, fact in enumerate(unsent):
            if time.monotonic() > end:
                return number
            before = entries.get(fact.key)
            try:
                await self.webhook.send(event(fact, before))
            except NotSentError as error:
                self._failures[namespace] += 1
                log.warning("%s: an event about %s is not sent: %s", namespace, fact.subject, error)
                return number
            entries[fact.key] = fact.entry(before)
            self._failures.pop(namespace, None)
        self._failures.pop(namespace, None)
        return len(unsent)

    async def _ledger(self, namespace: str) -> dict[str, str] | None:
        body = await self.cluster.get("ConfigMap", namespace, LEDGER)
        try:
            entries = json.loads((body or {})["data"][ENTRY])
            return {str(key): str(value) for key, value in entries.items()}
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            return None  # there is none, or somebody has written into it

    async def _write(self, namespace: str, entries: Mapping[str, str]) -> None:
        try:
            await self.cluster.apply(ledger_map(namespace, entries))
        except (NotFoundError, RefusedError) as error:  # e.g. a quota is used up
            log.warning("%s: what was sent is not noted: %s", namespace, error)


def event(fact: Notice, before: str | None) -> dict[str, Any]:
    """CloudEvents 1.0 as JSON."""
    body = {
        "specversion": "1.0",
        "id": fact.event_id(before),
        "source": "hone.dev/operator",
        "type": fact.type,
        "subject": fact.subject,
        "datacontenttype": "application/json",
        "data": fact.data,
    }
    return body | ({"time": fact.at} if fact.at else {})


def ledger_map(namespace: str, entries: Mapping[str, str]) -> dict[str, Any]:
    """The ConfigMap with what was sent."""
    labels = {"app.kubernetes.io/managed-by": names.FIELD_MANAGER}
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    metadata = {"name": LEDGER, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {ENTRY: text}}
