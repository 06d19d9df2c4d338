"""A label that a Job or a pod loses, and gets again: what is there never counts as deleted, and nobody's label ends the
operator. The API server is real, and so are the events of its watches."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
import requests
from support.cluster.hand import UNSCHEDULED, Namespace, running
from support.cluster.kube import path
from support.cluster.rights import installed

from hone_operator.apiserver import listing
from hone_operator.apiserver.cluster import Cluster
from hone_operator.desired.core.names import COMPONENT
from hone_operator.objects.cache import Cache, strip
from hone_operator.queueing.workqueue import WorkQueue
from hone_operator.watches import Watches

pytestmark = pytest.mark.apiserver
POD = {"containers": [{"name": "x", "image": "example.org/x"}], "restartPolicy": "Never"}
SPECS: dict[str, Any] = {"Job": {"suspend": True, "template": {"spec": POD}}, "Pod": POD}


async def nothing(key: Any) -> float | None:
    return None


class Watching:
    """The operator's watches of one namespace; their events are read on demand."""

    def __init__(self, namespace: Namespace, watches: Watches) -> None:
        self.namespace, self.watches = namespace, watches
        self.deaf: list[str] = []
        watches.on_deaf = self.deaf.append
        self._version = namespace.kube.call("GET", path("Job", namespace.name))["metadata"]["resourceVersion"]

    async def events(self, kind: str) -> list[str]:
        """Take what a watch with our selector has delivered since the last call; returns types of events."""
        since = f"watch=true&timeoutSeconds=1&labelSelector={COMPONENT}&resourceVersion={self._version}"
        raw = await self.watches.listing.cluster._call("GET", f"{path(kind, self.namespace.name)}?{since}")
        read = [json.loads(line) for line in raw.splitlines()]
        for event in read:
            self._version = event["object"]["metadata"]["resourceVersion"]
            self.watches.take(kind, strip(kind, event["object"]), is_deleted=event["type"] == "DELETED")
        while self.watches._looking:
            await asyncio.gather(*self.watches._looking)
        return [event["type"] for event in read]


@pytest.fixture
async def watching(cluster: Cluster, namespace: Namespace) -> Watching:
    return Watching(namespace, Watches(cluster, Cache(), WorkQueue(nothing), [namespace.name]))


def label(namespace: Namespace, kind: str, name: str, value: str | None) -> None:
    namespace.patch(kind, name, {"metadata": {"labels": {COMPONENT: value}}})


