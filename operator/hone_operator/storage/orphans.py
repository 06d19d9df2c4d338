"""Finds runs whose folders are written by training Jobs and pods that do not say which run they belong to.

An operator from before the label hone.dev/run created them, and their FineTuneJob was deleted without them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from hone_operator.apiserver.cluster import Cluster
from hone_operator.desired.core import names
from hone_operator.desired.core.pod import PLAN
from hone_operator.reconcile.core.references import needs_run, run_of

RUNS = "runs"


async def runs(cluster: Cluster, live: Iterable[tuple[str, Mapping[str, Any]]]) -> set[str] | None:
    """uids of these runs; None: the run of one of them is unknown, so no run may be removed.

    Args:
        live: kinds and bodies of the Jobs and pods of a namespace, stripped.
    """
    uids = set[str]()
    for kind, body in live:
        if _is_anonymous(kind, body):
            meta = body["metadata"]
            whole = await cluster.get(kind, meta["namespace"], meta["name"])
            if whole is None or whole["metadata"]["uid"] != meta["uid"]:
                continue  # it was deleted in the meantime
            uid = await _run(cluster, meta["namespace"], _pod_spec(kind, whole))
            if uid is None:
                return None
            uids.add(uid)
    return uids


def _is_anonymous(kind: str, body: Mapping[str, Any]) -> bool:
    component = (body["metadata"].get("labels") or {}).get(names.COMPONENT)
    return kind in ("Job", "Pod") and component == "training" and run_of(kind, body) is None and needs_run(kind, body)


def _pod_spec(kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = body.get("spec") or {}
    return (spec.get("template") or {}).get("spec") or {} if kind == "Job" else spec


async def _run(cluster: Cluster, namespace: str, spec: Mapping[str, Any]) -> str | None:
    """The run whose folder these pods mount, or that their plan names if they mount the whole store."""
    for place in _mounted(spec):
        if uid := _below_runs(place):
            return uid
    plans = [v["configMap"]["name"] for v in spec.get("volumes") or () if v.get("name") == PLAN and "configMap" in v]
    config = await cluster.get("ConfigMap", namespace, plans[0]) if plans else None
    try:
        work = json.loads((config or {})["data"][names.PLAN_FILE.name])["workPath"]
        return _below_runs(str(PurePosixPath(work).relative_to(names.STORE)))
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _mounted(spec: Mapping[str, Any]) -> Iterator[str]:
    for container in spec.get("containers") or ():
        yield from (m["subPath"] for m in container.get("volumeMounts") or () if m.get("subPath"))


def _below_runs(place: str) -> str | None:
    top, *below = PurePosixPath(place).parts or ("",)
    return below[0] if top == RUNS and below else None
