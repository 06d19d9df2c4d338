"""Contents of Datasets in a namespace's store: which are referred to, and which may go. Pure.

A content is referred to by the Dataset that has it now, by every job that was started on it, and by every ModelVersion
that was made of it: as long as a model is there, so are the rows it learned from.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from hone_api.plan import SweepPlan
from hone_operator.desired import names
from hone_operator.reconcile.outcome import format_time, parse_time

Ledger = Mapping[str, str]
"""Contents by hexadecimal digest: empty, or since when nothing refers to it."""
MOST = 500
"""Contents that one Job removes."""
RETRY = timedelta(hours=1)


def referred(objects: Iterable[tuple[str, Mapping[str, Any]]]) -> set[str]:
    """Hexadecimal digests that these objects, with their kinds, refer to."""
    return {digest.removeprefix("sha256:") for kind, body in objects for digest in _digests(kind, body) if digest}


def _digests(kind: str, body: Mapping[str, Any]) -> Iterator[str | None]:
    status = body.get("status") or {}
    if kind == "Dataset":
        yield status.get("digest")
    elif kind == "FineTuneJob":
        yield from ((status.get("resolved") or {}).get("datasetDigests") or {}).values()
    elif kind == "ModelVersion":
        yield from (dataset.get("digest") for dataset in (body["spec"].get("lineage") or {}).get("datasets") or ())
    elif kind == "Job":
        # An attempt's Job exists before its owner's status tells of it.
        resolved = (body["metadata"].get("annotations") or {}).get(names.RESOLVED)
        yield from (json.loads(resolved).get("datasetDigests") or {}).values() if resolved else ()


def updated(ledger: Ledger, now_referred: set[str], now: datetime) -> dict[str, str]:
    """The ledger with what is referred to now."""
    idle = {content: since or format_time(now) for content, since in ledger.items() if content not in now_referred}
    return dict(sorted((idle | dict.fromkeys(now_referred, "")).items()))


def without(ledger: Ledger, done: SweepPlan) -> dict[str, str]:
    """The ledger after a Job has removed its contents; one that is referred to again stays."""
    gone = {digest.removeprefix("sha256:") for digest in done.remove}
    return {content: since for content, since in ledger.items() if not (since and content in gone)}


def due(ledger: Ledger, keep: timedelta) -> datetime | None:
    """When the next content may go; None: all are referred to."""
    return min((parse_time(since) + keep for since in ledger.values() if since), default=None)


def idle(ledger: Ledger, keep: timedelta, now: datetime) -> list[str]:
    """What may go now."""
    return [content for content, since in ledger.items() if since and parse_time(since) + keep <= now][:MOST]
