"""A namespace that is deleted is no news: what can no longer be written in it is not logged as a warning."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import config as kube_config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from support.cluster.hand import Namespace
from support.cluster.operator_process import Operator

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import NamespaceGoneError

pytestmark = pytest.mark.apiserver


def test_the_refusals_of_a_deleted_namespace_are_known(apiserver: Path, namespace: Namespace) -> None:
    """One that is being deleted, and one that does not exist: the API server words them differently."""

    async def create(name: str) -> None:
        configuration = Configuration()
        await kube_config.load_kube_config(str(apiserver), client_configuration=configuration)
        cluster = Cluster(ApiClient(configuration))
        try:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": name}}
            await cluster.create(body)
        finally:
            await cluster.close()

    namespace.kube.call("DELETE", f"/api/v1/namespaces/{namespace.name}", {})
    for name in (namespace.name, "never-was"):
        with pytest.raises(NamespaceGoneError):
            asyncio.run(create(name))


@pytest.mark.faults("O13")
def test_it_is_let_go_without_a_warning(
    apiserver: Path,
    namespace: Namespace,
    start_operator: Callable[[Path, dict[str, str]], Operator],
    spec: Callable[..., dict[str, Any]],
) -> None:
    env = {"HONE_WATCH_NAMESPACES": json.dumps([namespace.name]), "HONE_LOG__LEVEL": "DEBUG"}
    operator = start_operator(apiserver, env)
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec(suspend=True))
    namespace.until(lambda: namespace.condition("FineTuneJob", "run", "Suspended"), "it is suspended")
    namespace.kube.call("DELETE", f"/api/v1/namespaces/{namespace.name}", {})
    namespace.patch("FineTuneJob", "run", {"spec": {"suspend": False}})  # an attempt is due, and refused
    namespace.until(lambda: "its namespace is being deleted" in operator.log(), "the refusal is known")
    assert "WARNING" not in operator.log()
    assert operator.alive()
