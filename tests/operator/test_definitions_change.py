"""Definitions that change under the running operator: its watches begin again, and that is not an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster.fault_proxy import Fault, FaultProxy, Lane
from support.cluster.hand import Namespace
from support.cluster.kube import HONE, Kube
from support.cluster.operator_process import Operator

from hone_api.generate import KINDS
from hone_api.schema.schema import crd

pytestmark = pytest.mark.apiserver
REFUSED = Fault("refuse first watches", 429, retry_after=1, words="storage is (re)initializing", times=100)
"""What kube-apiserver 1.34 answers after a definition was applied."""
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


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
