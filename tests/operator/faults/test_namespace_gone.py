"""A namespace that is deleted is no news: what can no longer be written in it is not logged as a warning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cluster.hand import Namespace
from support.cluster.operator_process import Operator

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import NamespaceGoneError

pytestmark = pytest.mark.apiserver


async def test_the_refusals_of_a_deleted_namespace_are_known(cluster: Cluster, namespace: Namespace) -> None:
    """One that is being deleted, and one that does not exist: the API server words them differently."""
    namespace.kube.call("DELETE", f"/api/v1/namespaces/{namespace.name}", {})
    for name in (namespace.name, "never-was"):
        with pytest.raises(NamespaceGoneError):
            await cluster.create(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": name}}
            )


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
