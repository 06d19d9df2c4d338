"""What CloudEvents report about the models of a namespace: decided from the objects, without I/O.

A notice is a fact with a value, e.g. where an alias points. The ledger of a namespace has what was sent last of each
fact, so a fact is sent when its value is new, whenever the operator looks.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from hone_api.words.states import ApprovalState, DeliveryState
from hone_operator.times import read_time

Body = Mapping[str, Any]
PREFIX = "dev.hone."
EVALUATED, APPROVAL = "modelversion.evaluated", "modelversion.approval"
DELIVERED, ALIAS = "modelversion.delivered", "model.alias"
RECENT_SECONDS = 3600.0
"""Without a ledger, a fact that is older than this counts as sent."""


@dataclass(frozen=True)
class Notice:
    """One fact: type and subject of a CloudEvent, and its data."""

    type: str
    subject: str
    key: str
    """Of the fact in the ledger."""
    value: str
    """Of the fact, by which it is compared with the ledger."""
    data: Mapping[str, Any]
    at: str | None
    """When it became so, RFC 3339; None: unknown."""
    is_default: bool = False
    """Whether it is as every object begins, and so is news only where it was something else."""

    def event_id(self, before: str | None) -> str:
        """Id of the event that follows the ledger's entry `before`: always the same, so that receivers can ignore
        repetitions, and never one that the fact had earlier."""
        return _digest(self.key, before or "", self.value)

    def entry(self, before: str | None = None, sent: bool = True) -> str:
        """Of the ledger: the value, and the id by which it was sent."""
        return self.value + (self.event_id(before) if sent else "")


def facts(models: Iterable[Body], versions: Iterable[Body]) -> list[Notice]:
    """Every fact about these objects; one whose status has another shape than ours has none."""
    all_facts: list[Notice] = []
    for body, about in [*((v, _of_version) for v in versions), *((m, _of_model) for m in models)]:
        try:
            all_facts += list(about(body))
        except (KeyError, TypeError, AttributeError):
            continue
    return all_facts


def news(all_facts: Iterable[Notice], ledger: Mapping[str, str] | None, now: datetime) -> list[Notice]:
    """The facts that have not been sent, ordered by time; those without a time come first.

    Args:
        ledger: entries by key; None: nothing was ever sent, so that only what is recent is news.
    """
    before = ledger or {}
    unsent = [f for f in all_facts if not before.get(f.key, "").startswith(f.value)]
    unsent = [f for f in unsent if not f.is_default or f.key in before]
    return sorted((f for f in unsent if ledger is not None or not _is_old(f, now)), key=lambda f: f.at or "")


def _is_old(fact: Notice, now: datetime) -> bool:
    at = read_time(fact.at) if fact.at else None
    return at is None or (now - at).total_seconds() > RECENT_SECONDS


def _of_version(body: Body) -> Iterator[Notice]:
    meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    subject = f"{meta['namespace']}/modelversions/{meta['name']}"
    about = {
        "namespace": meta["namespace"],
        "model": spec["modelName"],
        "version": spec["version"],
        "name": meta["name"],
    }
    numbers = (spec.get("evaluation") or {}).get("numbers") or ()
    if numbers:
        shown = [{k: n[k] for k in ("name", "dataset", "base", "tuned") if n.get(k) is not None} for n in numbers]
        yield _notice(EVALUATED, subject, meta["uid"], "1", {**about, "numbers": shown}, meta["creationTimestamp"])
    approval = spec.get("approval") or {}
    state, by = approval.get("state", ApprovalState.CANDIDATE), approval.get("by")
    data = {**about, "state": state, **({"by": by} if by else {})}
    decision = _notice(APPROVAL, subject, meta["uid"], f"{state} {by or ''}", data, None)
    yield replace(decision, is_default=state == ApprovalState.CANDIDATE)
    for entry in status.get("deliveries") or ():
        if entry["state"] == DeliveryState.DELIVERED:
            data = {**about, **{k: entry[k] for k in ("location", "digest", "sizeBytes") if k in entry}}
            at = entry["deliveredAt"]
            yield _notice(DELIVERED, subject, f"{meta['uid']}/{entry['key']}", at, data, at)


def _of_model(body: Body) -> Iterator[Notice]:
    meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    about = {"namespace": meta["namespace"], "model": meta["name"]}
    subject = f"{meta['namespace']}/models/{meta['name']}"
    pointing = {entry["name"] for entry in status.get("aliases") or ()}
    wanted = {entry["name"] for entry in spec.get("aliases") or ()}
    wanted |= {*((spec.get("promotion") or {}).get("aliases") or ())}
    for name in sorted(wanted - pointing):
        data = {**about, "alias": name, "version": None}
        yield replace(_notice(ALIAS, subject, f"{meta['uid']}/{name}", "nowhere", data, None), is_default=True)
    for entry in status.get("aliases") or ():
        data = {**about, "alias": entry["name"], "version": entry["version"], "name": entry["modelVersion"]}
        if history := entry.get("history"):
            data["before"] = history[0]["version"]
        value = f"{entry['version']} {entry['since']}"
        yield _notice(ALIAS, subject, f"{meta['uid']}/{entry['name']}", value, data, entry["since"])


def _notice(type_: str, subject: str, key: str, value: str, data: Mapping[str, Any], at: str | None) -> Notice:
    return Notice(PREFIX + type_, subject, _digest(type_, key), _digest(value), data, at)


def _digest(*parts: str) -> str:
    """16 characters: a ledger has thousands of them."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
