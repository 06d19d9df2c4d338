"""Somebody deletes the Service and the NetworkPolicy of ranks that train: the operator makes them again in seconds."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cluster.hand import Namespace
from support.cluster.kube import Kube
from support.cluster.operator_process import Operator
from support.cluster.rights import installed

pytestmark = pytest.mark.apiserver
SYSTEM = "hone-networks"
KINDS = ("NetworkPolicy", "Service")
IMAGES = {"trainer": {"image": {"repository": "example.org/hone/trainer", "tag": "test"}}}


def report(kube: Kube, namespace: Namespace, pod: str, server: str, step: int) -> None:
    """The pod has trained this step."""
    meta = namespace.get("Pod", pod)["metadata"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": meta["uid"]}
    body = {"spec": {"audiences": ["progress.hone.dev"], "boundObjectRef": bound}}
    token = kube.call("POST", f"/api/v1/namespaces/{namespace.name}/serviceaccounts/default/token", body)
    secret = kube.call("GET", f"/api/v1/namespaces/{SYSTEM}/secrets/hone-operator-tls")
    told = {"trainerStatus": {}, "hone": {"stage": "Training", "step": step, "startStep": 0, "totalSteps": 12}}
    request = urllib.request.Request(
        f"{server}/apis/hone.dev/v1alpha1/namespaces/{namespace.name}/finetunejobs/run/status",
        json.dumps(told).encode(),
        {"Authorization": f"Bearer {token['status']['token']}"},
    )
    context = ssl.create_default_context(cadata=base64.b64decode(secret["data"]["ca.crt"]).decode())
    assert urllib.request.urlopen(request, timeout=600, context=context).status == 200


@pytest.mark.faults("O19")
@pytest.mark.parametrize("served", ["labelled", "this namespace"])
def test_what_ranks_find_each_other_by_is_made_again_while_they_train(
    served: str,
    kube: Kube,
    apiserver: Path,
    namespace: Namespace,
    start_operator: Callable[[Path, dict[str, str]], Operator],
    spec: Callable[..., dict[str, Any]],
    free_ports: Callable[[int], list[int]],
    tmp_path: Path,
) -> None:
    """With the rights that the chart gives, and without a look at every object: that comes each five minutes alone."""
    (port,) = free_ports(1)
    settings = {
        "HONE_NAMESPACE": SYSTEM,
        "HONE_PROGRESS__SERVICE_HOST": "localhost",
        "HONE_PROGRESS__PORT": str(port),
        "HONE_PROGRESS__SERVICE_PORT": str(port),
        "HONE_PROGRESS__STATUS_INTERVAL_SECONDS": "1",
    }
    values: dict[str, Any] = dict(IMAGES)
    if served == "labelled":
        settings |= {"HONE_OPT_IN__ROLE": f"{SYSTEM}-hone-namespace", "HONE_OPT_IN__SERVICE_ACCOUNT": "hone"}
        namespace.label(**{"hone.dev/enabled": "true"})
    else:
        settings |= {"HONE_WATCH_NAMESPACES": json.dumps([namespace.name])}
        values |= {"watchNamespaces": [namespace.name]}
    with installed(kube, apiserver, SYSTEM, values) as user:
        operator = start_operator(user.kubeconfig(apiserver, tmp_path / "account.kubeconfig"), settings)
        namespace.until(operator.ready, "ready")
        namespace.dataset()
        namespace.create("FineTuneJob", "run", spec())
        namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
        pods = namespace.start_pods("run-1")
        namespace.until(lambda: namespace.condition("FineTuneJob", "run", "Running").get("status") == "True", "Running")
        report(kube, namespace, pods[0], f"https://localhost:{port}", 7)
        namespace.until(lambda: summary(namespace) == "7/12 58%", "the report in the status")
        before = {kind: namespace.get(kind, "run-1") for kind in KINDS}
        status = namespace.get("FineTuneJob", "run")["status"]
        for kind in KINDS:
            namespace.delete(kind, "run-1")
        made = {kind: namespace.until(lambda kind=kind: there(namespace, kind), f"the {kind}") for kind in KINDS}
        for kind in KINDS:
            assert made[kind]["metadata"]["uid"] != before[kind]["metadata"]["uid"]
            for field in ("labels", "ownerReferences"):
                assert made[kind]["metadata"][field] == before[kind]["metadata"][field]
        assert made["NetworkPolicy"]["spec"] == before["NetworkPolicy"]["spec"]
        assert made["Service"]["spec"]["selector"] == before["Service"]["spec"]["selector"]
        assert namespace.get("FineTuneJob", "run")["status"] == status, "nothing is written that says no more"
        assert "forbidden" not in operator.log().lower()
        assert operator.stop() == 0


def summary(namespace: Namespace) -> Any:
    return namespace.get("FineTuneJob", "run")["status"].get("progress", {}).get("summary")


def there(namespace: Namespace, kind: str) -> Any:
    """The object, when it is not being deleted."""
    return next((body for body in namespace.list(kind) if body["metadata"]["name"] == "run-1"), None)
