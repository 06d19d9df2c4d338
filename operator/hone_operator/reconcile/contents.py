"""Contents of a namespace's store: which are referred to, and which may go. Pure.

A content is referred to by the Dataset that has it now, by every job that was started on it, and by every ModelVersion
that was made of it: as long as a model is there, so are the rows it learned from. The work folder of a run, with its
checkpoints, is referred to by its FineTuneJob for as long as spec.checkpoints.retain says, and by its Jobs and pods.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from hone_api.plan import SweepPlan
from hone_operator.desired import names
from hone_operator.reconcile.conditions import is_true
from hone_operator.reconcile.outcome import format_time, parse_time

Ledger = Mapping[str, str]
"""Contents by hexadecimal digest, and runs by `run.` and uid: empty, or since when nothing refers to it."""
RUN = "run."
MOST = 500
"""Contents that one Job removes."""
RETRY = timedelta(hours=1)


def referred(objects: Iterable[tuple[str, Mapping[str, Any]]]) -> set[str]:
    """What these objects, with their kinds, refer to, as in the ledger."""
    pairs = list(objects)
    digests = {digest.removeprefix("sha256:") for kind, body in pairs for digest in _digests(kind, body) if digest}
    return digests | {f"{RUN}{uid}" for kind, body in pairs if (uid := run_of(kind, body)) and _needs_run(kind, body)}


def run_of(kind: str, body: Mapping[str, Any]) -> str | None:
    """uid of the run whose work folder this object is about."""
    meta = body["metadata"]
    if kind == "FineTuneJob":
        return meta.get("uid")
    if kind not in ("Job", "Pod"):
        return None
    owners = (o["uid"] for o in meta.get("ownerReferences") or () if o.get("kind") == "FineTuneJob")
    return (meta.get("labels") or {}).get(names.RUN) or next(owners, None)


def _needs_run(kind: str, body: Mapping[str, Any]) -> bool:
    """Whether the checkpoints are still needed."""
    if kind == "FineTuneJob":
        retain = ((body.get("spec") or {}).get("checkpoints") or {}).get("retain")
        return not (retain == "UntilSucceeded" and is_true(body, "Succeeded"))
    if kind == "Pod":
        return (body.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    return not (is_true(body, "Complete") or is_true(body, "Failed"))


def runs_that_stay(objects: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """uids of all FineTuneJobs, and of those that are gone while their pods still run."""
    found = {run_of(kind, body) for kind, body in objects if kind == "FineTuneJob" or _needs_run(kind, body)}
    return sorted(uid for uid in found if uid)


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
    gone |= {f"{RUN}{uid}" for uid in done.checkpoints}
    stay = {f"{RUN}{uid}" for uid in done.jobs} if done.jobs is not None else None

    def went(content: str) -> bool:
        return content in gone or (content.startswith(RUN) and stay is not None and content not in stay)

    return {content: since for content, since in ledger.items() if not (since and went(content))}


def due(ledger: Ledger, keep: timedelta) -> datetime | None:
    """When the next content may go; None: all are referred to."""
    return min((parse_time(since) + keep for since in ledger.values() if since), default=None)


def idle(ledger: Ledger, keep: timedelta, now: datetime) -> list[str]:
    """What may go now."""
    return [content for content, since in ledger.items() if since and parse_time(since) + keep <= now][:MOST]
