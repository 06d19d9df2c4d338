"""The embedded cluster for the tests: brought up when absent, and then taken down again."""

import functools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from support.cluster.kube import Kube, path

from hone_dev.cluster import cluster as embedded
from hone_dev.cluster import images as built
from hone_dev.cluster import outside
from hone_dev.cluster.process import Supervisor
from hone_dev.demo import command, targets
from hone_dev.demo.targets import Target
from hone_dev.models import models
from hone_dev.tools import paths
from hone_dev.tools.console import HoneDevError
from hone_dev.tools.shell import locked, run
from hone_dev.tools.side_by_side import Part
from hone_dev.tools.tools import kubectl as kubectl_path

POLLED = {"ftj": "FineTuneJob", "dset": "Dataset", "mv": "ModelVersion", "job": "Job", "pod": "Pod"}
"""What tests look at every second: a start of kubectl costs a tenth of a second of processor time."""


@functools.cache
def _api(kubeconfig: Path, made: int) -> Kube:
    """The API server by itself; a cluster that was made again has other keys."""
    return Kube(kubeconfig, Path(tempfile.mkdtemp(prefix="hone-e2e-")))


@dataclass(frozen=True)
class Kubectl:
    """kubectl against one cluster, in one namespace where one is given."""

    kubeconfig: Path
    namespace: str = ""

    def __call__(self, *argv: str, stdin: str | None = None) -> str:
        """Run it and return what it printed. Raises HoneDevError with its last words."""
        where = ("--namespace", self.namespace) if self.namespace else ()
        return run(kubectl_path(), "--kubeconfig", self.kubeconfig, *where, *argv, stdin=stdin)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply the objects."""
        self("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, *argv: str) -> dict[str, Any]:
        """Return an object or a list of objects. Raises HoneDevError."""
        if self.namespace and len(argv) == 2 and argv[0] in POLLED and not argv[1].startswith("-"):
            try:
                api = _api(self.kubeconfig, self.kubeconfig.stat().st_mtime_ns)
                body = api.call("GET", path(POLLED[argv[0]], self.namespace, argv[1]))
            except (RuntimeError, requests.RequestException, OSError) as error:
                raise HoneDevError(str(error)) from error
            body["metadata"].pop("managedFields", None)  # as kubectl
            return body
        return json.loads(self("get", *argv, "--output=json"))

    def refusal(self, *objects: dict[str, Any]) -> str:
        """Return why the API server refuses the objects; fails the test when it takes them."""
        with pytest.raises(HoneDevError) as caught:
            self.apply(*objects)
        return str(caught.value)


@contextmanager
def _one_worker_at_a_time() -> Iterator[None]:
    with locked(paths.cache("locks") / "e2e.lock"):
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """The kubeconfig of the embedded cluster. No pod may look for anything outside of it.

    If tests brought it up, the last tests, which run in one process, take it down, unless HONE_KEEP_CLUSTER=1.
    """
    by_tests = paths.state() / "brought-up-by-tests"
    with _one_worker_at_a_time():
        was_up = embedded.is_up()
        kubeconfig = embedded.up(extra=[Part("the images", built.prepare)])
        if not was_up:
            by_tests.touch()
        outside.watch()
        since = outside.log_size()
    take_down = by_tests.exists() and "PYTEST_XDIST_WORKER" not in os.environ
    yield kubeconfig
    asked = outside.asked(since)
    if take_down and os.environ.get("HONE_KEEP_CLUSTER") != "1":
        embedded.down()
    assert asked == [], "pods looked for this outside of the cluster, and a closed network has none of it"


@pytest.fixture(scope="session")
def images(cluster: Path) -> dict[str, str]:
    """The references of both images of the present sources, by target."""
    with _one_worker_at_a_time():
        return built.ensure()


@pytest.fixture(scope="session")
def operator_image(cluster: Path) -> str:
    """The operator's image alone: small, and it holds a Python and a shell."""
    with _one_worker_at_a_time():
        return built.ensure("operator")["operator"]


@pytest.fixture(scope="session")
def hone(cluster: Path) -> Target:
    """The chart of the present sources, installed as the demo does it, with the model hub outside the cluster."""
    with _one_worker_at_a_time():
        target = targets.embedded()
        # So small that a Dataset in a ConfigMap can be large, and three of them want three pods.
        small = {"fromSize": "400Ki", "cpu": "500m", "memory": "2Gi", "pods": 3, "podSize": "900Ki"}
        target.values["encoding"] = small
        command.install(target)
    return target


NewNamespace = Callable[[str], AbstractContextManager[Kubectl]]


@pytest.fixture(scope="session")
def new_namespace(cluster: Path) -> Iterator[NewNamespace]:
    """Makes namespaces that enforce the restricted Pod Security Standard, and deletes them at the end.

    No test waits until its pods have gone; after the last test, all namespaces must be gone.
    """
    everywhere = Kubectl(cluster)
    deleted: list[str] = []

    @contextmanager
    def make(title: str) -> Iterator[Kubectl]:
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        name = f"e2e-{stem[:40].strip('-')}-{os.urandom(3).hex()}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "hone.dev/enabled": "true"}
        everywhere.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        try:
            yield Kubectl(cluster, name)
        finally:  # also where a fixture that uses it fails
            everywhere("delete", "namespace", name, "--ignore-not-found", "--wait=false")
            deleted.append(f"namespace/{name}")

    yield make
    if deleted:
        assert Supervisor(paths.state()).pid("kubelet"), "no kubelet runs: nothing can go any more"
        everywhere("wait", "--for=delete", *deleted, "--timeout=600s")


@pytest.fixture
def kubectl(new_namespace: NewNamespace, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """kubectl in a namespace of this test's own."""
    with new_namespace(request.node.name.removeprefix("test_")) as made:
        yield made


@pytest.fixture(scope="session")
def tiny(hone: Target) -> Iterator[str]:
    """A tiny random model in the hub."""
    name = f"tiny-{os.urandom(3).hex()}"  # another worker may also have one
    folder = models.hub_root() / "models" / "hone-tests" / name
    models.tiny(folder / "main")
    yield f"hf://hone-tests/{name}"
    shutil.rmtree(folder)