@pytest.mark.parametrize("kind", ["Job", "Pod"])
async def test_the_labels_of_strangers_do_not_matter(
    watching: Watching, namespace: Namespace, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may create them, in any namespace. Every watch counts as silent, so a missed change would be noticed."""
    monkeypatch.setattr(listing, "SILENT_SECONDS", -1.0)
    namespace.create(kind, "x", SPECS[kind], metadata={"name": "x", "labels": {COMPONENT: "x"}})
    assert await watching.events(kind) == ["ADDED"]
    for value, event in ((None, "DELETED"), ("x", "ADDED")):
        label(namespace, kind, "x", value)
        assert await watching.events(kind) == [event]
    for _ in range(3):
        await watching.watches.listing.compare()
    assert watching.deaf == []
    cached = watching.watches.cache.items(kind)
    assert len(cached) == (1 if kind == "Job" else 0), "a Job may be what a deleted FineTuneJob has left; a pod is not"


@pytest.mark.parametrize("again", [False, True])
async def test_a_job_of_ours_that_loses_its_labels_gets_them_back(
    watching: Watching, namespace: Namespace, spec: Any, again: bool
) -> None:
    owner = namespace.create("FineTuneJob", "run", spec())
    cache = watching.watches.cache
    cache.put("FineTuneJob", owner)
    labels = {COMPONENT: "training", "hone.dev/attempt": "1", "theirs": "a"}
    meta = {"name": "run-1", "labels": labels, **owned("hone.dev/v1alpha1", owner)}
    job = namespace.create("Job", "run-1", SPECS["Job"], metadata=meta)
    assert await watching.events("Job") == ["ADDED"]
    changes: list[dict[str, Any]] = [{COMPONENT: None, "theirs": "b"}, {"hone.dev/attempt": "7"}]
    for changed in changes[: 1 + again]:
        namespace.patch("Job", "run-1", {"metadata": {"labels": changed}})
        await watching.events("Job")
        assert cache.children(owner, "Job")[0]["metadata"]["labels"]["hone.dev/attempt"] == "1"
    now = namespace.get("Job", "run-1")["metadata"]
    assert now["labels"] == {**labels, "theirs": "b"}
    assert now["uid"] == job["metadata"]["uid"]
    await watching.events("Job")
    namespace.delete("Job", "run-1")
    assert await watching.events("Job") == ["DELETED"]
    assert cache.items("Job") == []


async def test_a_pod_of_ours_that_loses_its_label_is_followed(
    watching: Watching, namespace: Namespace, spec: Any
) -> None:
    """The operator may not write pods; comparing lists brings what becomes of it."""
    owner = namespace.create("FineTuneJob", "run", spec())
    cache = watching.watches.cache
    meta = {"name": "run-1", "labels": {COMPONENT: "training"}, **owned("hone.dev/v1alpha1", owner)}
    job = namespace.create("Job", "run-1", SPECS["Job"], metadata=meta)
    for body in (owner, job):
        cache.put(body["kind"], body)
    meta = {"name": "run-1-0", "labels": {COMPONENT: "training"}, **owned("batch/v1", job)}
    namespace.create("Pod", "run-1-0", POD, metadata=meta)
    await watching.events("Pod")
    label(namespace, "Pod", "run-1-0", None)
    await watching.events("Pod")
    assert [pod["metadata"]["name"] for pod in cache.children(job, "Pod")] == ["run-1-0"]
    namespace.patch("Pod", "run-1-0", {"status": {"phase": "Failed"}}, sub="status")
    await watching.watches.listing.compare()
    assert cache.children(job, "Pod")[0]["status"]["phase"] == "Failed"
    assert watching.deaf == []


def owned(api: str, owner: dict[str, Any]) -> dict[str, Any]:
    meta = owner["metadata"]
    reference = {"apiVersion": api, "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"], "controller": True}
    return {"ownerReferences": [reference]}


@pytest.mark.faults("O19")
def test_a_run_goes_on_when_its_job_loses_labels(namespace: Namespace, operator: Any, spec: Any, result: Any) -> None:
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    job = namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    pods = namespace.start_pods("run-1")
    namespace.until(lambda: namespace.get("FineTuneJob", "run").get("status", {}).get("phase") == "Running", "Running")
    labels = job["metadata"]["labels"]
    # Not all: the API server gives a Job without labels those of its pods.
    namespace.patch("Job", "run-1", {"metadata": {"labels": {COMPONENT: None, "hone.dev/attempt": None}}})

    def restored() -> bool:
        now = namespace.get("Job", "run-1")["metadata"].get("labels") or {}
        return all(now.get(name) == value for name, value in labels.items() if name.startswith("hone.dev/"))

    namespace.until(restored, "labels of Hone are there again")
    for rank, pod in enumerate(pods):
        namespace.end_pod(pod, 0, {"result": result} if rank == 0 else None)
    namespace.end_job("run-1", "Complete")
    namespace.until(
        lambda: namespace.get("FineTuneJob", "run").get("status", {}).get("phase") == "Succeeded", "Succeeded"
    )
    assert [a["outcome"] for a in namespace.get("FineTuneJob", "run")["status"]["attempts"]] == ["Succeeded"]
    assert "run-2" not in namespace.names("Job")


@pytest.mark.faults("O19")
@pytest.mark.attack("operator's rights")
def test_labels_are_lost_in_a_cluster(kube, apiserver, namespace, start_operator, spec, tmp_path) -> None:
    """The operator with the rights of the chart watches all namespaces and compares lists each second; a stranger, in
    one that is not enabled, takes the label of a Job away and gives it back."""
    elsewhere = Namespace(kube, f"{namespace.name}-plain")
    kube.call("POST", "/api/v1/namespaces", {"metadata": {"name": elsewhere.name}})
    namespace.label(**{"hone.dev/enabled": "true"})
    system = f"hone-labels-{uuid.uuid4().hex[:5]}"
    opt_in = {"HONE_OPT_IN__ROLE": f"{system}-hone-namespace", "HONE_OPT_IN__SERVICE_ACCOUNT": "hone"}
    images = {"trainer": {"image": {"repository": "example.org/hone/trainer", "tag": "test"}}}
    with installed(kube, apiserver, system, images) as user:
        settings = {"HONE_NAMESPACE": system, "HONE_RESYNC_SECONDS": "1", **opt_in}
        operator = start_operator(user.kubeconfig(apiserver, tmp_path / "account.kubeconfig"), settings)
        namespace.until(operator.ready, "ready")
        elsewhere.create("Job", "x", SPECS["Job"], metadata={"name": "x", "labels": {COMPONENT: "x"}})
        for value in (None, "x"):
            label(elsewhere, "Job", "x", value)
        namespace.dataset()
        namespace.create("FineTuneJob", "run", spec())
        labels = namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")["metadata"]["labels"]
        *_, waiting = namespace.start_pods("run-1", without_a_node=1)
        namespace.patch("Job", "run-1", {"metadata": {"labels": {COMPONENT: None, "hone.dev/attempt": None}}})
        namespace.until(lambda: namespace.get("Job", "run-1")["metadata"]["labels"] == labels, "labels are there again")
        label(namespace, "Pod", waiting, None)  # what becomes of it is seen by comparing lists alone

        def compared_without_a_job() -> bool:
            """What becomes of the pod is seen twice, so all kinds were compared between. A list may once be ahead of an
            event; a label that is lost or given back must not count in each comparison."""
            seen = len(operator.log())
            for status, value in ((running(), "True"), (UNSCHEDULED, "False")):
                namespace.patch("Pod", waiting, {"status": status}, "status")
                namespace.until(
                    lambda value=value: namespace.condition("FineTuneJob", "run", "Running").get("status") == value,
                    "compared",
                )
            return "of kind Job had changed without an event" not in operator.log()[seen:]

        namespace.until(compared_without_a_job, "comparisons in which no Job counts as changed")
        assert requests.get(f"http://127.0.0.1:{operator.probes}/healthz", timeout=600).text == "ok"
        log = operator.log()
        assert f"Job {namespace.name}/run-1 has lost labels, and got them back" in log
        assert "forbidden" not in log.lower()
    assert [a["outcome"] for a in namespace.get("FineTuneJob", "run")["status"]["attempts"]] == ["Running"]
