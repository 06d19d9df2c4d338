"""The chart's admission policies as the type checker and the controllers of a real control plane see them."""

import json
import subprocess

import pytest
from support.cluster.kube import NotFoundError, connect, wait_until

from hone_dev.cluster.controlplane import control_plane
from hone_dev.tools import tools

pytestmark = pytest.mark.apiserver
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
OPERATOR = "system:serviceaccount:default:hone"


@pytest.fixture(scope="module")
def objects(render):
    return [d for d in render() if d["kind"].startswith("ValidatingAdmissionPolicy")]


@pytest.fixture(scope="module")
def kube(objects, tmp_path_factory):
    """A control plane with the policies."""
    folder = tmp_path_factory.mktemp("policies")
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    with control_plane(folder, controllers=True, garbage="400") as kubeconfig:
        kube = connect(kubeconfig, folder)
        apply = [tools.kubectl(), "--kubeconfig", kubeconfig, "apply", "--filename=-"]
        subprocess.run(apply, input=manifest, text=True, check=True)
        yield kube


def test_every_expression_passes_the_type_checker(kube, objects):
    """A field that a kind does not have would deny every request for ever, or allow it."""

    def checked():
        found = kube.call("GET", POLICIES)["items"]
        return found if all((p.get("status") or {}).get("observedGeneration") for p in found) else None

    policies = wait_until(checked, "all policies were type-checked")
    assert len(policies) == len(objects) // 2
    warnings = {p["metadata"]["name"]: p["status"].get("typeChecking") for p in policies}
    assert {name: told for name, told in warnings.items() if told} == {}


def test_the_record_ends_with_its_namespace_and_not_before(kube):
    path, maps = "/api/v1/namespaces/ends", "/api/v1/namespaces/ends/configmaps"
    kube.call("POST", "/api/v1/namespaces", {"metadata": {"name": "ends", "labels": {"hone.dev/enabled": "true"}}})
    for name in ("hone-served", "hone-contents", "hone-model-versions"):
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        assert kube.impersonate(OPERATOR, "POST", maps, made)[0] == 201
    # The API server learns of new policies a moment after they were written.
    delete = ("somebody", "DELETE", f"{maps}/hone-served", {"dryRun": ["All"]})
    role = {"metadata": {"name": "maps"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]}
    roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/ends"
    kube.call("POST", f"{roles}/roles", role)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "maps"}
    subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody"}]
    kube.call(
        "POST", f"{roles}/rolebindings", {"metadata": {"name": "maps"}, "roleRef": reference, "subjects": subjects}
    )
    wait_until(
        lambda: "a record that only the operator of Hone writes" in kube.impersonate(*delete, groups="nobody")[1],
        "the policy is in force",
    )
    for name, policy in (("hone-served", "Orphan"), ("hone-contents", "Foreground")):  # each sets a finalizer
        kube.call("DELETE", f"{maps}/{name}?propagationPolicy={policy}")
        gone(kube, f"{maps}/{name}")
    kube.call("DELETE", path)
    gone(kube, path)


def gone(kube, path):
    """Waits until the object is gone."""

    def answered():
        try:
            kube.call("GET", path)
        except NotFoundError:
            return True
        return False

    wait_until(answered, f"{path} is gone")
