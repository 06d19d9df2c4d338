"""kube-scheduler's words, first in plain English. The messages are what FitError and the plugins of 1.34 write."""

from __future__ import annotations

from typing import Any

import pytest

from hone_operator.objects.cache import strip
from hone_operator.reconcile.core.pods import waiting
from hone_operator.reconcile.core.scheduling import MAX_RAW, Needs, explain, unbound

pytestmark = pytest.mark.pure
PREEMPTION = " preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."
DRA = " no new claims to deallocate," + PREEMPTION
NEEDS = Needs({"cpu": "500m", "memory": "3Gi", "nvidia.com/gpu": "8"}, {"pool": "a100", "zone": "b"})
REASONS = [
    ("3 Insufficient cpu", "The pod needs 500m CPU; no node has that free."),
    ("1 Insufficient cpu", "The pod needs 500m CPU; 1 of 3 nodes do not have that free."),
    ("3 Insufficient memory", "The pod needs 3Gi memory; no node has that free."),
    ("3 Insufficient nvidia.com/gpu", "The pod needs 8 GPUs (nvidia.com/gpu); no node has that free."),
    ("3 Insufficient ephemeral-storage", "The pod needs ephemeral storage; no node has that free."),
    ("3 Insufficient example.org/fpga", "The pod needs example.org/fpga; no node has that free."),
    ("3 Too many pods", "Every node: run as many pods as they may."),
    (
        "2 node(s) had untolerated taint {gpu: true}",
        "2 of 3 nodes: with taint gpu: true, which scheduling.tolerations lacks.",
    ),
    (
        "3 node(s) had untolerated taint {node.kubernetes.io/not-ready: }",
        "Every node: with taint node.kubernetes.io/not-ready, which scheduling.tolerations lacks.",
    ),
    ("3 node(s) had untolerated taint(s)", "Every node: with taints that scheduling.tolerations lacks."),
    ("1 node(s) were unschedulable", "1 of 3 nodes: cordoned: `kubectl uncordon NODE`."),
    (
        "3 node(s) didn't match Pod's node affinity/selector",
        "Every node: without the labels of scheduling.nodeSelector: pool=a100, zone=b.",
    ),
    ("3 node(s) didn't match scheduler-enforced node affinity", "Every node: excluded by the scheduler's own"),
    ("3 node(s) didn't match pod affinity rules", "Every node: without the pods that this pod must be near."),
    ("3 node(s) didn't match pod anti-affinity rules", "Every node: with pods that this pod must be away from."),
    ("3 node(s) didn't satisfy existing pods anti-affinity rules", "Every node: with pods that must be away from"),
    ("3 node(s) didn't match pod topology spread constraints", "Every node: would break the topology spread."),
    (
        "3 node(s) didn't match pod topology spread constraints (missing required label)",
        "Every node: would break the topology spread.",
    ),
    ("3 node(s) didn't have free ports for the requested pod ports", "Every node: with the pod's ports in use."),
    ("3 node(s) had volume node affinity conflict", "Every node: cannot reach a volume of the pod."),
    ("3 node(s) didn't match PersistentVolume's node affinity", "Every node: cannot reach a volume of the pod."),
    ("3 node(s) had no available volume zone", "Every node: in another zone than a volume of the pod."),
    ("3 node(s) did not have enough free storage", "Every node: with too little free storage"),
    ("3 node(s) exceed max volume count", "Every node: with as many volumes as they may have."),
    ("3 node(s) had no available disk", "Every node: with a disk of the pod in use by another pod."),
    (
        "3 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
        "A PersistentVolume of the pod was deleted",
    ),
    (
        "3 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by "
        "another pod",
        "Another pod uses a ReadWriteOncePod claim of this pod: the store needs ReadWriteMany.",
    ),
    (
        "pod has unbound immediate PersistentVolumeClaims",
        "A PersistentVolumeClaim of the pod is not bound to a volume.",
    ),
    ("3 node(s) didn't find available persistent volumes to bind", "A PersistentVolumeClaim of the pod is not bound"),
    ('persistentvolumeclaim "data" not found', "PersistentVolumeClaim data does not exist in this namespace"),
    ('persistentvolumeclaim "data" is being deleted', "PersistentVolumeClaim data is being deleted."),
    (
        'persistentvolumeclaim "data" bound to non-existent persistentvolume "pv1"',
        "PersistentVolumeClaim data is bound to PersistentVolume pv1, which does not exist.",
    ),
]


@pytest.mark.parametrize("after", ["", PREEMPTION, DRA])
@pytest.mark.parametrize(("reason", "plain"), REASONS, ids=[r for r, _ in REASONS])
def test_each_reason_is_reported_in_plain_words_before_the_raw_ones(reason: str, plain: str, after: str) -> None:
    told = explain(f"0/3 nodes are available: {reason}.{after}", NEEDS)
    assert told.startswith(plain)
    assert told.endswith(f"(kube-scheduler: 0/3 nodes are available: {reason})")


