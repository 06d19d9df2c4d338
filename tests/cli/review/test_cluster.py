"""`hone dataset review` at an API server: what cannot be is reported in one line, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from support.cluster import kube as raw

from hone_cli.review import cluster

pytestmark = pytest.mark.apiserver

NAMESPACE = "default"
PLATFORM = {"image": "hone/trainer:1", "claim": "hone-store"}
BATCH = {"generated": 3, "pending": 3, "folder": "synthesis/answers/0123"}
SYNTHESIS = {"template": "Paraphrase", "endpoint": "http://model/v1", "rows": 3}


@pytest.fixture(scope="module")
def api(apiserver: Path, tmp_path_factory: pytest.TempPathFactory) -> raw.Kube:
    kube = raw.connect(apiserver, tmp_path_factory.mktemp("kube"))
    with contextlib.suppress(RuntimeError):  # another module's test has made it
        kube.call("POST", raw.path("ServiceAccount", NAMESPACE), {"metadata": {"name": "default"}})
    return kube


@pytest.fixture
def dataset(api: raw.Kube) -> Iterator[Callable[..., dict[str, Any]]]:
    """Makes Dataset `answers` with this in `status.synthetic`; gives it."""

    def make(platform: Any = None, **synthetic: Any) -> dict[str, Any]:
        spec = {"source": {"uri": "configmap://answers/rows.jsonl"}, "synthesis": SYNTHESIS}
        body = {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": "answers"}, "spec": spec}
        api.call("POST", raw.path("Dataset", NAMESPACE), body)
        merge = "application/merge-patch+json"
        status = {"status": {"synthetic": synthetic, "reviewPod": platform}}
        return api.call("PATCH", raw.path("Dataset", NAMESPACE, "answers", "status"), status, merge)

    yield make
    api.call("DELETE", raw.path("Dataset", NAMESPACE, "answers"))


def hone(kubeconfig: Path, *words: str) -> str:
    """What a review that does not begin says; fails where it begins, or says more than a line."""
    done = subprocess.run(
        [sys.executable, "-m", "hone_cli", "dataset", "review", "answers", *words],
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=1800,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_a_dataset_that_is_not_there(api, apiserver):
    assert hone(apiserver, "-n", NAMESPACE) == 'hone: datasets.hone.dev "answers" not found'


def test_a_dataset_without_generated_rows_yet(dataset, apiserver):
    dataset(generated=0)
    assert hone(apiserver) == ("hone: Dataset answers has no generated rows (yet): kubectl describe dataset answers")


def test_rows_from_before_the_operator_says_what_to_start(dataset, apiserver):
    dataset(**BATCH)
    told = hone(apiserver)
    assert "status.reviewPod of Dataset answers is empty" in told
    assert "kubectl annotate dataset answers --namespace default --overwrite hone.dev/review=again" in told


@pytest.fixture
def reviewer(apiserver) -> cluster.Kube:
    """The API server as the command sees it."""
    configuration = client.Configuration()
    config.load_kube_config(config_file=str(apiserver), client_configuration=configuration)
    return cluster.Kube(NAMESPACE, configuration)


@pytest.fixture
def started(api, reviewer, dataset) -> Iterator[Callable[..., dict[str, Any]]]:
    """Starts the pod of a review; gives it as the API server has it."""
    names: list[str] = []

    def start(name: str | None = None) -> dict[str, Any]:
        names.append(cluster.start(reviewer, reviewer.dataset("answers"), "secret-token", name))
        return api.call("GET", raw.path("Pod", NAMESPACE, names[-1]))

    yield start
    for name in names:
        api.call("DELETE", raw.path("Pod", NAMESPACE, name) + "?gracePeriodSeconds=0")


def test_who_reviews_is_whom_the_api_server_knows(api, dataset, started):
    dataset(PLATFORM, **BATCH)
    user = api.call(
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
    )["status"]["userInfo"]["username"]
    for name, signed in ((None, user), ("ann", f"ann (as {user})")):
        env = {e["name"]: e["value"] for e in started(name)["spec"]["containers"][0]["env"]}
        assert env["HONE_REVIEWER"] == signed


def test_whoever_may_view_pods_does_not_learn_the_token(dataset, started):
    dataset(PLATFORM, **BATCH)
    assert "secret-token" not in str(started())


def test_the_pod_is_admitted_where_pod_security_is_restricted(api, dataset, started):
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    merge = "application/merge-patch+json"
    api.call("PATCH", f"/api/v1/namespaces/{NAMESPACE}", {"metadata": {"labels": labels}}, merge)
    try:
        dataset(PLATFORM, **BATCH)
        assert started()["spec"]["containers"][0]["image"] == "hone/trainer:1"
    finally:
        gone = {"metadata": {"labels": dict.fromkeys(labels)}}
        api.call("PATCH", f"/api/v1/namespaces/{NAMESPACE}", gone, merge)


BASE: dict[str, Any] = {
    "restartPolicy": "Never",
    "containers": [{"name": "trainer", "image": "planted/image:1"}],
    "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": "planted-claim"}}],
}
CONTAINER = {"name": "planted", "image": "planted/image:1"}


def planted(**container: Any) -> dict[str, Any]:
    return {"containers": [{**CONTAINER, **container}]}


PLANTED: dict[str, dict[str, Any]] = {
    "hostNetwork": {"hostNetwork": True},
    "hostPID": {"hostPID": True},
    "hostIPC": {"hostIPC": True},
    "serviceAccountName": {"serviceAccountName": "planted", "automountServiceAccountToken": True},
    "initContainers": {"initContainers": [{**CONTAINER, "securityContext": {"privileged": True}}]},
    "sidecar": {"initContainers": [{**CONTAINER, "restartPolicy": "Always"}]},
    "second container": {"containers": [*BASE["containers"], CONTAINER]},
    "image": planted(),
    "privileged": planted(securityContext={"privileged": True}),
    "capabilities": planted(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
    "postStart": planted(lifecycle={"postStart": {"exec": {"command": ["planted"]}}}),
    "command": planted(command=["planted"], args=["planted"]),
    "env": planted(env=[{"name": "PLANTED", "value": "planted"}]),
    "envFrom": planted(envFrom=[{"secretRef": {"name": "planted"}}]),
    "hostPath": {"volumes": [{"name": "store", "hostPath": {"path": "/planted"}}]},
    "secret": {"volumes": [{"name": "store", "secret": {"secretName": "planted"}}]},
    "claim": {},
    "root": {"securityContext": {"runAsUser": 0}},
    "nodeName": {"nodeName": "planted"},
    "tolerations": {"tolerations": [{"operator": "Exists"}], "nodeSelector": {"planted": "planted"}},
    "hostAliases": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["planted"]}]},
    "imagePullSecrets": {"imagePullSecrets": [{"name": "planted"}]},
    "dnsConfig": {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.1"]}},
    "shareProcessNamespace": {"shareProcessNamespace": True},
}


@pytest.mark.attack("review server")
@pytest.mark.parametrize("owned", [True, False], ids=["of the Dataset", "of nobody"])
@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_job_gives_nothing_to_the_pod(api, dataset, started, case, owned):
    """A tenant may make Jobs with any label, and with an owner that they name."""
    body = dataset(PLATFORM, **BATCH)
    clean = started()["spec"]
    meta: dict[str, Any] = {"name": "planted"}
    meta["labels"] = {"hone.dev/component": "materialize", "hone.dev/dataset": "answers"}
    if owned:
        owner = {"apiVersion": body["apiVersion"], "kind": "Dataset", "name": "answers", "uid": body["metadata"]["uid"]}
        meta["ownerReferences"] = [{**owner, "controller": True}]
    spec = {"template": {"spec": {**BASE, **PLANTED[case]}}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}
    api.call("POST", raw.path("Job", NAMESPACE), job)
    try:
        spec = started()["spec"]
    finally:
        api.call("DELETE", raw.path("Job", NAMESPACE, "planted") + "?propagationPolicy=Background")
    assert spec == clean
    assert "planted" not in str(spec)


@pytest.mark.attack("review server")
def test_who_may_edit_datasets_may_not_write_what_the_pod_is_made_of(api, dataset):
    """An edit of the object itself leaves the status as it was: that needs a right on the subresource."""
    dataset(PLATFORM, **BATCH)
    target = raw.path("Dataset", NAMESPACE, "answers")
    body = {"status": {"reviewPod": {"image": "planted/image:1", "claim": "planted"}}}
    found = api.call("PATCH", target, body, "application/merge-patch+json")
    assert found["status"]["reviewPod"]["image"] == "hone/trainer:1"


def test_a_context_that_is_not_there(apiserver):
    assert "Name a folder in --path to review without one." in hone(apiserver, "--context", "nowhere")


def test_a_server_that_does_not_answer(apiserver, tmp_path):
    text = apiserver.read_text()
    (server,) = {line for line in text.splitlines() if "server:" in line}
    silent = tmp_path / "kubeconfig"
    silent.write_text(text.replace(server.split("server:")[1].strip(), "https://127.0.0.1:1"))
    assert "hone: the cluster does not answer" in hone(silent)


def test_nothing_is_left_of_reviews_that_did_not_begin(api):
    names = [pod["metadata"]["name"] for pod in api.call("GET", raw.path("Pod", NAMESPACE))["items"]]
    assert [name for name in names if not name.startswith("planted-")] == [], "those are a Job controller's"
