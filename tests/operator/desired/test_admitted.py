"""Every pod that the operator makes, as an API server judges it: Pod Security `restricted`, and its own field names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.cluster.desired_objects import CASES
from support.cluster.kube import Kube

pytestmark = pytest.mark.apiserver
NAMESPACE = "admitted"


@pytest.fixture(scope="module")
def judge(apiserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Kube:
    kube = Kube(apiserver, tmp_path_factory.mktemp("admitted"))
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": labels}})
    specs = [pod["spec"] for pods in templates().values() for pod in pods]
    for name in {spec.get("serviceAccountName", "default") for spec in specs}:
        kube.call("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": name}})
    for name in {spec["priorityClassName"] for spec in specs if "priorityClassName" in spec}:
        kube.call("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": name}, "value": 1})
    return kube


def admit(kube: Kube, template: dict[str, Any]) -> dict[str, Any]:
    """The pod that the server would keep; it keeps none."""
    metadata = {**template["metadata"], "name": "one", "namespace": NAMESPACE}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All&fieldValidation=Strict"
    answer: dict[str, Any] = kube.call("POST", path, pod)
    return answer


def templates() -> dict[str, list[dict[str, Any]]]:
    made = {case: [one["spec"]["template"] for one in make() if one["kind"] == "Job"] for case, make in CASES.items()}
    return {case: pods for case, pods in made.items() if pods}


def test_every_pod_of_every_kind_of_work_is_admitted(judge: Kube) -> None:
    every = templates()
    assert len(every) > 15
    for case, pods in every.items():
        for template in pods:
            assert admit(judge, template)["spec"]["containers"], case


@pytest.mark.parametrize("broken", ["runAsNonRoot", "seccompProfile", "hostNetwork", "hostNetwerk"])
def test_the_judge_sees_what_is_wrong(judge: Kube, broken: str) -> None:
    template = templates()["fetch"][0]
    if broken.startswith("host"):
        template["spec"][broken] = True
    else:
        del template["spec"]["securityContext"][broken]
    with pytest.raises(
        RuntimeError, match="unknown field" if broken == "hostNetwerk" else 'violates PodSecurity \\\\"'
    ):
        admit(judge, template)
