"""GPUs that pods hold, from known pods and jobs."""

import pytest
from prometheus_client.registry import CollectorRegistry

from hone_operator.monitoring.objectmetrics import ObjectCollector
from hone_operator.objects.cache import Cache

pytestmark = pytest.mark.pure


def job(resources, *attempts, name="sums"):
    spec = {"model": {"uri": "hf://org/base"}, "datasets": [{"name": "rows"}], "resources": resources}
    meta = {"namespace": "ml", "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    records = [{"number": n, "jobName": f"{name}-{n}", **attempt} for n, attempt in enumerate(attempts, start=1)]
    return {"metadata": meta, "spec": spec, "status": {"phase": "Running", "attempts": records}}


def pod(rank, *, node="node-a", phase="Running", name="sums", attempt="1"):
    labels = {"hone.dev/finetunejob": name, "hone.dev/attempt": attempt}
    meta = {"namespace": "ml", "name": f"{name}-{attempt}-{rank}", "uid": f"{name}{attempt}{rank}", "labels": labels}
    return {"metadata": meta, "spec": {"nodeName": node} if node else {}, "status": {"phase": phase}}


def held(job, *pods):
    cache, registry = Cache(), CollectorRegistry()
    cache.put("FineTuneJob", job)
    for each in pods:
        cache.put("Pod", each)
    registry.register(ObjectCollector(cache))
    return registry.get_sample_value("hone_job_gpus_held", {"namespace": "ml", "finetunejob": "sums"})


@pytest.mark.parametrize(
    ("pods", "gpus"),
    [
        ([pod("0"), pod("1")], 16),
        ([pod("0"), pod("1", phase="Pending")], 16),
        ([pod("0"), pod("1", node=None, phase="Pending")], 8),
        ([pod("0", phase="Succeeded"), pod("1", phase="Failed")], None),
        ([pod("0", name="other")], None),
        ([], None),
    ],
    ids=["both train", "one starts", "one waits for a node", "both ended", "of another job", "no pods"],
)
def test_pods_with_a_node_hold_the_gpus_of_their_job(pods, gpus):
    assert held(job({"nodes": 2, "gpusPerNode": 8}, {"outcome": "Running"}), *pods) == gpus


def test_a_job_without_gpus_holds_none():
    assert held(job({"nodes": 2}, {"outcome": "Running"}), pod("0"), pod("1")) is None


@pytest.mark.attack("metrics")
def test_pods_that_somebody_labelled_add_nothing():
    forged = [pod(str(rank)) for rank in range(50)]
    assert held(job({"nodes": 2, "gpusPerNode": 8}, {"outcome": "Running"}), *forged) == 16
    assert held(job({"nodes": 2, "gpusPerNode": 8}, {"outcome": "Running", "nodes": 1}), *forged) == 8
    assert held(job({"nodes": 2, "gpusPerNode": 8}), *forged) is None
