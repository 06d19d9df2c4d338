"""The chart's admission policies as the type checker of a real control plane sees them."""

import json
import subprocess

import pytest
from kube import connect, wait_until

from hone_dev import tools
from hone_dev.controlplane import control_plane

pytestmark = pytest.mark.apiserver
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"


def test_every_expression_passes_the_type_checker(render, tmp_path):
    """A field that a kind does not have would deny every request for ever, or allow it."""
    objects = [d for d in render() if d["kind"].startswith("ValidatingAdmissionPolicy")]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    with control_plane(tmp_path, controllers=True, garbage="400") as kubeconfig:
        kube = connect(kubeconfig, tmp_path)
        apply = [tools.kubectl(), "--kubeconfig", kubeconfig, "apply", "--filename=-"]
        subprocess.run(apply, input=manifest, text=True, check=True)

        def checked():
            found = kube.call("GET", POLICIES)["items"]
            return found if all((p.get("status") or {}).get("observedGeneration") for p in found) else None

        policies = wait_until(checked, "all policies were type-checked")
        assert len(policies) == len(objects) // 2
        warnings = {p["metadata"]["name"]: p["status"].get("typeChecking") for p in policies}
        assert {name: told for name, told in warnings.items() if told} == {}
