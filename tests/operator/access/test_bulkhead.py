"""Children of another namespace, and children with one wrong part in their reference, change nothing."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from support.cluster.platforms import platform_with

from hone_operator.controllers import Controllers
from hone_operator.desired.core.names import OWNER_LABEL
from hone_operator.objects.cache import API_VERSIONS, Cache, controls
from hone_operator.progress.auth import Caller
from hone_operator.progress.binding import Chain, ReportRefusedError, attempt_of
from hone_operator.queueing.routing import Key, keys_concerned

pytestmark = pytest.mark.pure
OWNERS = ("FineTuneJob", "Dataset", "ModelVersion", "Model", "ConfigMap", "Job")
PARTS = ("namespace", "apiVersion", "kind", "name", "uid", "controller")
attack = pytest.mark.attack("children of another namespace")


def parent(kind: str) -> dict[str, Any]:
    meta = {"namespace": "team", "name": "run", "uid": f"uid-{kind}", "resourceVersion": "1", "generation": 1}
    return {"kind": kind, "metadata": meta, "spec": {}, "status": {}}


def child_of(owner: dict[str, Any], wrong: str = "") -> dict[str, Any]:
    """An object that `owner` controls, with one part of the reference wrong."""
    kind, meta = owner["kind"], owner["metadata"]
    reference = {"apiVersion": API_VERSIONS[kind], "kind": kind, "name": meta["name"], "uid": meta["uid"]}
    reference |= {"controller": True}
    other = {"apiVersion": "other.dev/v1", "kind": "Other", "name": "other", "uid": "other", "controller": False}
    if wrong in other:
        reference[wrong] = other[wrong]
    namespace = "tenant-b" if wrong == "namespace" else "team"
    made = {"namespace": namespace, "name": "child", "uid": "uid-child", "resourceVersion": "1"}
    return {"metadata": {**made, "ownerReferences": [reference]}, "spec": {}, "status": {}}


@pytest.mark.parametrize("child", ["Job", "Pod"])
@pytest.mark.parametrize("kind", OWNERS)
def test_a_child_is_found_by_its_owner(kind: str, child: str) -> None:
    cache, owner = Cache(), parent(kind)
    cache.put(child, child_of(owner))
    assert [c["metadata"]["name"] for c in cache.children(owner, child)] == ["child"]
    assert controls(owner, child_of(owner))


@attack
@pytest.mark.parametrize("wrong", PARTS)
@pytest.mark.parametrize("kind", OWNERS)
def test_a_child_with_a_wrong_part_is_nobodys(kind: str, wrong: str) -> None:
    cache, owner = Cache(), parent(kind)
    for child in ("Job", "Pod"):
        cache.put(child, child_of(owner, wrong))
        assert cache.children(owner, child) == []
    assert not controls(owner, child_of(owner, wrong))


@attack
@pytest.mark.parametrize("wrong", PARTS)
@pytest.mark.parametrize("kind", sorted(OWNER_LABEL))
def test_it_wakes_nobody(kind: str, wrong: str) -> None:
    """A namespace of its own is woken at most: the owner's name may be that of another object there."""
    cache, owner = Cache(), parent(kind)
    cache.put(kind, owner)
    job = child_of(owner, wrong)
    cache.put("Job", job)
    assert Key(kind, "team", "run") not in keys_concerned("Job", job, cache)


@attack
@pytest.mark.parametrize("wrong", PARTS)
def test_a_pod_that_its_job_does_not_control_wakes_nobody(wrong: str) -> None:
    cache, owner = Cache(), parent("FineTuneJob")
    job = child_of(owner)
    cache.put("FineTuneJob", owner)
    cache.put("Job", job)
    pod = child_of({"kind": "Job", **job}, wrong)
    pod["metadata"]["name"] = "pod"
    cache.put("Pod", pod)
    assert keys_concerned("Pod", pod, cache) == []


