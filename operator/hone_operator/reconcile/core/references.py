"""References of an object to a namespace's store: the run that it belongs to, and folders that it names. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from hone_api.words.states import ConditionType
from hone_operator.desired.core import names
from hone_operator.reconcile.core.conditions import KubeCondition, is_true

Body = Mapping[str, Any]
SWEPT = ("datasets", "models", "runs")
"""Folders of the store from which a sweep removes what nothing refers to."""


def addresses(kind: str, body: Body, claim: str) -> Iterator[tuple[str, ...]]:
    """Paths in the store `claim` that this object refers to by an address `pvc://claim/path`, in parts.

    A Job refers to its resolved inputs until it has ended.
    """
    for uri in {text for text in _named(kind, body) if text.startswith(f"pvc://{claim}/")}:
        with suppress(names.InvalidReferenceError):
            yield PurePosixPath(names.split_uri(uri)[2]).parts


def folders_named_whole(objects: Iterable[tuple[str, Body]], claim: str) -> set[str]:
    """Folders of the store that an object names as a whole: `pvc://claim/models`, or the store's own address."""
    paths = {path for kind, body in objects for path in addresses(kind, body, claim) if len(path) < 2}
    return {folder for folder in SWEPT if paths & {(), (folder,)}}


def _named(kind: str, body: Body) -> list[str]:
    if kind in ("Dataset", "FineTuneJob", "ModelVersion"):
        return [*_texts(body.get("spec")), *_texts((body.get("status") or {}).get("resolved"))]
    if kind == "Job" and needs_run(kind, body):
        # An attempt's Job exists before its owner's status mentions it, and may outlive its owner.
        with suppress(ValueError, RecursionError):  # an operator did not write it
            return list(_texts(json.loads((body["metadata"].get("annotations") or {}).get(names.RESOLVED, "{}"))))
    return []


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value; objects are read at most `decoding.MAX_DEPTH` levels deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def run_of(kind: str, body: Body) -> str | None:
    """uid of the run whose work folder this object uses."""
    meta = body["metadata"]
    if kind == "FineTuneJob":
        uid: str | None = meta.get("uid")
        return uid
    if kind not in ("Job", "Pod"):
        return None
    owners = (o["uid"] for o in meta.get("ownerReferences") or () if o.get("kind") == "FineTuneJob")
    run: str | None = (meta.get("labels") or {}).get(names.RUN) or next(owners, None)
    return run


def encoding_work(job: Body) -> str | None:
    """Label of the Job that encodes the rows of this FineTuneJob, until the run has ended."""
    return None if is_true(job, ConditionType.FINISHED) else _encoding(job).get("work")


def encoded_keys(job: Body) -> list[str]:
    """Folders of encoded/ that this FineTuneJob reads, until the run has ended."""
    if is_true(job, ConditionType.FINISHED):
        return []
    pinned = ((job.get("status") or {}).get("resolved") or {}).get("encodedRows") or {}
    return [*(_encoding(job).get("keys") or ()), *(pinned.get("keys") or ())]


def _encoding(job: Body) -> Mapping[str, Any]:
    return (job.get("status") or {}).get("encoding") or {}


def needs_run(kind: str, body: Body) -> bool:
    """Whether this object still needs the checkpoints."""
    if kind == "FineTuneJob":
        retain = ((body.get("spec") or {}).get("checkpoints") or {}).get("retain")
        return not (retain == "UntilSucceeded" and is_true(body, ConditionType.SUCCEEDED))
    if kind == "Pod":
        return (body.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    return not (is_true(body, KubeCondition.COMPLETE) or is_true(body, KubeCondition.FAILED))
