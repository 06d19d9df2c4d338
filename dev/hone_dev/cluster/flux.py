"""Flux, the real one: its controllers for sources and Kustomizations as processes of this machine."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from hone_dev.cluster import binaries
from hone_dev.cluster.argocd import GitServer, collectors
from hone_dev.cluster.controlplane import ControlPlane
from hone_dev.cluster.objectstore import free_port
from hone_dev.cluster.process import Component, answers
from hone_dev.tools.shell import run

NAMESPACE = "flux-system"
_CONTROLLERS = ("source-controller", "kustomize-controller")


@dataclass(frozen=True)
class Flux:
    """What runs Kustomizations; the Git repositories below `repositories` are served on loopback."""

    repositories: Path

    @cached_property
    def git(self) -> GitServer:
        return GitServer(self.repositories)

    def addons(self) -> list[Callable[[ControlPlane], Component]]:
        """For `control_plane`, in the order in which they need each other."""
        return [collectors, self.git.component, _source_controller, _kustomize_controller]


def _source_controller(plane: ControlPlane) -> Component:
    """With the definitions of both controllers."""
    kubectl = (binaries.kubernetes() / "kubectl", "--kubeconfig", plane.kubeconfig)
    for name in _CONTROLLERS:
        definitions = binaries.source(binaries.FLUX, f"github.com/fluxcd/{name}") / "config" / "crd" / "bases"
        run(*kubectl, "apply", "--server-side", "--validate=false", "--filename", definitions)
    plane.wait_for(
        "apis/kustomize.toolkit.fluxcd.io/v1/kustomizations", "apis/source.toolkit.fluxcd.io/v1/gitrepositories"
    )
    run(*kubectl, "create", "namespace", NAMESPACE)
    storage = plane.folder / "artifacts"
    storage.mkdir()
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    serves = (f"--storage-path={storage}", f"--storage-addr={address}", f"--storage-adv-addr={address}")
    return _controller(plane, "source-controller", *serves)


def _kustomize_controller(plane: ControlPlane) -> Component:
    return _controller(plane, "kustomize-controller", "--requeue-dependency=1s")


def _controller(plane: ControlPlane, name: str, *argv: str) -> Component:
    folder = plane.folder / name
    folder.mkdir()
    metrics, health = free_port("127.0.0.1"), free_port("127.0.0.1")
    argv = (
        str(binaries.flux_controller(name)),
        f"--metrics-addr=127.0.0.1:{metrics}",
        f"--health-addr=127.0.0.1:{health}",
        "--interval-jitter-percentage=0",
        *argv,
    )
    env = {"KUBECONFIG": str(plane.kubeconfig), "RUNTIME_NAMESPACE": NAMESPACE, "TMPDIR": str(folder)}
    return Component(name, argv, partial(answers, health), env=env)
