"""The running operator and definitions that are one field ahead of it or behind, replaced while a job runs."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cluster.hand import Namespace
from support.cluster.kube import Kube, connect, wait_until
from support.cluster.operator_process import Operator

from hone_api.generate import KINDS
from hone_api.schema.schema import crd

pytestmark = pytest.mark.apiserver
Start = Callable[[Path, dict[str, str]], Operator]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def install(kube: Kube, apiserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Any], None]]:
    """Replaces all definitions by what a function makes of them; the real ones come back."""

    def put(change: Callable[[dict[str, Any]], None]) -> None:
        for kind in KINDS:
            body = copy.deepcopy(crd(kind))
            change(body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"])
            url = f"{CRDS}/{kind.plural}.hone.dev"
            body["metadata"]["resourceVersion"] = kube.call("GET", url)["metadata"]["resourceVersion"]
            kube.call("PUT", url, body)

    yield put
    put(lambda parts: None)
    connect(apiserver, tmp_path_factory.mktemp("kube"))


def ahead(parts: dict[str, Any]) -> None:
    """A new field with a default, in spec."""
    parts["spec"]["properties"]["future"] = {"type": "string", "default": "on", "maxLength": 9}


def behind(parts: dict[str, Any]) -> None:
    """Without what an operator of this version writes."""
    parts["status"]["properties"].pop("startTime", None)
    parts["status"]["properties"].pop("tries", None)
    parts["status"]["properties"].pop("resolved", None)


def running(namespace: Namespace) -> bool:
    return namespace.condition("FineTuneJob", "run", "Running").get("status") == "True"


def touched(namespace: Namespace, label: str) -> Any:
    """The reason of Accepted, once the object has changed.

    A default of a new definition changes no resourceVersion, and a watch that began before it still reports objects
    without it for a moment: only a change after that one is sure to bring it.
    """
    namespace.patch("FineTuneJob", "run", {"metadata": {"labels": {"seen": f"{label}-{time.monotonic_ns()}"}}})
    time.sleep(0.5)
    return namespace.condition("FineTuneJob", "run", "Accepted").get("reason")


@pytest.mark.faults("O20")
def test_a_run_lives_through_an_upgrade_and_a_rollback_of_the_definitions(
    apiserver: Path, namespace: Namespace, start_operator: Start, spec: Any, install: Callable[[Any], None]
) -> None:
    # A watch may be left behind by a change of its definition: lists are compared more often than once a minute here.
    env = {"HONE_WATCH_NAMESPACES": json.dumps([namespace.name]), "HONE_RESYNC_SECONDS": "3"}
    operator = start_operator(apiserver, env)
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    wait_until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    namespace.start_pods("run-1")
    wait_until(lambda: running(namespace), "Running")

    install(ahead)
    wait_until(lambda: namespace.get("FineTuneJob", "run")["spec"].get("future") == "on", "the default is there")
    wait_until(lambda: touched(namespace, "ahead") == "UnknownFields", "a warning")
    assert running(namespace)
    assert namespace.names("Job") == ["run-1"]
    namespace.create("FineTuneJob", "later", spec())
    wait_until(lambda: namespace.get("Job", "later-1"), "another job starts under the newer definitions")
    wait_until(lambda: namespace.condition("FineTuneJob", "later", "Accepted").get("status") == "True", "its status")

    install(behind)
    namespace.create("FineTuneJob", "older", spec())
    wait_until(lambda: namespace.get("Job", "older-1"), "another job starts under the older definitions")
    wait_until(lambda: namespace.condition("FineTuneJob", "older", "Accepted").get("status") == "True", "its status")
    assert running(namespace)

    install(lambda parts: None)
    wait_until(lambda: touched(namespace, "back") == "Accepted", "the warning goes")
    assert running(namespace)
    assert operator.alive()
    assert "hone-operator " in (operator.folder / "operator.log").read_text()
