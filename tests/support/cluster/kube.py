"""Raw access to an API server, for the tests."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import yaml
from support.cluster import quick_yaml

ROOT = Path(__file__).resolve().parents[3]
HONE = "/apis/hone.dev/v1alpha1"
GUARD_SECONDS = 600.0
"""A hang guard, not a limit: everything here takes seconds, but an operator that shares its cores with twenty other
processes took more than a minute to start."""
PLURAL = {
    "FineTuneJob": (HONE, "finetunejobs"),
    "Dataset": (HONE, "datasets"),
    "ModelVersion": (HONE, "modelversions"),
    "Model": (HONE, "models"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Pod": ("/api/v1", "pods"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Service": ("/api/v1", "services"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Event": ("/api/v1", "events"),
}


def session(kubeconfig: Path, folder: Path) -> tuple[str, requests.Session]:
    """(address of the API server, a session as its administrator, whose certificates are kept in the folder)."""
    document = yaml.safe_load(kubeconfig.read_text())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    for name, text in (
        ("ca.crt", cluster["certificate-authority-data"]),
        ("tls.crt", user["client-certificate-data"]),
        ("tls.key", user["client-key-data"]),
    ):
        (folder / name).write_bytes(base64.b64decode(text))
    administrator = requests.Session()
    administrator.trust_env = False
    administrator.verify = str(folder / "ca.crt")
    administrator.cert = (str(folder / "tls.crt"), str(folder / "tls.key"))
    return cluster["server"], administrator


class NotFoundError(RuntimeError):
    """404."""


class Kube:
    """Raw access to the API server as its administrator."""

    def __init__(self, kubeconfig: Path, folder: Path):
        self.folder = folder
        self.server, self._session = session(kubeconfig, folder)

    def call(self, verb: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        answer = self._session.request(
            verb,
            self.server + path,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type},
            timeout=GUARD_SECONDS,
        )
        if answer.status_code >= 400:
            kind = NotFoundError if answer.status_code == 404 else RuntimeError
            raise kind(f"{verb} {path}: {answer.status_code} {answer.text[:800]}")
        return answer.json()

    def impersonate(
        self,
        user: str,
        verb: str,
        path: str,
        body: Any,
        groups: str = "system:masters",
        content_type: str = "application/json",
    ) -> tuple[int, str]:
        """(code, message) of a write as `user`, whom the group gives every right: only admission can refuse it."""
        headers = {"Content-Type": content_type, "Impersonate-User": user, "Impersonate-Group": groups}
        answer = self._session.request(
            verb, self.server + path, data=json.dumps(body), headers=headers, timeout=GUARD_SECONDS
        )
        return answer.status_code, str(answer.json().get("message", "")) if answer.status_code >= 400 else ""


def connect(kubeconfig: Path, folder: Path) -> Kube:
    """The API server, once it serves our definitions."""
    kube = Kube(kubeconfig, folder)
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for file in sorted((ROOT / "crds").glob("*.yaml")):
        body = quick_yaml.document(file.read_text())
        # Applied, not created: the chart's tests install the same definitions, and keep them.
        target = f"{crds}/{body['metadata']['name']}?fieldManager=tests&force=true"
        kube.call("PATCH", target, body, "application/apply-patch+yaml")
    plurals = ("finetunejobs", "datasets", "modelversions", "models")
    wait_until(lambda: [kube.call("GET", f"{HONE}/{p}") for p in plurals], "our definitions")
    return kube


def path(kind: str, namespace: str, name: str = "", sub: str = "") -> str:
    prefix, plural = PLURAL[kind]
    return "/".join(p for p in (f"{prefix}/namespaces/{namespace}/{plural}", name, sub) if p)


def wait_until(check: Callable[[], Any], what: str) -> Any:
    """The first true value of `check`, which is asked less often the longer it takes.

    A check may read what is not written yet: a KeyError is "not yet".
    """
    end, pause = time.monotonic() + GUARD_SECONDS, 0.05
    error: Exception | None = None
    while time.monotonic() < end:
        try:
            if value := check():
                return value
        except (RuntimeError, KeyError) as not_yet:
            error = not_yet
        time.sleep(pause)
        pause = min(1.3 * pause, 0.5)
    raise AssertionError(f"did not come about: {what}") from error
