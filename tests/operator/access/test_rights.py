"""The operator lives on the rights that the chart gives it, and reports reach it with the certificate it makes."""

import base64
import json
import ssl
import urllib.request
from pathlib import Path

import pytest
from support.cluster.rights import installed

from hone_operator.desired.core.namespace import NamespaceSetup

pytestmark = pytest.mark.apiserver
SYSTEM = "hone-rights"
THREAT_MODEL = Path(__file__).parents[3] / "docs" / "concepts" / "threat-model.md"
PROMETHEUS = [
    {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
        "podSelector": {"matchLabels": {}},
    },
    {"ipBlock": {"cidr": "10.0.0.0/8", "except": []}},
]
"""With empty fields, which the API server does not give back."""


@pytest.fixture(params=["labelled", "listed", "all namespaces", "this namespace"])
def account(request, kube, apiserver, namespace, tmp_path):
    """(kubeconfig of the chart's service account, settings of the operator that go with it)."""
    images = {"trainer": {"image": {"repository": "example.org/hone/trainer", "tag": "test"}}}
    opt_in = {"HONE_OPT_IN__ROLE": f"{SYSTEM}-hone-namespace", "HONE_OPT_IN__SERVICE_ACCOUNT": "hone"}
    values, settings = {
        "labelled": ({}, opt_in),
        "listed": (
            {"namespaces": [namespace.name]},
            opt_in | {"HONE_OPT_IN__NAMESPACES": json.dumps([namespace.name])},
        ),
        "all namespaces": ({"allNamespaces": True}, {}),
        "this namespace": (
            {"watchNamespaces": [namespace.name]},
            {"HONE_WATCH_NAMESPACES": json.dumps([namespace.name])},
        ),
    }[request.param]
    if request.param == "labelled":
        namespace.label(**{"hone.dev/enabled": "true"})
    with installed(kube, apiserver, SYSTEM, values | images) as user:
        yield user.kubeconfig(apiserver, tmp_path / "account.kubeconfig"), settings


def scrape(operator):
    port = operator.env["HONE_PORTS__METRICS"]
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=600).read().decode()


ELSEWHERE = "A namespace that another test has left"
ALSO = {("The tenant's namespace", "create", "persistentvolumeclaims"), ("The tenant's namespace", "patch", "jobs")}
"""What the operator writes as well, where a claim is missing and when a run is suspended: below the table."""


def writes(log, since, namespace):
    """What the operator has written, by the API server's audit log from this byte on: (where, verb, resource)."""
    operator = f"system:serviceaccount:{SYSTEM}:hone"
    where = {SYSTEM: "Its own namespace", namespace.name: "The tenant's namespace", None: "The cluster"}
    found = set()
    for line in log.read_bytes()[since:].splitlines():
        event = json.loads(line)
        about = event["objectRef"]
        if event["user"]["username"] == operator and event["responseStatus"]["code"] < 400:
            resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
            place = where.get(about.get("namespace"), ELSEWHERE)
            found.add((place, event["verb"], resource))
    return found