def test_several_reasons_are_reported_one_by_one() -> None:
    reasons = "1 Insufficient cpu, 1 node(s) had untolerated taint {a: b, c}, 2 Insufficient nvidia.com/gpu"
    told = explain(f"0/3 nodes are available: {reasons}.{DRA}", NEEDS)
    assert told.partition(". (")[0] == (
        "The pod needs 500m CPU; 1 of 3 nodes do not have that free; "
        "1 of 3 nodes: with taint a: b, c, which scheduling.tolerations lacks; "
        "the pod needs 8 GPUs (nvidia.com/gpu); 2 of 3 nodes do not have that free"
    )


def test_an_unknown_reason_among_known_ones_stays_as_it_is() -> None:
    told = explain("0/2 nodes are available: 1 Insufficient cpu, 1 node(s) made of cheese.", NEEDS)
    assert told.startswith("The pod needs 500m CPU; 1 of 2 nodes do not have that free; 1 of 2 nodes: node(s) made of")


@pytest.mark.parametrize(
    "words",
    [
        "",
        "no node fits",
        "0/3 nodes are available: 3 node(s) made of cheese.",
        "0/1 nodes are available: a plugin of your own says {no}.",
        "waiting for scheduling gates: [kueue.x-k8s.io/admission]",
        'running Filter plugin "x": context deadline exceeded',
        "0/0 nodes are available",
    ],
)
def test_unknown_words_pass_unchanged(words: str) -> None:
    assert explain(words, NEEDS) == words


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        (
            ["kueue.x-k8s.io/topology"],
            "the scheduling gate kueue.x-k8s.io/topology of the pod is removed. Kueue removes kueue.x-k8s.io/topology "
            "once it has chosen nodes in the topology",
        ),
        (
            ["example.org/licence"],
            "the scheduling gate example.org/licence of the pod is removed. Something else in this cluster set "
            "example.org/licence and must remove it",
        ),
        (
            ["kueue.x-k8s.io/admission", "kueue.x-k8s.io/topology", "a"],
            "the scheduling gates kueue.x-k8s.io/admission, kueue.x-k8s.io/topology, a of the pod are removed. Kueue "
            "removes kueue.x-k8s.io/topology once it has chosen nodes in the topology. Something else in this cluster "
            "set a and must remove it",
        ),
    ],
)
def test_a_pod_with_scheduling_gates_names_them(world: Any, gates: list[str], words: str) -> None:
    """The API server's own words name none: a pod with gates has this condition from its creation on."""
    pod = world.unscheduled("Scheduling is blocked due to non-empty scheduling gates")
    pod["status"]["conditions"][0]["reason"] = "SchedulingGated"
    pod["spec"] = {"schedulingGates": [{"name": name} for name in gates], "containers": [{"name": "trainer"}]}
    kept = strip("Pod", pod)
    obstacle = waiting(world.child({"metadata": {"name": "run-1"}, "spec": {}}, kept))
    assert obstacle is not None
    assert obstacle.reason == "SchedulingGated"
    assert obstacle.message == f"Pod {pod['metadata']['name']}: the scheduler waits until {words}"


def test_the_raw_words_are_shortened() -> None:
    many = ", ".join(f"1 node(s) had untolerated taint {{team-{n}: x}}" for n in range(40))
    told = explain(f"0/40 nodes are available: {many}.", NEEDS)
    assert len(told.partition("(kube-scheduler: ")[2]) <= MAX_RAW + 1


def test_a_claim_without_a_volume_is_named_with_its_class_and_the_provisioners_words() -> None:
    claim = {"metadata": {"name": "hone-store"}, "spec": {"storageClassName": "fast", "accessModes": ["ReadWriteMany"]}}
    words = unbound(claim, 'storageclass.storage.k8s.io "fast" not found')
    told = explain(
        f"0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found{PREEMPTION}",
        Needs(claims=(words,)),
    )
    assert told.startswith(
        "PersistentVolumeClaim hone-store (storage class fast, ReadWriteMany) has no volume: "
        'storageclass.storage.k8s.io "fast" not found. (kube-scheduler: '
    )
    none = unbound({"metadata": {"name": "x"}, "spec": {}}, None)
    assert "no storage class, and the cluster has no default one" in none


def test_the_cache_keeps_what_a_pod_without_a_node_asks_for() -> None:
    container = {"name": "trainer", "image": "i", "resources": {"requests": {"cpu": "500m"}}}
    spec = {"containers": [container], "nodeSelector": {"pool": "a100"}, "volumes": [{"name": "tmp", "emptyDir": {}}]}
    body = {"metadata": {"name": "p", "namespace": "n"}, "spec": spec, "status": {}}
    assert Needs.of(strip("Pod", body)) == Needs({"cpu": "500m"}, {"pool": "a100"})
    assert Needs.of(strip("Pod", {**body, "spec": {**spec, "nodeName": "a"}})) == Needs()
