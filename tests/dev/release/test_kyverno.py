"""Kyverno's policies of Pod Security, and every pod that the operator makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster.desired_objects import CASES

from hone_dev.release import kyverno

pytestmark = [pytest.mark.pure, pytest.mark.long]
UNCONFINED = {"type": "Unconfined"}
# What a policy refuses: fields of the pod, and of its container.
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "disallow-capabilities": ({}, {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}),
    "disallow-capabilities-strict": ({}, {"capabilities": {"drop": ["NET_RAW"]}}),
    "disallow-host-namespaces": ({"hostPID": True}, {}),
    "disallow-host-path": ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, {}),
    "disallow-host-ports": ({"ports": [{"containerPort": 80, "hostPort": 80}]}, {}),
    "disallow-host-process": ({"hostNetwork": True}, {"windowsOptions": {"hostProcess": True}}),
    "disallow-privilege-escalation": ({}, {"allowPrivilegeEscalation": True}),
    "disallow-privileged-containers": ({}, {"privileged": True, "allowPrivilegeEscalation": True}),
    "disallow-proc-mount": ({"hostUsers": False}, {"procMount": "Unmasked"}),
    "disallow-selinux": ({}, {"seLinuxOptions": {"type": "spc_t"}}),
    "require-non-root-groups": ({}, {"runAsGroup": 0}),
    "require-run-as-non-root-user": ({}, {"runAsUser": 0}),
    "require-run-as-nonroot": ({}, {"runAsNonRoot": False}),
    "restrict-apparmor-profiles": ({}, {"appArmorProfile": UNCONFINED}),
    "restrict-seccomp": ({}, {"seccompProfile": UNCONFINED}),
    "restrict-seccomp-strict": ({}, {"seccompProfile": UNCONFINED}),
    "restrict-sysctls": ({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, {}),
    "restrict-volume-types": ({"volumes": [{"name": "far", "nfs": {"server": "far", "path": "/"}}]}, {}),
}


def wrong(policy: str) -> dict[str, Any]:
    """A Job that violates the policy."""
    pod, security = WRONG[policy]
    right = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "one", "image": "image", "securityContext": {**right, **security}}
    if "ports" in pod:
        container["ports"] = pod["ports"]
    spec = {**{k: v for k, v in pod.items() if k != "ports"}, "restartPolicy": "Never", "containers": [container]}
    return {"kind": "Job", "metadata": {"name": policy}, "spec": {"template": {"spec": spec}}}


def test_each_policy_refuses_what_it_should_and_no_pod_of_the_operator(tmp_path: Path) -> None:
    with_pods = [each for make in CASES.values() for each in make() if "template" in each.get("spec", {})]
    assert len(with_pods) > 20
    assert {each["kind"] for each in with_pods} == {"Job"}
    for number, job in enumerate(with_pods):
        job["metadata"] = {**job["metadata"], "name": f"{job['metadata']['name']}-{number:03}"}
    file = tmp_path / "jobs.yaml"
    file.write_text(yaml.safe_dump_all([*with_pods, *map(wrong, WRONG)]))
    found = set(kyverno.violations(file))
    assert {(policy, f"Job/{policy}") for policy in WRONG} <= found
    assert {each["metadata"]["name"] for each in kyverno.policies()} == WRONG.keys()
    assert {where for _, where in found} == {f"Job/{policy}" for policy in WRONG}, "none of the operator's"
