"""Argo CD, the real one: its controllers as processes of this machine, with a Redis and a Git server."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from hone_dev.cluster import binaries
from hone_dev.cluster.controlplane import ControlPlane
from hone_dev.cluster.objectstore import free_port
from hone_dev.cluster.process import Component, answers
from hone_dev.tools.shell import run
from hone_dev.tools.tools import helm

NAMESPACE = "argocd"
MODULE = "github.com/argoproj/argo-cd/v3"
_LABELS = {"app.kubernetes.io/part-of": NAMESPACE}


@dataclass(frozen=True)
class GitServer:
    """The Git repositories below `repositories`, served on loopback."""

    repositories: Path

    @cached_property
    def _port(self) -> int:
        return free_port("127.0.0.1")

    def url(self, repository: str) -> str:
        return f"http://127.0.0.1:{self._port}/{repository}"

    def component(self, _: ControlPlane) -> Component:
        argv = ("-address", f"127.0.0.1:{self._port}", "-root", str(self.repositories))
        return _component("git-server", self._port, *argv)


@dataclass(frozen=True)
class ArgoCD:
    """What runs Applications; the Git repositories below `repositories` are served on loopback."""

    repositories: Path

    @cached_property
    def git(self) -> GitServer:
        return GitServer(self.repositories)

    @cached_property
    def _ports(self) -> dict[str, int]:
        names = ("redis", "repo", "repo-metrics", "metrics", "sets-metrics", "sets-probe", "sets-webhook")
        return {name: free_port("127.0.0.1") for name in names}

    def addons(self) -> list[Callable[[ControlPlane], Component]]:
        """For `control_plane`, in the order in which they need each other."""
        return [collectors, self.git.component, self._redis, self._repo_server, self._controller, self._sets]

    def _at(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"

    def _redis(self, _: ControlPlane) -> Component:
        return _component("redis", self._ports["redis"], "-address", self._at("redis"))

    def _repo_server(self, plane: ControlPlane) -> Component:
        folder = plane.folder / "argocd"
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        argv = [
            *("--address=127.0.0.1", f"--port={self._ports['repo']}", "--disable-tls"),
            *("--metrics-address=127.0.0.1", f"--metrics-port={self._ports['repo-metrics']}"),
            *(f"--redis={self._at('redis')}", "--loglevel=warn"),
        ]
        env = {
            "PATH": f"{binaries.argo_cd()}:{helm().parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "ARGOCD_ASK_PASS_SOCK": str(folder / "ask.sock"),
            "ARGOCD_GPG_ENABLED": "false",
        }
        return _component("argocd-repo-server", self._ports["repo"], *argv, env=env)

    def _controller(self, plane: ControlPlane) -> Component:
        _apply(plane)
        argv = ["-kubeconfig", str(plane.kubeconfig), "-namespace", NAMESPACE, "-repo-server", self._at("repo")]
        argv += ["-redis", self._at("redis"), "-metrics-address", self._at("metrics")]
        # The cluster that Applications name kubernetes.default.svc is that of the kubeconfig.
        env = {"ARGOCD_FAKE_IN_CLUSTER": "true", "KUBECONFIG": str(plane.kubeconfig)}
        return _component("argocd-application-controller", self._ports["metrics"], *argv, env=env)

    def _sets(self, plane: ControlPlane) -> Component:
        addresses = {"metrics-addr": "sets-metrics", "probe-addr": "sets-probe", "webhook-addr": "sets-webhook"}
        argv = [f"--{flag}={self._at(name)}" for flag, name in addresses.items()]
        argv += [f"--argocd-repo-server={self._at('repo')}", "--repo-server-plaintext", f"--namespace={NAMESPACE}"]
        argv += [f"--kubeconfig={plane.kubeconfig}", "--loglevel=warn"]
        env = {"ARGOCD_FAKE_IN_CLUSTER": "true", "KUBECONFIG": str(plane.kubeconfig)}
        return _component("argocd-applicationset-controller", self._ports["sets-probe"], *argv, env=env)


def collectors(plane: ControlPlane) -> Component:
    """Of kube-controller-manager only what finishes deletions. Jobs, pods and claims are left to the test."""
    whole = plane.controller_manager()
    argv = [word for word in whole.argv if not word.startswith("--controllers=")]
    argv.append("--controllers=garbage-collector-controller,namespace-controller")
    return Component(whole.name, tuple(argv), whole.ready)


def _component(name: str, port: int, *argv: str, env: dict[str, str] | None = None) -> Component:
    return Component(name, (str(binaries.argo_cd() / name), *argv), lambda: answers(port), env=env or {})


def _apply(plane: ControlPlane) -> None:
    """The definitions and settings of Argo CD, and a project that permits everything."""
    manifests = binaries.source(binaries.ARGO_CD, MODULE) / "manifests" / "crds"
    kubectl = (binaries.kubernetes() / "kubectl", "--kubeconfig", plane.kubeconfig)
    apply = (*kubectl, "apply", "--server-side", "--validate=false", "--filename=-")
    definitions = [yaml.safe_load(file.read_text()) for file in sorted(manifests.glob("*-crd.yaml"))]
    run(*apply, stdin=_list([*definitions, _object("v1", "Namespace", NAMESPACE)]))
    group = "apis/argoproj.io/v1alpha1"
    plane.wait_for(*(f"{group}/{kind}" for kind in ("applications", "applicationsets", "appprojects")))
    everything = {"group": "*", "kind": "*"}
    project = {
        "sourceRepos": ["*"],
        "destinations": [{"namespace": "*", "server": "*"}],
        "clusterResourceWhitelist": [everything],
    }
    settings = [
        _object("v1", "ConfigMap", "argocd-cm", data={}),
        _object("v1", "ConfigMap", "argocd-rbac-cm", data={}),
        _object("v1", "Secret", "argocd-secret", stringData={"server.secretkey": "not a secret"}),
    ]
    run(*apply, stdin=_list(settings))
    # By its path: what kubectl knows of kinds is older than this one.
    body = json.dumps(_object("argoproj.io/v1alpha1", "AppProject", "default", spec=project))
    run(*kubectl, "create", f"--raw=/{group}/namespaces/{NAMESPACE}/appprojects", "--filename=-", stdin=body)


def _object(version: str, kind: str, name: str, **fields: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if kind != "Namespace":
        metadata |= {"namespace": NAMESPACE, "labels": _LABELS}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def _list(objects: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