def documented_writes():
    """The table of the threat model, in the form of `writes`."""
    section = THREAT_MODEL.read_text().split("## What the operator writes\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {(where, verb, resource) for where, verb, resources in rows[2:] for resource in resources.split(", ")}


def test_a_life_with_no_more_rights_than_the_chart_gives(
    account, kube, apiserver, namespace, start_operator, spec, result, free_ports, request
):
    audit = apiserver.parents[1] / "logs" / "audit.log"
    before = audit.stat().st_size
    kubeconfig, of_account = account
    metrics, progress = free_ports(2)
    settings = {
        "HONE_NAMESPACE": SYSTEM,
        **of_account,
        "HONE_PROGRESS__SERVICE_HOST": "localhost",
        "HONE_PROGRESS__PORT": str(progress),
        "HONE_PROGRESS__SERVICE_PORT": str(progress),
        "HONE_PORTS__METRICS": str(metrics),
        "HONE_LOG__LEVEL": "DEBUG",
    }
    operator = start_operator(kubeconfig, settings)
    namespace.until(operator.ready, "ready")
    namespace.delete("PersistentVolumeClaim", "hone-store")

    # A Dataset from a ConfigMap, and one without its source.
    namespace.create("ConfigMap", "lines", data={"rows.jsonl": '{"prompt": "a", "completion": "b"}\n'})
    namespace.create("Dataset", "lines", {"source": {"uri": "configmap://lines/rows.jsonl"}})
    namespace.create("Dataset", "lost", {"source": {"uri": "configmap://nothing/rows.jsonl"}})
    namespace.until(lambda: [n for n in namespace.names("Job") if n.startswith("lines-data")], "a materializing Job")
    namespace.until(
        lambda: namespace.condition("Dataset", "lost", "Ready").get("reason") == "ConfigMapNotFound", "a missing source"
    )

    # An attempt that fails, another that reports and succeeds, a ModelVersion that is verified.
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    namespace.fail("run-1", 137, terminated={"reason": "Error"})
    namespace.until(lambda: namespace.get("Job", "run-2"), "attempt 2")
    pods = namespace.start_pods("run-2")
    namespace.until(lambda: namespace.condition("FineTuneJob", "run", "Running").get("status") == "True", "Running")
    assert post(kube, namespace, pods[0], f"https://localhost:{progress}", certificate(kube)) == 200
    namespace.until(lambda: summary(namespace) == "7/12 58%", "the report in the status")
    for rank, pod in enumerate(pods):
        namespace.end_pod(pod, 0, {"result": result} if rank == 0 else None)
    namespace.end_job("run-2", "Complete")
    verify = namespace.until(lambda: [n for n in namespace.names("Job") if "verify" in n], "a verify Job")[0]
    namespace.succeed(verify, {"kind": "Verify", "files": 3, "sizeBytes": 7})
    namespace.until(lambda: namespace.condition("ModelVersion", "tutor-v1", "Ready").get("status") == "True", "Ready")
    namespace.until(lambda: namespace.list("Event"), "events")
    namespace.until(lambda: verify not in namespace.names("Job"), "a Job that was read to its end is removed")

    text = scrape(operator)
    for kind in ("FineTuneJob", "Dataset", "ModelVersion"):
        assert f'hone_operator_reconcile_errors_total{{kind="{kind}"}} 0.0' in text
    assert f'hone_job_restarts_total{{finetunejob="run",namespace="{namespace.name}"}} 1.0' in text
    ended = f'cause="",namespace="{namespace.name}",reason="Succeeded",result="Succeeded"'
    assert f"hone_jobs_finished_total{{{ended}}} 1.0" in text
    assert "forbidden" not in operator.log().lower()  # the word of every 403 of the API server
    assert operator.stop() == 0
    known = documented_writes()
    everywhere = writes(audit, before, namespace)
    elsewhere = {("The tenant's namespace", verb, resource) for at, verb, resource in everywhere if at == ELSEWHERE}
    assert elsewhere <= known | ALSO
    written = {write for write in everywhere if write[0] != ELSEWHERE}
    assert written <= known, "a write that the threat model does not have"
    assert "labelled" not in request.node.name or written == known


def summary(namespace):
    return namespace.get("FineTuneJob", "run")["status"].get("progress", {}).get("summary")


def certificate(kube):
    secret = kube.call("GET", f"/api/v1/namespaces/{SYSTEM}/secrets/hone-operator-tls")
    return base64.b64decode(secret["data"]["ca.crt"]).decode()


def post(kube, namespace, pod, server, ca):
    """Status of a report with the token that the kubelet would have projected."""
    meta = namespace.get("Pod", pod)["metadata"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": meta["uid"]}
    body = {"spec": {"audiences": ["progress.hone.dev"], "boundObjectRef": bound}}
    token = kube.call("POST", f"/api/v1/namespaces/{namespace.name}/serviceaccounts/default/token", body)
    report = {"trainerStatus": {}, "hone": {"stage": "Training", "step": 7, "totalSteps": 12, "loss": "1.5"}}
    request = urllib.request.Request(
        f"{server}/apis/hone.dev/v1alpha1/namespaces/{namespace.name}/finetunejobs/run/status",
        json.dumps(report).encode(),
        {"Authorization": f"Bearer {token['status']['token']}"},
    )
    context = ssl.create_default_context(cadata=ca)
    return urllib.request.urlopen(request, timeout=600, context=context).status


def test_a_namespace_opts_in_and_out(kube, apiserver, namespace, start_operator, spec, tmp_path):
    """Without the label a status says what to do and nothing is made; with it the run starts; then the right goes."""
    images = {"trainer": {"image": {"repository": "example.org/hone/trainer", "tag": "test"}}}
    role = f"{SYSTEM}-hone-namespace"
    settings = {"HONE_NAMESPACE": SYSTEM, "HONE_OPT_IN__ROLE": role, "HONE_OPT_IN__SERVICE_ACCOUNT": "hone"}
    settings["HONE_METRICS_FROM"] = json.dumps(PROMETHEUS)
    policies = f"/apis/networking.k8s.io/v1/namespaces/{namespace.name}/networkpolicies"
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace.name}/rolebindings"

    def reason():
        return namespace.condition("FineTuneJob", "run", "Ready").get("reason")

    with installed(kube, apiserver, SYSTEM, images) as user:
        operator = start_operator(user.kubeconfig(apiserver, tmp_path / "account.kubeconfig"), settings)
        namespace.until(operator.ready, "ready")
        namespace.create("FineTuneJob", "run", spec(resources={"nodes": 1}))
        namespace.create("Dataset", "other", {"source": {"uri": "pvc://data/rows.jsonl"}})
        namespace.until(lambda: reason() == "NamespaceNotEnabled", "the job says that it waits")
        namespace.until(
            lambda: namespace.condition("Dataset", "other", "Ready").get("reason") == "NamespaceNotEnabled",
            "the Dataset, too",
        )
        message = namespace.condition("FineTuneJob", "run", "Ready")["message"]
        assert f"kubectl label namespace {namespace.name} hone.dev/enabled=true" in message
        assert namespace.names("Job") == []
        assert kube.call("GET", bindings)["items"] == []

        namespace.label(**{"hone.dev/enabled": "true"})
        namespace.dataset()
        namespace.until(lambda: namespace.get("Job", "run-1"), "the run starts")
        namespace.until(lambda: [n for n in namespace.names("Job") if n.startswith("other-data")], "the Dataset's Job")
        (binding,) = kube.call("GET", bindings)["items"]
        assert binding["roleRef"]["name"] == role
        assert binding["metadata"]["ownerReferences"][0]["kind"] == "ClusterRole"
        (policy,) = kube.call("GET", policies)["items"]
        assert policy["spec"] == NamespaceSetup(namespace.name, role, "x").closed_ports(PROMETHEUS)["spec"]
        assert policy["metadata"]["ownerReferences"][0]["kind"] == "ClusterRole"

        namespace.label(**{"hone.dev/enabled": None})
        namespace.until(lambda: kube.call("GET", bindings)["items"] == [], "the right is given back")
        assert kube.call("GET", policies)["items"] == [policy], "it was made once, and pods that go on stay closed"
        open_ = {"spec": {"ingress": [{}]}}
        kube.call("PATCH", f"{policies}/{role}", open_, "application/merge-patch+json")
        namespace.label(**{"hone.dev/enabled": "true"})
        namespace.until(
            lambda: kube.call("GET", f"{policies}/{role}")["spec"] == policy["spec"], "what was opened is closed again"
        )
        namespace.label(**{"hone.dev/enabled": None})
        namespace.until(lambda: kube.call("GET", bindings)["items"] == [], "the right is given back")
        namespace.create("FineTuneJob", "late", spec(resources={"nodes": 1}))
        namespace.until(
            lambda: namespace.condition("FineTuneJob", "late", "Ready").get("reason") == "NamespaceNotEnabled",
            "a new job waits",
        )
        assert [n for n in namespace.names("Job") if n.startswith("late")] == []
        assert "is skipped" not in operator.log(), "what the watch of namespaces brings is read"
        assert operator.stop() == 0
