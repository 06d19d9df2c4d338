"""Definitions that change under the running operator: its watches begin again, and that is not an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster.fault_proxy import Fault, FaultProxy, Lane
from support.cluster.hand import Namespace
from support.cluster.kube import HONE, Kube, path
from support.cluster.operator_process import Operator

from hone_api.generate import KINDS
from hone_api.schema.schema import crd

pytestmark = pytest.mark.apiserver
REFUSED = Fault("refuse first watches", 429, retry_after=1, words="storage is (re)initializing", times=100)
"""What kube-apiserver 1.34 answers after a definition was applied."""
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
STORED = Path(__file__).with_name("objects_before_upgrade.json").read_text()
"""What the operator of commit 8e326c14 left in a real API server: a run that ended, and one that runs."""


def apply(kube: Kube, body: dict[str, Any]) -> None:
    """As `helm upgrade`; a field that is not in `body` is removed."""
    target = f"{CRDS}/{body['metadata']['name']}"
    live = kube.call("GET", target)
    body["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    kube.call("PUT", target, body)


def test_a_watch_that_is_refused_and_tried_again_is_not_an_error_in_the_log(
    kube: Kube, namespace: Namespace, tmp_path: Path
) -> None:
    proxy, kubeconfig = FaultProxy.of(kube), tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(proxy.kubeconfig()))
    lane = proxy.lanes[namespace.name] = Lane(REFUSED, "Dataset", now="Dataset")
    settings = {"HONE_WATCH_NAMESPACES": json.dumps([namespace.name]), "HONE_RESYNC_SECONDS": "600"}
    operator = Operator(kubeconfig, tmp_path, settings).start()
    try:
        namespace.until(operator.ready, "ready")
        namespace.dataset()
    finally:
        operator.kill()
        proxy.stop()
    assert lane.watched >= {kind.plural for kind in KINDS}
    assert REFUSED.words in operator.log()
    assert " ERROR " not in operator.log()


@pytest.mark.faults("O20")
def test_new_definitions_are_no_error_in_the_log(
    apiserver: Path, kube: Kube, namespace: Namespace, tmp_path: Path
) -> None:
    settings = {"HONE_WATCH_NAMESPACES": json.dumps([namespace.name]), "HONE_RESYNC_SECONDS": "600"}
    operator = Operator(apiserver, tmp_path, settings).start()
    try:
        namespace.until(operator.ready, "ready")
        namespace.dataset("before")
        for kind in KINDS:
            body = crd(kind)
            schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            schema["properties"]["future"] = {"type": "string"}
            apply(kube, body)
        namespace.dataset("after")
        assert " ERROR " not in operator.log()
    finally:
        operator.kill()
        for kind in KINDS:
            apply(kube, crd(kind))
        namespace.until(lambda: [kube.call("GET", f"{HONE}/{kind.plural}") for kind in KINDS], "they are served again")


def store(namespace: Namespace) -> None:
    """Write what an earlier operator left, with status; owners have new uids."""
    stored = STORED
    for number in range(len(json.loads(stored))):
        body = json.loads(stored)[number]
        old, status = body["metadata"].pop("uid"), body.pop("status", None)
        collection = path(body["kind"], namespace.name)
        made = namespace.kube.call("POST", collection, body)
        stored = stored.replace(old, made["metadata"]["uid"])
        if status:
            namespace.kube.call("PUT", f"{collection}/{body['metadata']['name']}/status", {**made, "status": status})


@pytest.mark.faults("O20")
def test_objects_of_an_earlier_version_are_read_and_nothing_is_trained_again(
    apiserver: Path, namespace: Namespace, tmp_path: Path, result: dict[str, Any]
) -> None:
    store(namespace)
    pods = namespace.start_pods("running-1")
    settings = {"HONE_WATCH_NAMESPACES": json.dumps([namespace.name])}
    operator = Operator(apiserver, tmp_path, settings, forked=True).start()
    try:
        namespace.until(operator.ready, "ready")
        for kind, name in (
            ("FineTuneJob", "ended"),
            ("Dataset", "rows"),
            ("ModelVersion", "tutor-v1"),
            ("Model", "tutor"),
        ):
            namespace.patch(kind, name, {"metadata": {"labels": {"team": "a"}}})
        for rank, pod in enumerate(pods):
            namespace.end_pod(pod, 0, {"result": result} if rank == 0 else None)
        namespace.end_job("running-1", "Complete")
        namespace.until(lambda: namespace.names("ModelVersion") == ["tutor-v1", "tutor-v2"], "the second model")
        namespace.until(lambda: [n for n in namespace.names("Job") if n.startswith("tutor-v2-verify")], "its Job")
    finally:
        operator.kill()
    assert [n for n in namespace.names("Job") if "verify" not in n] == ["ended-1", "running-1"]
    for name in ("ended", "running"):
        attempts = namespace.get("FineTuneJob", name)["status"]["attempts"]
        assert [(a["number"], a["outcome"]) for a in attempts] == [(1, "Succeeded")]
    assert namespace.condition("ModelVersion", "tutor-v1", "Ready")["status"] == "True"
    assert " ERROR " not in operator.log()
