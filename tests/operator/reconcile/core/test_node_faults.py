"""Conditions of nodes that explain why pods failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hone_operator.reconcile.core.failures import root_cause
from hone_operator.reconcile.core.node_faults import MAX_AVOIDED, nodes_to_avoid, troubles_of

pytestmark = pytest.mark.pure
XID = "[79] GPU has fallen off the bus - RecommendedAction: RESTART_BM"


def node(*conditions: tuple[str, str], cordoned: bool = False) -> dict:
    listed = [{"type": kind, "status": status, "message": XID} for kind, status in conditions]
    spec = {"unschedulable": True} if cordoned else {}
    return {"metadata": {"name": "gpu-7"}, "spec": spec, "status": {"conditions": listed}}


HEALTHY = (
    ("Ready", "True"),
    ("MemoryPressure", "False"),
    ("PIDPressure", "False"),
    ("AcceleratedHardwareReady", "True"),
)


@pytest.mark.parametrize(
    ("kind", "status", "faulty"),
    [
        ("GpuMemWatch", "True", True),
        ("GpuNvlinkWatch", "True", True),
        ("GpuPcieWatch", "True", True),
        ("GpuThermalWatch", "True", True),
        ("SysLogsXIDError", "True", True),
        ("SysLogsSXIDError", "True", True),
        ("SysLogsGPUFallenOff", "True", True),
        ("DCGMError", "True", True),
        ("CSPMaintenance", "True", True),
        ("KernelDeadlock", "True", True),
        ("ReadonlyFilesystem", "True", True),
        ("AcceleratedHardwareReady", "False", True),
        ("Ready", "Unknown", True),
        ("Ready", "False", True),
        ("SysLogsXIDError", "False", False),
        ("SysLogsXIDError", "Unknown", False),
        ("KernelReady", "Unknown", False),
        ("DiskPressure", "True", False),
        ("example.org/Painted", "True", False),
    ],
)
def test_a_condition_is_a_fault_or_not(kind, status, faulty):
    others = [c for c in HEALTHY if c[0] != kind]
    troubles = troubles_of(node(*others, (kind, status)))
    assert [t.node for t in troubles] == ["gpu-7"] * faulty
    if faulty:
        assert troubles[0].sentence == f"Node gpu-7 has {kind}={status}: {XID}."


def test_a_cordon_is_in_the_message_and_is_no_fault():
    (trouble,) = troubles_of(node(*HEALTHY, cordoned=True))
    assert trouble == ("gpu-7", "Node gpu-7 is cordoned.", False)


@pytest.mark.parametrize("field", ["metadata", "metadata spec", "metadata status"])
def test_a_node_without_conditions_has_no_fault(field):
    body = node(*HEALTHY)
    assert troubles_of({name: body[name] if name == "metadata" else None for name in field.split()}) == []


def test_the_newest_faults_are_avoided():
    faulty = [[f"gpu-{number}"] for number in range(MAX_AVOIDED + 4)]
    assert nodes_to_avoid([*faulty, [], ["gpu-2"]]) == ["gpu-2", *(f"gpu-{number}" for number in range(19, 4, -1))]


@pytest.fixture
def failed(world):
    def make(pod, *conditions, cordoned=False, on="gpu-7"):
        pod.setdefault("spec", {})["nodeName"] = on
        body = {"kind": "Job", "metadata": {"name": "run-1", "namespace": "team"}, "spec": {}}
        job = world.ended(world.child(body, pod), "Failed")
        return replace(job, node_troubles=tuple(troubles_of(node(*conditions, cordoned=cordoned))))

    return make


@pytest.mark.parametrize("code", ["TrainerError", "RankFailed", "Hung", "RanksDiffer"])
def test_a_fault_explains_what_has_no_other_cause(world, failed, code):
    pod = world.dead(1, outcome=world.failure(code, "Rank 0 lost contact."))
    cause = root_cause(failed(pod, ("SysLogsXIDError", "True")))
    assert (cause.code, cause.faulty_nodes) == ("NodeFault", ("gpu-7",))
    assert cause.message == f"Rank 0 lost contact. Node gpu-7 has SysLogsXIDError=True: {XID}."
    assert "avoid the node" in cause.advice


def test_an_error_of_a_pod_on_another_node_is_not_explained(world, failed):
    pod = world.dead(1, outcome=world.failure("TrainerError", "KeyError: 'loss'"))
    cause = root_cause(failed(pod, ("CSPMaintenance", "True"), on="gpu-1"))
    assert (cause.code, cause.message, cause.faulty_nodes) == ("TrainerError", "KeyError: 'loss'", ())


@pytest.mark.parametrize("code", ["OutOfMemory", "DiskFull", "InvalidConfiguration", "Diverged"])
def test_a_fault_does_not_hide_what_the_user_must_do(world, failed, code):
    pod = world.dead(1, outcome=world.failure(code, "As it is."))
    cause = root_cause(failed(pod, ("SysLogsXIDError", "True")))
    assert (cause.message, cause.faulty_nodes) == ("As it is.", ())


def test_a_disruption_names_the_fault_for_which_the_node_was_drained(world, failed):
    pod = world.dead(137)
    pod["status"]["conditions"] = [
        {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicted"}
    ]
    cause = root_cause(failed(pod, ("GpuMemWatch", "True")))
    assert (cause.code, cause.faulty_nodes) == ("Disrupted", ("gpu-7",))
    assert "GpuMemWatch" in cause.message


def test_a_cordoned_node_is_named_and_not_avoided(world, failed):
    cause = root_cause(failed(world.dead(137), cordoned=True))
    assert (cause.code, cause.faulty_nodes) == ("RankFailed", ())
    assert cause.message.endswith("Node gpu-7 is cordoned.")
