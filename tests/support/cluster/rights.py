"""The operator's service account with the rights and bounds that the chart gives it, on a real API server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from support.cluster import quick_yaml
from support.cluster.chart_documents import IMAGES
from support.cluster.kube import GUARD_SECONDS, Kube, wait_until

from hone_dev.tools import paths, tools

KINDS = (
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Secret",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
PROBE = "hone-probe"


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    code: int
    message: str
    body: Any


@dataclass(frozen=True)
class Account:
    """A user of the API server that has a token."""

    kube: Kube
    token: str

    def call(self, verb: str, path: str, body: Any = None, content_type: str = "application/json") -> Answer:
        response = requests.request(
            verb,
            self.kube.server + path,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type, "Authorization": f"Bearer {self.token}"},
            verify=str(self.kube.folder / "ca.crt"),
            timeout=GUARD_SECONDS,
        )
        answer = response.json()
        return Answer(response.status_code, str(answer.get("message", "")), answer)

    def kubeconfig(self, admin: Path, file: Path) -> Path:
        """`file` as a kubeconfig of this user, else like the administrator's."""
        config = yaml.safe_load(admin.read_text())
        config["users"] = [{"name": config["users"][0]["name"], "user": {"token": self.token}}]
        file.write_text(yaml.safe_dump(config))
        return file


def render(system: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """The chart's objects that give and bound rights, installed in namespace `system`."""
    command = [tools.helm(), "template", "hone", paths.SOURCE / "charts" / "hone", "--namespace", system]
    document = json.dumps({"crds": {"enabled": False}, **values})
    done = subprocess.run([*command, *IMAGES, "--values", "-"], input=document, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    objects = [d for d in quick_yaml.documents(done.stdout) if d["kind"] in KINDS]
    return [d for d in objects if "helm.sh/hook" not in d["metadata"].get("annotations", {})]


@contextmanager
def installed(kube: Kube, admin: Path, system: str, values: dict[str, Any]) -> Iterator[Account]:
    """Apply these objects; the account of the operator. They are removed at the end."""
    objects = render(system, values)
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": system}}
    kubectl = [tools.kubectl(), "--kubeconfig", admin]

    def run(*argv: str, items: list[dict[str, Any]]) -> bool:
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        return subprocess.run([*kubectl, *argv, "--filename=-"], input=manifest, text=True).returncode == 0

    objects += marker(system)
    # To validate fields, kubectl reads the schemas of all kinds, and gives up after 32 s on a busy machine. Of what is
    # applied server-side, the API server refuses fields that it does not know by itself.
    assert run("apply", "--server-side", "--force-conflicts", "--validate=false", items=[space, *objects])
    account = Account(kube, token(kube, system, "hone"))
    wait_until(lambda: in_force(kube, system), "the admission policies are in force")
    try:
        yield account
    finally:
        # On a busy machine, etcd may not answer in time.
        wait_until(
            lambda: run("delete", "--wait=false", "--ignore-not-found", items=objects), "the objects are deleted"
        )
        # What is still in force would bound the tests that follow.
        wait_until(lambda: not in_force(kube, system), "the admission policies are gone")


def token(kube: Kube, namespace: str, account: str) -> str:
    """A token of a service account."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    return kube.call("POST", path, {"spec": {"expirationSeconds": 3600}})["status"]["token"]


def marker(system: str) -> list[dict[str, Any]]:
    """A policy that is applied last: when it is in force, so are the others."""
    name = f"{system}-{PROBE}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    api = "admissionregistration.k8s.io/v1"
    policy = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": f"object.metadata.name != '{name}'"}],
    }
    return [
        {"apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": policy},
        {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]


def in_force(kube: Kube, system: str) -> bool:
    """Whether the API server enforces the marker: it compiles policies a moment after they were written."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{system}-{PROBE}"}}
    code, _ = kube.impersonate("probe", "POST", "/api/v1/namespaces/default/configmaps?dryRun=All", body)
    return code == 422
