"""`hone doctor` and `hone bundle` at a real API server with the definitions of the chart."""

from __future__ import annotations

import json
import tarfile

import pytest
import yaml
from support.cluster.rights import installed, token
from typer.testing import CliRunner

from hone_cli.__main__ import application
from hone_cli.errors import CliExit, CommandError

pytestmark = pytest.mark.apiserver
SECRET = "hunter2-of-nobody"
PLANTED = (
    SECRET,
    "hf_" + "a" * 30,
    "sk-" + "b" * 30,
    "AKIA" + "C" * 16,
    "ghp_" + "d" * 30,
    "bearer " + "e" * 30,
    "eyJ" + "f" * 20 + "." + "g" * 20 + "." + "h" * 20,
)


@pytest.fixture
def hone(namespace, apiserver, monkeypatch):
    def run(*words, kubeconfig=apiserver):
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        done = CliRunner().invoke(application(words[:1]), [*words, "--namespace", namespace.name])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return run


@pytest.fixture
def checked(hone):
    """Exit code, and state and words of each check."""

    def run(**options):
        done = hone("doctor", "-o", "json", **options)
        found = {each["name"]: each for each in json.loads(done.stdout)}
        assert all(each["way"] for each in found.values() if each["state"] != "ok"), "a fault without a way out"
        return done.exit_code, found

    return run


def test_without_an_operator_it_says_so(checked, hone) -> None:
    code, found = checked()
    assert code == CliExit.UNHEALTHY
    assert found["operator"] == {
        "name": "operator",
        "state": "failed",
        "found": "no Deployment in the cluster is Hone's operator",
        "way": "Install Hone: docs/guides/install.md",
    }
    assert {name for name, each in found.items() if each["state"] == "failed"} == {"operator"}
    assert [line.split()[:2] for line in hone("doctor").stdout.splitlines() if line[0] != " "] == [
        [each["state"], name] for name, each in found.items()
    ]


def test_the_chart_and_a_ready_operator_pass(checked, kube, namespace, apiserver) -> None:
    system = f"hone-{namespace.name}"
    with installed(kube, apiserver, system, {}):
        env = [{"name": "HONE_CONFIG_FILE", "value": "x"}]
        pod = {"containers": [{"name": "operator", "image": "hone", "env": env}]}
        labels = {"app.kubernetes.io/component": "operator", "app.kubernetes.io/version": "0.0.9"}
        spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
        path = f"/apis/apps/v1/namespaces/{system}/deployments"
        kube.call("POST", path, {"metadata": {"name": "hone", "labels": labels}, "spec": spec})
        assert checked()[1]["operator"]["found"] == f"{system}/hone has no ready pod"
        ready = {"status": {"replicas": 1, "readyReplicas": 1}}
        kube.call("PATCH", f"{path}/hone/status", ready, "application/merge-patch+json")
        code, found = checked()
        assert code == CliExit.DONE
        assert found["operator"]["state"] == "warning", "another release"
        assert found["policies"]["state"] == "ok"
        assert "each with its binding" in found["policies"]["found"]
        kube.call("DELETE", f"{path}/hone")


def test_definitions_of_another_release_are_named_by_their_fields(checked, monkeypatch) -> None:
    from hone_cli.health import checks

    own = checks.crd

    def changed(kind):
        body = own(kind)
        schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        schema.update(change)
        return body

    monkeypatch.setattr(checks, "crd", changed)
    change = {"colour": {"type": "string"}}
    code, found = checked()
    assert code == CliExit.UNHEALTHY
    assert "they lack FineTuneJob.spec.colour, " in found["definitions"]["found"]
    monkeypatch.setattr(checks, "KINDS", checks.KINDS[:1])
    change = {"method": {"type": "string"}}
    assert checked()[1]["definitions"]["state"] == "ok"


def test_a_stranger_sees_what_is_missing_and_what_is_unknown(checked, kube, namespace, apiserver, tmp_path) -> None:
    document = yaml.safe_load(apiserver.read_text())
    document["users"][0]["user"] = {"token": token(kube, namespace.name, "default")}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    code, found = checked(kubeconfig=tmp_path / "kubeconfig")
    assert code == CliExit.UNHEALTHY
    assert found["definitions"]["state"] == "ok", "anyone may read the schemas"
    assert "create finetunejobs (hone run)" in found["rights"]["found"]
    for name in ("operator", "namespace", "storage", "GPUs", "policies"):
        assert found[name]["state"] == "unknown"
        assert "cannot list" in found[name]["found"]


