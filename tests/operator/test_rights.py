"""The operator lives on the rights that the chart gives it, and reports reach it with the certificate it makes."""

import base64
import json
import ssl
import subprocess
import urllib.request

import pytest
import yaml

from hone_dev import paths, tools

pytestmark = pytest.mark.apiserver
RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Secret")
SYSTEM = "hone-rights"


@pytest.fixture(params=["all namespaces", "this namespace"])
def account(request, kube, apiserver, namespace, tmp_path):
    """The kubeconfig of the chart's service account."""
    watched = [namespace.name] if request.param == "this namespace" else []
    values = {"watchNamespaces": watched, "crds": {"enabled": False}}
    command = [
        tools.helm(),
        "template",
        "hone",
        paths.SOURCE / "charts" / "hone",
        "--namespace",
        SYSTEM,
        "--values",
        "-",
    ]
    rendered = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=True).stdout
    objects = [d for d in yaml.safe_load_all(rendered) if d and d["kind"] in RIGHTS]
    objects = [d for d in objects if "helm.sh/hook" not in d["metadata"].get("annotations", {})]
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": [space, *objects]})
    kubectl = [tools.kubectl(), "--kubeconfig", apiserver]
    subprocess.run([*kubectl, "apply", "--server-side", "--filename=-"], input=manifest, text=True, check=True)
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/hone/token"
    token = kube.call("POST", path, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
    config = yaml.safe_load(apiserver.read_text())
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    file = tmp_path / "account.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    yield file, watched
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    subprocess.run([*kubectl, "delete", "--filename=-", "--wait=false"], input=manifest, text=True, check=True)


def scrape(operator):
    port = operator.env["HONE_PORTS__METRICS"]
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()


def test_a_life_with_no_more_rights_than_the_chart_gives(
    account, kube, namespace, start_operator, spec, result, free_ports
):
    kubeconfig, watched = account
    metrics, progress = free_ports(2)
    settings = {
        "HONE_NAMESPACE": SYSTEM,
        "HONE_WATCH_NAMESPACES": json.dumps(watched),
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
    namespace.until(lambda: [n for n in namespace.names("Job") if n.startswith("lines-data")], "a materialising Job")
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
    namespace.until(lambda: namespace.condition("FineTuneJob", "run", "Running")["status"] == "True", "Running")
    assert post(kube, namespace, pods[0], f"https://localhost:{progress}", certificate(kube)) == 200
    namespace.until(lambda: summary(namespace) == "7/12 58%", "the report in the status")
    for rank, pod in enumerate(pods):
        namespace.end_pod(pod, 0, {"result": result} if rank == 0 else None)
    namespace.end_job("run-2", "Complete")
    verify = namespace.until(lambda: [n for n in namespace.names("Job") if "verify" in n], "a verify Job")[0]
    namespace.succeed(verify, {"kind": "Verify", "files": 3, "sizeBytes": 7})
    namespace.until(lambda: namespace.condition("ModelVersion", "tutor-v1", "Ready")["status"] == "True", "verified")
    namespace.until(lambda: namespace.list("Event"), "events")

    text = scrape(operator)
    for kind in ("FineTuneJob", "Dataset", "ModelVersion"):
        assert f'hone_operator_reconcile_errors_total{{kind="{kind}"}} 0.0' in text
    assert f'hone_job_restarts_total{{finetunejob="run",namespace="{namespace.name}"}} 1.0' in text
    assert f'hone_jobs_finished_total{{namespace="{namespace.name}",reason="Succeeded",result="Succeeded"}} 1.0' in text
    assert "403" not in operator.log()
    assert operator.stop() == 0


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
    return urllib.request.urlopen(request, timeout=30, context=context).status