@dataclass
class NoCluster:
    """An API server that has nothing and takes nothing: what is written is remembered."""

    written: list[Any] = field(default_factory=list)

    async def get(self, *_: Any) -> None:
        return None

    async def list(self, *_: Any, **__: Any) -> list[Any]:
        return []

    async def create(self, body: Any, brief: bool = False) -> Any:
        return {**body, "metadata": {**body["metadata"], "uid": "made", "resourceVersion": "9"}}

    async def apply_status(self, kind: str, owner: Any, status: Any) -> Any:
        self.written.append(status)
        return {**owner, "status": status}

    async def delete(self, kind: str, body: Any) -> None:
        self.written.append((kind, body["metadata"]["name"]))


SPECS = {
    "FineTuneJob": {"model": {"uri": "pvc://models/x"}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}},
    "Dataset": {"source": {"uri": "pvc://data/rows.jsonl"}, "suspend": True},
    "ModelVersion": {
        "modelName": "m",
        "version": 1,
        "artifacts": [{"format": "Adapter", "uri": "pvc://a/b", "digest": "sha256:" + "0" * 64, "sizeBytes": 1}],
        "lineage": {
            "baseModel": {"uri": "hf://a/b"},
            "datasets": [{"name": "rows", "split": "train", "digest": "sha256:" + "0" * 64}],
            "job": {"name": "run", "uid": "x"},
            "method": "SFT",
            "hyperParameters": {},
            "seed": 1,
        },
    },
}
COMPONENTS = {"FineTuneJob": "training", "Dataset": "materialize", "ModelVersion": "verify"}


async def decided(kind: str, wrong: str | None) -> list[Any]:
    """What is written about an object next to a Complete Job that claims to be its child."""
    cache, cluster = Cache(), NoCluster()
    owner = {**parent(kind), "apiVersion": API_VERSIONS[kind], "spec": copy.deepcopy(SPECS[kind])}
    cache.put(kind, owner)
    if wrong is not None:
        job = child_of(owner, wrong)
        job["metadata"]["labels"] = {"hone.dev/component": COMPONENTS[kind], "hone.dev/attempt": "1"}
        ended = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        job |= {"spec": {"completions": 0}, "status": {"conditions": [ended]}}
        cache.put("Job", job)
    controllers = Controllers(
        cluster,
        cache,
        platform_with("trainer:1"),
        now=lambda: datetime(2026, 1, 2, tzinfo=UTC),
    )
    await controllers.process(Key(kind, "team", "run"))
    return cluster.written


@attack
@pytest.mark.parametrize("wrong", PARTS)
@pytest.mark.parametrize("kind", sorted(SPECS))
async def test_a_job_that_claims_to_be_a_child_changes_no_decision(kind: str, wrong: str) -> None:
    assert await decided(kind, wrong) == await decided(kind, None)


@attack
@pytest.mark.parametrize("link", ["pod", "job"])
@pytest.mark.parametrize("wrong", PARTS)
def test_a_pod_reports_for_no_other_job(wrong: str, link: str) -> None:
    job = parent("FineTuneJob")
    batch = {"kind": "Job", **child_of(job, wrong if link == "job" else "")}
    pod = child_of(batch, wrong if link == "pod" else "")
    pod["metadata"]["labels"] = {"hone.dev/attempt": "1", "hone.dev/finetunejob": "run"}
    with pytest.raises(ReportRefusedError):
        attempt_of(caller(), Chain(job, batch, pod))


def test_its_own_pod_reports() -> None:
    job = parent("FineTuneJob")
    batch = {"kind": "Job", **child_of(job)}
    pod = child_of(batch)
    pod["metadata"]["labels"] = {"hone.dev/attempt": "1", "hone.dev/finetunejob": "run"}
    assert attempt_of(caller(), Chain(job, batch, pod)) == 1


def caller() -> Caller:
    return Caller("team", "child", "uid-child")
