"""What Kyverno's policies of Pod Security say of pods, by the API server: they are written in its own language, CEL."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from hone_dev.cluster import binaries
from hone_dev.cluster.controlplane import control_plane
from hone_dev.tools import tools
from hone_dev.tools.console import HoneDevError
from hone_dev.tools.shell import run

_MODULE = "github.com/kyverno/kyverno@v1.19.1"
_VALUES = ("podSecurityStandard=restricted", "includeOtherPolicies={require-non-root-groups}")
_LAST = "disallow-privileged-containers"
_WARNING = re.compile(r"ValidatingAdmissionPolicy '([\w-]+)' with binding '[\w-]+': pod-(\d+)$", re.M)
_ELSEWHERE = {"serviceAccount", "serviceAccountName", "priorityClassName"}
"""Fields that name objects which the server does not have; no policy reads them."""


def violations(manifest: Path) -> Iterator[tuple[str, str]]:
    """Policy and object, for each pod of a Deployment or a Job that a policy of the level restricted refuses.

    Raises:
        HoneDevError: the API server does not take a pod, or a policy.
    """
    owners = [each for each in yaml.safe_load_all(manifest.read_text()) if each["kind"] in ("Deployment", "Job")]
    with tempfile.TemporaryDirectory() as folder, control_plane(Path(folder)) as kubeconfig:
        kubectl = (tools.kubectl(), "--kubeconfig", kubeconfig)
        run(*kubectl, "create", "serviceaccount", "default")
        run(*kubectl, "create", "-f", "-", stdin=json.dumps(_list(_admission(policies()))))
        privileged = {"name": "one", "image": "image", "securityContext": {"privileged": True}}
        until = time.monotonic() + 60
        while not any(policy == _LAST for policy, _ in _warnings(kubectl, [{"spec": {"containers": [privileged]}}])):
            if time.monotonic() > until:
                raise HoneDevError(f"the policy {_LAST} is not in force after a minute")
            time.sleep(0.5)
        for policy, number in _warnings(kubectl, [each["spec"]["template"] for each in owners]):
            yield policy, f"{owners[number]['kind']}/{owners[number]['metadata']['name']}"


def policies() -> list[dict[str, Any]]:
    """Those of the chart that Kyverno publishes in its Go module."""
    module = json.loads(run("go", "mod", "download", "-json", _MODULE, hint=binaries.GO_HINT))["Dir"]
    chart = Path(module, "charts", "kyverno-policies")
    rendered = run(tools.helm(), "template", "policies", chart, *(f"--set={each}" for each in _VALUES))
    return [each for each in yaml.safe_load_all(rendered) if each]


def _admission(read: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same as policies of Kubernetes, which warn of the pod by its name; what is bound last is in force last."""
    api = "admissionregistration.k8s.io/v1"
    made, bound = [], []
    for each in sorted(read, key=lambda each: each["metadata"]["name"] == _LAST):
        metadata = {"name": each["metadata"]["name"]}
        spec = {key: value for key, value in each["spec"].items() if key != "validationActions"}
        spec["validations"] = [
            {**one, "messageExpression": "string(object.metadata.name)"} for one in spec["validations"]
        ]
        made.append({"apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": metadata, "spec": spec})
        binding = {"policyName": metadata["name"], "validationActions": ["Warn"]}
        kind = "ValidatingAdmissionPolicyBinding"
        bound.append({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": binding})
    return made + bound


def _warnings(kubectl: Sequence[str | Path], templates: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """Policy and place of the template that it refuses. The server keeps no pod."""
    pods = []
    for number, each in enumerate(templates):
        metadata = {**each.get("metadata", {}), "name": f"pod-{number}", "namespace": "default"}
        spec = {key: value for key, value in each["spec"].items() if key not in _ELSEWHERE}
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    argv = [*map(str, kubectl), "create", "--dry-run=server", "-f", "-"]
    done = subprocess.run(argv, input=json.dumps(_list(pods)), capture_output=True, text=True)
    if done.returncode:
        raise HoneDevError(f"the API server does not take a pod: {done.stderr[-600:]}")
    return [(policy, int(number)) for policy, number in _WARNING.findall(done.stderr)]


def _list(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}
