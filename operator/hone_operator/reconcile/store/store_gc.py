"""Content of a namespace's store: which is referred to, and which may be removed. Pure.

Content is referred to by the Dataset that has it at present, by every job that was started on it, and by every
ModelVersion that was trained on it: as long as a model exists, so do its rows. The work folder of a run, with its
checkpoints, is referred to by its FineTuneJob for as long as spec.checkpoints.retain says, and by its Jobs and pods.
Both are also referred to by any object that has the address of a folder in them, e.g. a run that starts from a
checkpoint.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from hone_api.plan import SweepPlan
from hone_operator.desired.core import names
from hone_operator.reconcile.core.references import addresses, encoded_keys, needs_run, run_of
from hone_operator.reconcile.store import models
from hone_operator.times import format_time, parse_time, read_time

Ledger = Mapping[str, str]
"""Content by hexadecimal digest, runs by `run.` and uid, encoded splits by `encoded.` and key, and models that are
deleted with their ModelVersion (see `models`). The value is empty, or the time of the last reference."""
RUN = "run."
ENCODED = "encoded."
FOLDERS = {"runs": RUN, "datasets": ""}
"""Folders of the store that are swept, and the prefix of their names in the ledger."""
_ENTRY = re.compile(rf"[0-9a-f]{{64}}|run\.[-._a-zA-Z0-9]{{1,240}}|encoded\.[0-9a-f]{{40}}|{models.PATTERN}")
MOST = 500
"""Number of contents that one Job removes."""
RETRY = timedelta(hours=1)


def referred_keys(objects: Iterable[tuple[str, Mapping[str, Any]]], claim: str) -> set[str]:
    """Ledger keys that these objects, with their kinds, refer to; `claim` is the store's."""
    pairs = list(objects)
    digests = {digest.removeprefix("sha256:") for kind, body in pairs for digest in _digests(kind, body) if digest}
    runs = {f"{RUN}{uid}" for kind, body in pairs if (uid := run_of(kind, body)) and needs_run(kind, body)}
    jobs = [body for kind, body in pairs if kind == "FineTuneJob"]
    encoded = {f"{ENCODED}{key}" for body in jobs for key in encoded_keys(body)}
    return digests | runs | encoded | {content for kind, body in pairs for content in _addressed(kind, body, claim)}


def _addressed(kind: str, body: Mapping[str, Any], claim: str) -> Iterator[str]:
    """Ledger keys of content, runs and models in which this object refers to a folder by its address."""
    for path in addresses(kind, body, claim):
        if len(path) > 1 and path[0] in FOLDERS:
            yield f"{FOLDERS[path[0]]}{path[1]}"
        elif (place := models.place_in(path)) and (key := models.key_of(place)):
            yield key


def being_made(objects: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Names of the Jobs that have not ended, or whose pods have not: their rows are still being made."""
    job_names = set()
    for kind, body in objects:
        if kind not in ("Job", "Pod") or not needs_run(kind, body):
            continue
        owners = body["metadata"].get("ownerReferences") or ()
        job_names |= (
            {body["metadata"]["name"]} if kind == "Job" else {o["name"] for o in owners if o.get("kind") == "Job"}
        )
    return sorted(job_names)


def runs_that_stay(objects: Iterable[tuple[str, Mapping[str, Any]]], claim: str) -> list[str]:
    """uids of all FineTuneJobs, and of deleted ones whose pods still run or whose folder somebody refers to."""
    pairs = list(objects)
    jobs = {run_of(kind, body) for kind, body in pairs if kind == "FineTuneJob"}
    needed = {content.removeprefix(RUN) for content in referred_keys(pairs, claim) if content.startswith(RUN)}
    return sorted(uid for uid in jobs | needed if uid)


def _digests(kind: str, body: Mapping[str, Any]) -> Iterator[str | None]:
    status = body.get("status") or {}
    if kind == "Dataset":
        yield status.get("digest")
    elif kind == "FineTuneJob":
        yield from ((status.get("resolved") or {}).get("datasetDigests") or {}).values()
    elif kind == "ModelVersion":
        yield from (dataset.get("digest") for dataset in (body["spec"].get("lineage") or {}).get("datasets") or ())
    elif kind == "Job":
        # An attempt's Job exists before its owner's status mentions it.
        yield from _pinned((body["metadata"].get("annotations") or {}).get(names.RESOLVED, ""))


def _pinned(resolved: str) -> list[str]:
    """Digests in an annotation; empty if an operator did not write it."""
    try:
        digests = json.loads(resolved)["datasetDigests"].values()
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return []
    return [digest for digest in digests if isinstance(digest, str)]


def update_ledger(
    ledger: Ledger, now_referred: set[str], now: datetime, claims: Mapping[str, bool] | None = None
) -> dict[str, str]:
    """The ledger, updated with the current references.

    Users may edit it: unknown keys are dropped, and a time that cannot be parsed starts again.

    Args:
        claims: from `models.claimed_folders`, for existing ModelVersions and those that were just deleted.
    """
    tracked = models.tracked(ledger, claims or {})
    idle = {content: _time(since) or format_time(now) for content, since in tracked.items()}
    entries = idle | {content: "" for content in now_referred if content in tracked or not models.is_key(content)}
    return {content: entries[content] for content in sorted(entries) if _ENTRY.fullmatch(content)}


def _time(since: str) -> str | None:
    """The time in our format, or None for any other text."""
    return since if read_time(since) else None


def without(ledger: Ledger, plan: SweepPlan) -> dict[str, str]:
    """The ledger after a Job has removed its content; content that is referred to again stays."""
    gone = _listed(plan)
    stay = {f"{RUN}{uid}" for uid in plan.jobs} if plan.jobs is not None else None

    def went(content: str) -> bool:
        return content in gone or (content.startswith(RUN) and stay is not None and content not in stay)

    return {content: since for content, since in ledger.items() if not (since and went(content))}


def folder_of(content: str) -> str:
    """Folder of the store in which it is."""
    if models.is_key(content):
        return models.FOLDER
    return "runs" if content.startswith(RUN) else "datasets"


def is_outdated(plan: SweepPlan, now_referred: set[str], exports: set[str], whole: set[str]) -> bool:
    """Whether an object refers to what the plan removes: it has done so only since the plan was made.

    Args:
        exports: from `models.named_models`.
        whole: from `references.folders_named_whole`.
    """
    listed = _listed(plan)
    if any(folder_of(content) in whole for content in listed) or (plan.jobs is not None and "runs" in whole):
        return True
    return not listed.isdisjoint(now_referred) or any(models.stays(place, exports) for place in plan.models)


def _listed(plan: SweepPlan) -> set[str]:
    """Ledger keys that a plan removes."""
    digests = {digest.removeprefix("sha256:") for digest in plan.remove}
    runs = {f"{RUN}{uid}" for uid in plan.checkpoints} | {f"{ENCODED}{key}" for key in plan.encoded}
    return digests | runs | {k for p in plan.models if (k := models.key_of(p))}


def next_removal(ledger: Ledger, keep: timedelta) -> datetime | None:
    """When the next content may be removed; None if all is referred to."""
    return min((parse_time(since) + keep for since in ledger.values() if since), default=None)


def idle_contents(ledger: Ledger, keep: timedelta, now: datetime) -> list[str]:
    """Content that may be removed now."""
    return [content for content, since in ledger.items() if since and parse_time(since) + keep <= now][:MOST]
