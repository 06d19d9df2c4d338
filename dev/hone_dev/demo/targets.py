"""Where the demo runs: the embedded cluster unless another one is asked for by name."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone_dev.cluster import cluster, images
from hone_dev.cluster.process import Component, Supervisor
from hone_dev.models import models
from hone_dev.tools import paths, tools
from hone_dev.tools.console import HoneDevError, note, step
from hone_dev.tools.shell import run
from hone_dev.tools.side_by_side import Part

HUB_PORT = 8090
KIND_CLUSTER = "hone"


@dataclass(frozen=True)
class Target:
    """A cluster, and the values of the chart that belong to it."""

    kubeconfig: Path | None
    context: str | None
    values: dict[str, Any] = field(default_factory=dict)

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        """Run kubectl against this cluster and no other."""
        where = ("--kubeconfig", str(self.kubeconfig)) if self.kubeconfig else ()
        context = ("--context", self.context) if self.context else ()
        return run(tools.kubectl(), *where, *context, *argv, stdin=stdin)

    def helm(self, *argv: str | Path, stdin: str | None = None) -> str:
        """Run helm against this cluster and no other."""
        where = ("--kubeconfig", str(self.kubeconfig)) if self.kubeconfig else ()
        context = ("--kube-context", self.context) if self.context else ()
        return run(tools.helm(), *where, *context, *argv, stdin=stdin)

    def get(self, *argv: str) -> dict[str, Any]:
        """An object or a list of objects."""
        answer: dict[str, Any] = json.loads(self.kubectl("get", *argv, "--output=json"))
        return answer


def embedded() -> Target:
    """Real Kubernetes on this machine, with its own registry and model hub."""
    kubeconfig = cluster.up(extra=_extra())
    built = images.ensure()
    with step("model hub"):
        endpoint = _start_hub()
    return Target(kubeconfig, None, _values(built, endpoint))


def _extra() -> list[Part]:
    """What the demo needs besides the cluster, and can make without one."""
    return [
        Part("the images", images.prepare),
        Part("the base model", models.hub_root),
        Part("helm", tools.helm),
    ]


def _values(built: dict[str, str], endpoint: str | None) -> dict[str, Any]:
    """Values of charts/hone for these image references."""
    values: dict[str, Any] = {
        "image": _image(built["operator"]),
        "trainer": {"image": _image(built["trainer"])},
        "progress": {"statusIntervalSeconds": 5},
    }
    return values | ({"huggingFace": {"endpoint": endpoint}} if endpoint else {})


def _image(ref: str) -> dict[str, str]:
    """repository:tag, repository@digest or both, as the chart wants it."""
    name, _, digest = ref.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # the colon is of the registry's port
        repository, tag = name, ""
    if not (tag or digest):
        raise HoneDevError(f"the image {ref} has neither tag nor digest", f"name it in full, e.g. {ref}:1.0")
    return {"repository": repository} | ({"tag": tag} if tag else {}) | ({"digest": digest} if digest else {})


def _start_hub() -> str:
    """The hub outlives this command, as the rest of the cluster does; `cluster down` ends it."""
    root, host = models.hub_root(), cluster.ADDRESS
    url = f"http://{host}:{HUB_PORT}"
    argv = (sys.executable, "-m", "hone_dev", "hub", "--root", str(root), "--host", host, "--port", str(HUB_PORT))
    sources = tuple(sorted((paths.SOURCE / "dev" / "hone_dev" / "hub").glob("*.py")))  # a change restarts it
    component = Component("hub", argv, ready=lambda: _answers(f"{url}/healthz"), config=sources)
    supervisor = Supervisor(paths.state())
    supervisor.start(component)
    supervisor.wait(component)
    return url


def _answers(url: str) -> bool:
    import requests

    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def current() -> Target:
    """The current kubectl context, named before anything is done there. Its images must be where it can pull them."""
    view = json.loads(run(tools.kubectl(), "config", "view", "--minify", "--output=json", hint=_NO_CONTEXT))
    context = view.get("current-context") or ""
    if not context:
        raise HoneDevError("there is no current kubectl context", _NO_CONTEXT)
    note(f"using the current context: {context} ({view['clusters'][0]['cluster']['server']})")
    built = {target: os.environ.get(f"HONE_{target.upper()}_IMAGE", "") for target in images.DEFAULT}
    if not all(built.values()):
        raise HoneDevError(
            f"the nodes of {context} cannot pull images that are only on this machine",
            "push both (docker build --target operator|trainer .) to a registry of that cluster, and name them in "
            "HONE_OPERATOR_IMAGE and HONE_TRAINER_IMAGE",
        )
    return Target(None, context, _values(built, os.environ.get("HF_ENDPOINT")))


_NO_CONTEXT = "choose one with kubectl config use-context, or leave CLUSTER out to use the embedded cluster"


def kind() -> Target:
    """A kind cluster called `hone`, made if absent; images are built by docker and loaded."""
    _ensure_kind()
    built = {}
    for target in images.DEFAULT:
        tag = images.reference(target).rsplit(":", 1)[1]
        built[target] = f"hone/{target}:{tag}"
        with step(f"building {built[target]} and loading it"):
            log = paths.cache("logs") / f"docker-{target}.log"
            run("docker", "build", "--target", target, "--tag", built[target], paths.SOURCE, log=log)
            run("kind", "load", "docker-image", built[target], "--name", KIND_CLUSTER)
    values = _values(built, os.environ.get("HF_ENDPOINT"))
    # Its provisioner makes volumes of one node; the cluster is one node.
    return Target(None, f"kind-{KIND_CLUSTER}", values | {"store": {"accessMode": "ReadWriteOnce"}})


def _ensure_kind() -> None:
    for program, page in (("kind", "https://kind.sigs.k8s.io"), ("docker", "https://docs.docker.com/engine/install")):
        if not shutil.which(program):
            raise HoneDevError(
                f"{program} is not installed", f"see {page}, or leave CLUSTER out to use the embedded cluster"
            )
    run("docker", "version", hint="start the Docker daemon, or leave CLUSTER out to use the embedded cluster")
    if KIND_CLUSTER not in run("kind", "get", "clusters").split():
        with step(f"making the kind cluster {KIND_CLUSTER}"):
            run("kind", "create", "cluster", "--name", KIND_CLUSTER)


def administrator(name: str, folder: Path) -> Path:
    """A kubeconfig in this folder for tests that change a cluster which exists: its definitions and its namespaces.

    Args:
        name: `current` for the current kubectl context, or `kind`.

    Raises:
        HoneDevError: Hone is installed there, or its kubeconfig has no client certificate.
    """
    if name not in ("current", "kind"):
        raise HoneDevError(f"CLUSTER={name} is not known", "use embedded, current or kind")
    if name == "kind":
        _ensure_kind()
    context = (f"--context=kind-{KIND_CLUSTER}",) if name == "kind" else ()
    text = run(tools.kubectl(), "config", "view", "--minify", "--flatten", "--raw", *context, hint=_NO_CONTEXT)
    path = folder / "kubeconfig"
    path.touch(0o600)
    path.write_text(text)
    if "client-key-data" not in text:
        raise HoneDevError(f"the user of CLUSTER={name} has no client certificate", "use a kubeconfig that has one")
    if Target(path, None).get("deployments", "--all-namespaces", "--selector=app.kubernetes.io/name=hone")["items"]:
        raise HoneDevError(
            f"Hone is installed in the cluster of CLUSTER={name}", "tests replace its definitions: use another cluster"
        )
    return path


TARGETS: dict[str, Callable[[], Target]] = {"embedded": embedded, "current": current, "kind": kind}