def test_objects_that_nobody_answers_a_wrong_image_and_a_refusing_hub(checked, namespace, spec, kube) -> None:
    namespace.create("FineTuneJob", "job", spec())
    assert checked()[1]["namespace"]["found"] == "the operator has written no status to FineTuneJob job"
    at = "2026-01-01T00:00:00Z"
    bad = {"type": "ModelReady", "status": "False", "reason": "GatedModelAccessDenied", "message": "ask for it"}
    condition = {**bad, "lastTransitionTime": at}
    namespace.patch("FineTuneJob", "job", {"status": {"phase": "Pending", "conditions": [condition]}}, "status")
    container = {"name": "c", "image": "registry.invalid/x"}
    pod = {"containers": [container], "nodeName": "here"}
    namespace.create("Pod", "p", pod)
    namespace.patch("Pod", "p", {"metadata": {"labels": {"hone.dev/component": "training"}}})
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    state = {**container, "state": waiting, "ready": False, "restartCount": 0, "imageID": ""}
    namespace.patch("Pod", "p", {"status": {"containerStatuses": [state]}}, "status")
    node = {"metadata": {"name": "here", "labels": {"nvidia.com/gpu.product": "NVIDIA-L4"}}}
    kube.call("POST", "/api/v1/nodes", node)
    try:
        alive = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"nvidia.com/gpu": "4"}}
        body = {"status": {**alive, "capacity": alive["allocatable"]}}
        kube.call("PATCH", "/api/v1/nodes/here/status", body, "application/merge-patch+json")
        found = checked()[1]
    finally:
        kube.call("DELETE", "/api/v1/nodes/here")
    assert found["namespace"]["state"] == "ok"
    assert found["GPUs"]["found"] == "4 NVIDIA-L4, 4 free"
    assert found["images"]["found"] == "pod p cannot pull registry.invalid/x: no such image"
    assert found["hub"] == {
        "name": "hub",
        "state": "failed",
        "found": "FineTuneJob job: GatedModelAccessDenied: ask for it",
        "way": "hone explain GatedModelAccessDenied",
    }


def test_a_bundle_has_what_helps_and_no_secret(hone, namespace, spec, tmp_path) -> None:
    namespace.kube.call(
        "POST",
        f"/api/v1/namespaces/{namespace.name}/secrets",
        {"metadata": {"name": "hub"}, "stringData": {"k": SECRET}},
    )
    namespace.create("Dataset", "rows", {"source": {"uri": "pvc://data/rows.jsonl"}, "suspend": True})
    variables = [{"name": "PLAIN", "value": SECRET}, {"name": "COLOUR", "value": SECRET}]
    job = namespace.create("FineTuneJob", "job", spec(pod={"env": variables}))
    copied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(job["spec"])}
    namespace.patch("FineTuneJob", "job", {"metadata": {"annotations": copied}})
    words = " ".join(PLANTED[1:])
    failure = {"code": "OutOfMemory", "message": words, "logTail": words}
    namespace.patch("FineTuneJob", "job", {"status": {"phase": "Failed", "failure": failure}}, "status")
    container = {"name": "trainer", "image": "i", "env": variables, "args": ["--token", words]}
    namespace.create("Pod", "job-0", {"containers": [container], "initContainers": [{**container, "name": "init"}]})
    namespace.patch("Pod", "job-0", {"metadata": {"labels": {"hone.dev/finetunejob": "job"}}})
    involved = {"kind": "FineTuneJob", "name": "job", "namespace": namespace.name, "uid": job["metadata"]["uid"]}
    namespace.create("Event", "job.1", involvedObject=involved, reason="Failed", message=words)
    target = tmp_path / "b.tar.gz"
    assert hone("bundle", "job", "-o", str(target)).exit_code == CliExit.DONE
    with tarfile.open(target) as archive:
        texts = {each.name: archive.extractfile(each).read().decode() for each in archive.getmembers()}
    assert set(texts) == {
        "job/objects/FineTuneJob-job.json",
        "job/objects/Dataset-rows.json",
        "job/objects/Pod-job-0.json",
        "job/events.json",
        "job/logs/job-0.init.log",
        "job/logs/job-0.trainer.log",
        "job/doctor.json",
    }
    assert not {secret for secret in PLANTED for text in texts.values() if secret in text}
    assert [each["reason"] for each in json.loads(texts["job/events.json"])] == ["Failed"]
    shown = json.loads(texts["job/objects/FineTuneJob-job.json"])
    assert {each["value"] for each in shown["spec"]["pod"]["env"]} == {"***"}
    assert shown["status"]["failure"]["code"] == "OutOfMemory"
    with pytest.raises(CommandError, match="exists: name another file"):
        hone("bundle", "job", "-o", str(target))
    with pytest.raises(CommandError, match="has no ModelVersion yet"):
        hone("bundle", "job", "-o", str(tmp_path / "other"), "--report")
    with pytest.raises(CommandError, match="has no FineTuneJob jbo: it has job"):
        hone("bundle", "jbo")
