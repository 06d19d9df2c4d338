"""Flux's kustomize-controller, the real one, as a process of this machine; its sources are left to the test."""

import json
from functools import partial
from pathlib import Path

from hone_dev.cluster import binaries
from hone_dev.cluster.controlplane import ControlPlane
from hone_dev.cluster.objectstore import free_port
from hone_dev.cluster.process import Component, answers
from hone_dev.tools.shell import run

NAMESPACE = "flux-system"
_DEFINITIONS = (
    ("github.com/fluxcd/kustomize-controller@v1.9.6", "kustomize.toolkit.fluxcd.io_kustomizations.yaml"),
    ("github.com/fluxcd/source-controller@v1.9.6", "source.toolkit.fluxcd.io_buckets.yaml"),
    ("github.com/fluxcd/source-controller@v1.9.6", "source.toolkit.fluxcd.io_externalartifacts.yaml"),
    ("github.com/fluxcd/source-controller@v1.9.6", "source.toolkit.fluxcd.io_gitrepositories.yaml"),
    ("github.com/fluxcd/source-controller@v1.9.6", "source.toolkit.fluxcd.io_ocirepositories.yaml"),
)


def component(plane: ControlPlane) -> Component:
    """Kustomize-controller for this control plane, with its definitions and those of sources."""
    kubectl = (binaries.kubernetes() / "kubectl", "--kubeconfig", plane.kubeconfig)
    for module, file in _DEFINITIONS:
        download = run("go", "mod", "download", "-json", module, cwd=Path("/"), hint=binaries.GO_HINT)
        definition = Path(json.loads(download)["Dir"]) / "config" / "crd" / "bases" / file
        run(*kubectl, "apply", "--server-side", "--validate=false", "--filename", definition)
    plane.wait_for(
        "apis/kustomize.toolkit.fluxcd.io/v1/kustomizations", "apis/source.toolkit.fluxcd.io/v1/gitrepositories"
    )
    run(*kubectl, "create", "namespace", NAMESPACE)
    folder = plane.folder / "flux"
    folder.mkdir()
    metrics, health = free_port("127.0.0.1"), free_port("127.0.0.1")
    argv = (
        str(binaries.kustomize_controller()),
        f"--metrics-addr=127.0.0.1:{metrics}",
        f"--health-addr=127.0.0.1:{health}",
        "--requeue-dependency=1s",
        "--interval-jitter-percentage=0",
    )
    env = {"KUBECONFIG": str(plane.kubeconfig), "RUNTIME_NAMESPACE": NAMESPACE, "TMPDIR": str(folder)}
    return Component("kustomize-controller", argv, partial(answers, health), env=env)
