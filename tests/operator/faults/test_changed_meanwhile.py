"""A user changes the spec while the operator decides by the old one: the change is not lost behind our own write."""

from __future__ import annotations

import pytest
from support.cluster.hand import Namespace, fine_tune_job
from support.lives.versions import version_spec

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import ConflictError
from hone_operator.objects.cache import Cache

pytestmark = pytest.mark.apiserver


@pytest.mark.faults("O14")
async def test_a_change_of_spec_is_seen_after_our_own_write(cluster: Cluster, namespace: Namespace) -> None:
    cache = Cache()
    namespace.create("FineTuneJob", "run", fine_tune_job())
    seen = await cluster.get("FineTuneJob", namespace.name, "run")
    assert seen
    cache.put("FineTuneJob", seen)
    decided_by = cache.get("FineTuneJob", namespace.name, "run")
    assert decided_by
    namespace.patch("FineTuneJob", "run", {"spec": {"suspend": True}})
    cache.put("FineTuneJob", await cluster.apply_status("FineTuneJob", decided_by, {"phase": "Pending"}))
    now = cache.get("FineTuneJob", namespace.name, "run")
    assert now
    assert (now["spec"]["suspend"], now["status"]["phase"]) == (True, "Pending")


async def test_a_version_that_was_approved_meanwhile_is_not_deleted(cluster: Cluster, namespace: Namespace) -> None:
    namespace.create("ModelVersion", "tutor-v1", version_spec("Adapter", "pvc://hone-store/models/a", "0"))
    seen = await cluster.get("ModelVersion", namespace.name, "tutor-v1")
    assert seen
    namespace.patch("ModelVersion", "tutor-v1", {"spec": {"approval": {"state": "Approved"}}})
    with pytest.raises(ConflictError):
        await cluster.delete("ModelVersion", seen)
    live = await cluster.get("ModelVersion", namespace.name, "tutor-v1")
    assert live
    assert await cluster.delete("ModelVersion", live) is True


async def test_a_job_that_delivered_meanwhile_is_not_deleted(cluster: Cluster, namespace: Namespace) -> None:
    """Its entry was dropped while it ran, and its result says where the files are now."""
    container = {"name": "trainer", "image": "example.org/trainer"}
    template = {"spec": {"containers": [container], "restartPolicy": "Never"}}
    labels = {"hone.dev/component": "deliver"}
    for name in ("delivers", "verifies"):
        namespace.create("Job", name, {"template": template})
    namespace.patch("Job", "delivers", {"metadata": {"labels": labels}})
    for name, stays in (("delivers", True), ("verifies", False)):
        seen = await cluster.get("Job", namespace.name, name)
        assert seen
        namespace.patch("Job", name, {"status": {"active": 1}}, "status")
        if stays:
            with pytest.raises(ConflictError):
                await cluster.delete("Job", seen)
            seen = await cluster.get("Job", namespace.name, name)
            assert seen
        await cluster.delete("Job", seen)
        left = await cluster.get("Job", namespace.name, name)
        assert left is None or left["metadata"].get("deletionTimestamp")


async def test_only_what_has_gone_counts_as_deleted(cluster: Cluster, namespace: Namespace) -> None:
    """What the cache forgets as deleted never comes back, so it must not be an object that lives."""
    try:
        for name, meta in (("plain", {}), ("held", {"finalizers": ["example.org/held"]})):
            namespace.create("Dataset", name, {"source": {"uri": "hf://a/b"}})
            namespace.patch("Dataset", name, {"metadata": meta})
        plain, held = [await cluster.get("Dataset", namespace.name, name) for name in ("plain", "held")]
        assert plain
        assert held
        earlier = {**plain, "metadata": {**plain["metadata"], "uid": "another"}}
        assert await cluster.delete("Dataset", earlier) is False
        assert await cluster.get("Dataset", namespace.name, "plain")
        assert await cluster.delete("Dataset", plain) is True
        assert await cluster.delete("Dataset", plain) is True, "it had gone"
        assert await cluster.delete("Dataset", held) is False
        assert await cluster.get("Dataset", namespace.name, "held")
    finally:
        namespace.patch("Dataset", "held", {"metadata": {"finalizers": None}})
