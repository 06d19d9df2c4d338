"""How long a run waits for what is about to change: until the pods of a job in Kueue's queue run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hone_operator.desired.core import names
from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import PATIENCE, Key, patience
from hone_operator.queueing.workqueue import WorkQueue
from hone_operator.watches import Watches

pytestmark = pytest.mark.pure
RUN = Key("FineTuneJob", "team", "run")
IN_KUEUE = {"queue": {"name": "team", "reason": "Pending"}}
IN_LINE = {"queue": {"reason": "MaxActiveJobs", "position": 1}}


def meta(name: str, kind: str = "", owner: str = "", **more: Any) -> dict[str, Any]:
    owners = {"apiVersion": "hone.dev/v1alpha1" if kind == "FineTuneJob" else "batch/v1", "kind": kind, "name": owner}
    refs = {"ownerReferences": [{**owners, "uid": owner, "controller": True}]} if owner else {}
    return {"name": name, "namespace": "team", "uid": name, "resourceVersion": "1", **refs, **more}


def run(status: Mapping[str, Any], *true: str) -> dict[str, Any]:
    conditions = [{"type": each, "status": "True"} for each in true]
    api = "hone.dev/v1alpha1"
    status = {**status, "conditions": conditions}
    return {"apiVersion": api, "kind": "FineTuneJob", "metadata": meta("run"), "spec": {}, "status": status}


def child(queue: str | None = "team") -> dict[str, Any]:
    labels = {names.QUEUE: queue} if queue else {}
    return {"kind": "Job", "metadata": meta("run-1", "FineTuneJob", "run", labels=labels), "spec": {}}


def waits(about: Mapping[str, Any], job: Mapping[str, Any]) -> float:
    cache = Cache()
    cache.put("FineTuneJob", job)
    return patience(about["kind"], about, RUN, cache)


WORKLOAD = {"kind": "Workload", "metadata": meta("wl", "Job", "run-1"), "spec": {}}
POD = {"kind": "Pod", "metadata": meta("pod", "Job", "run-1"), "spec": {}}
STAGING = {"kind": "Job", "metadata": meta("fetch", "PersistentVolumeClaim", "store", labels={names.QUEUE: "cpu"})}


@pytest.mark.parametrize(
    ("about", "job", "seconds"),
    [
        (child(), run({}), PATIENCE),  # it has just been created, and the first status is not written
        (child(queue=None), run({}), 0.0),
        (child(), run(IN_KUEUE), PATIENCE),
        (WORKLOAD, run(IN_KUEUE), PATIENCE),
        (POD, run(IN_KUEUE), PATIENCE),
        (run(IN_KUEUE), run(IN_KUEUE), PATIENCE),  # the operator's own status
        (POD, run(IN_KUEUE, "Running"), 0.0),
        (child(), run(IN_KUEUE, "Finished"), 0.0),
        (child(queue=None), run(IN_LINE), 0.0),
        (STAGING, run({}), 0.0),
    ],
)
def test_only_a_job_in_kueue_that_does_not_run_is_decided_on_later(about: Any, job: Any, seconds: float) -> None:
    assert waits(about, job) == seconds


def test_a_job_that_is_gone_waits_for_nothing() -> None:
    assert patience("Job", child(), RUN, Cache()) == 0.0


async def test_a_user_does_not_wait() -> None:
    async def process(key: Key) -> None:
        raise AssertionError(key)

    cache, queue = Cache(), WorkQueue[Key](process)
    cluster: Any = None
    watches = Watches(cluster, cache, queue, (), workloads=True)
    for body in (run(IN_KUEUE), child()):
        cache.put(body["kind"], body)
    watches.changed("Job", child())
    watches.changed("Workload", WORKLOAD)
    assert queue.depth == 0
    watches.changed("FineTuneJob", run(IN_KUEUE))
    assert queue.depth == 1
