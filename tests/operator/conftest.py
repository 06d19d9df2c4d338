"""Fixtures: a real API server with our definitions, the operator as a process, a namespace played by hand."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from support.cluster.hand import Namespace, fine_tune_job, training_result
from support.cluster.kube import Kube, connect
from support.cluster.operator_process import Operator, free_ports

from hone_operator.apiserver.cluster import Cluster


@pytest.fixture(scope="session", name="free_ports")
def free_ports_fixture() -> Callable[[int], list[int]]:
    """Ports of loopback that nobody listens on now."""
    return free_ports


@pytest.fixture(scope="session")
def kube(apiserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Kube:
    """The API server with our definitions established."""
    return connect(apiserver, tmp_path_factory.mktemp("kube"))


@pytest.fixture(scope="session")
def result() -> dict[str, Any]:
    """What the trainer leaves after a run that succeeded."""
    return training_result()


@pytest.fixture(scope="session")
def spec() -> Callable[..., dict[str, Any]]:
    """Makes the spec of a FineTuneJob."""
    return fine_tune_job


@pytest.fixture
async def cluster(apiserver: Path) -> AsyncIterator[Cluster]:
    """The operator's own client of the API server."""
    configuration = Configuration()
    await config.load_kube_config(str(apiserver), client_configuration=configuration)
    client = Cluster(ApiClient(configuration))
    yield client
    await client.close()


@pytest.fixture
def namespace(kube: Kube) -> Iterator[Namespace]:
    """A fresh namespace with what every tenant has, in which a hand plays scheduler, Job controller and kubelet."""
    if "kube-root-ca.crt" in Namespace(kube, "default").names("ConfigMap"):
        pytest.skip("this cluster has a Job controller, which a hand plays here")
    name = f"t-{uuid.uuid4().hex[:8]}"
    kube.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    space = Namespace(kube, name)
    space.create("ServiceAccount", "default")
    for claim in ("hone-store", "models", "data"):
        space.claim(claim)
    yield space
    for kind in ("FineTuneJob", "Dataset", "ModelVersion", "Model", "Job", "Pod"):
        for each in space.names(kind):
            with contextlib.suppress(RuntimeError):
                space.delete(kind, each)


@pytest.fixture
def start_operator(tmp_path: Path) -> Iterator[Callable[[Path, dict[str, str]], Operator]]:
    """Starts the operator as the user of a kubeconfig, with settings from this environment."""
    started: list[Operator] = []

    def start(kubeconfig: Path, env: dict[str, str]) -> Operator:
        started.append(Operator(kubeconfig, tmp_path, env, forked=True).start())
        return started[-1]

    yield start
    for each in started:
        if each.alive():
            each.kill()


@pytest.fixture
def operator(apiserver: Path, namespace: Namespace, tmp_path: Path) -> Iterator[Operator]:
    """The operator, watching the test's namespace only."""
    env = {"HONE_WATCH_NAMESPACES": json.dumps([namespace.name])}
    operator = Operator(apiserver, tmp_path, env, forked=True).start()
    yield operator
    if operator.alive():
        operator.kill()
