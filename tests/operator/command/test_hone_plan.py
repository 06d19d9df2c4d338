"""`hone plan` at a real API server: all objects at once, and nothing is stored."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hone_cli.__main__ import application
from hone_cli.errors import CliExit, CommandError

pytestmark = pytest.mark.apiserver
CORPUS = Path(__file__).parents[2] / "corpus/configurations"
HONE = {"apiVersion": "hone.dev/v1alpha1"}


def dataset(name="rows", **spec):
    return {**HONE, "kind": "Dataset", "metadata": {"name": name}, "spec": {"source": {"uri": "pvc://data/x"}, **spec}}


def job(name="job", **spec):
    body = {"model": {"uri": "hf://Qwen/Qwen2.5-0.5B-Instruct"}, "datasets": [{"name": "rows"}]}
    body |= {"output": {"modelName": "m"}, **spec}
    return {**HONE, "kind": "FineTuneJob", "metadata": {"name": name}, "spec": body}


@pytest.fixture
def plan(namespace, apiserver, monkeypatch, tmp_path):
    """The exit code and the objects by name; an error of the command is raised."""
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(apiserver))

    def run(*bodies, to=None, whole=False):
        (tmp_path / "m.yaml").write_text(yaml.safe_dump_all(bodies))
        words = ["plan", str(tmp_path / "m.yaml"), "-o", "json", "--namespace", to or namespace.name]
        done = CliRunner().invoke(application(["plan"]), words)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        if whole:
            return json.loads(done.stdout)
        return done.exit_code, {each["name"]: each for each in json.loads(done.stdout)["objects"]}

    return run


def test_nothing_is_stored_and_every_refusal_is_listed(namespace, plan) -> None:
    wrong = job("wrong", training={"epochs": "0", "colour": "red"})
    code, found = plan(dataset(), dataset("bad", format="Prose"), job(), wrong)
    assert code == CliExit.REFUSED
    assert {name: each["action"] for name, each in found.items()} == {
        "rows": "create",
        "bad": "refused",
        "job": "create",
        "wrong": "refused",
    }
    assert "spec.format" in found["bad"]["problems"][0]
    assert "colour" in found["wrong"]["problems"][0]
    assert namespace.names("Dataset") == namespace.names("FineTuneJob") == []


def test_what_the_api_server_and_the_command_both_refuse_is_said_once(plan) -> None:
    _, found = plan(dataset(), job("both", training={"epochs": "1", "maxSteps": 2}))
    (problem,) = found["both"]["problems"]
    assert "spec.training: set epochs or maxSteps, not both" in problem


@pytest.mark.parametrize("tool", ["automodel", "axolotl", "llamafactory", "torchtune"])
def test_what_hone_convert_prints_is_admitted(plan, tmp_path, tool) -> None:
    lines = lzma.decompress((CORPUS / f"{tool}.jsonl.xz").read_bytes()).splitlines()
    admitted = 0
    for line in lines[:: len(lines) // 15]:
        (tmp_path / "config.yaml").write_text(json.loads(line)["text"])
        words = ["convert", str(tmp_path / "config.yaml"), "-o", "json", "--model", "owner/name"]
        done = CliRunner().invoke(application(["convert", "plan"]), words)
        if done.exit_code == 0:
            code, found = plan(*json.loads(done.stdout)["objects"])
            assert {each["action"] for each in found.values()} == {"create"}, (line[:80], found)
            assert code in (CliExit.DONE, CliExit.DOES_NOT_FIT)
            admitted += 1
    assert admitted >= 4


def test_what_is_there_stays_or_changes(namespace, plan) -> None:
    body = dataset()
    namespace.create("Dataset", "rows", body["spec"])
    code, found = plan(body, job(evaluationDatasets=[{"name": "rwos"}], model={"uri": "hf://a/b", "secretName": "s"}))
    assert (code, found["rows"]["action"], found["rows"]["warnings"]) == (CliExit.DONE, "keep", [])
    assert found["job"]["warnings"] == [
        "it waits for Secret s, which does not exist: kubectl create secret generic s --from-literal=HF_TOKEN=hf_...",
        "it waits for Dataset rwos, which does not exist: did you mean rows?",
    ]
    _, found = plan(dataset(splits={"validation": "7%"}, source={"uri": "configmap://rows/rows.jsonl"}))
    assert found["rows"]["action"] == "refused", "another manager owns the source"
    assert "conflict" in found["rows"]["problems"][0].lower()
    _, found = plan(dataset("new", source={"uri": "configmap://new/rows.jsonl"}))
    assert found["new"]["warnings"] == ["it waits for ConfigMap new, which does not exist: hone upload FILE new"]
    namespace.claim("new")
    _, found = plan(dataset("new", source={"uri": "configmap://new/rows.jsonl"}))
    assert "PersistentVolumeClaim new exists: write pvc://new/FILE" in found["new"]["warnings"][0]


def test_a_namespace_that_does_not_exist_is_named(plan) -> None:
    code, found = plan(dataset(), to="nowhere")
    assert code == CliExit.REFUSED
    assert found["rows"]["problems"] == ['namespaces "nowhere" not found']


def test_the_gpus_of_the_cluster_are_judged_with_the_persons_own_rights(kube, namespace, plan, apiserver) -> None:
    nodes = {"one": ("NVIDIA-L4", 2), "two": ("NVIDIA-L4", 4), "old": ("Tesla-T4", 8)}
    for name, (product, count) in nodes.items():
        kube.call("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}}})
        gpus = {"nvidia.com/gpu": str(count)}
        status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": gpus, "capacity": gpus}
        kube.call("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, "application/merge-patch+json")
    limits = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    namespace.create("Pod", "holds", {"nodeName": "two", "containers": [{"name": "c", "image": "i", **limits}]})
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.nvidia.com/gpu": "3"}}}
    quotas = f"/api/v1/namespaces/{namespace.name}/resourcequotas"
    kube.call("POST", quotas, quota)
    hard = {"status": {"hard": quota["spec"]["hard"], "used": {"requests.nvidia.com/gpu": "1"}}}
    kube.call("PATCH", f"{quotas}/q/status", hard, "application/merge-patch+json")
    resources = {"nodes": 3, "gpusPerNode": 2, "gpuProducts": ["NVIDIA-L4"]}
    body = job(resources=resources, training={"gradientCheckpointing": True})
    try:
        done = plan(dataset(), body, whole=True)
    finally:
        for name in nodes:
            kube.call("DELETE", f"/api/v1/nodes/{name}")
    found = done["jobs"][0]["now"]
    assert [words for words in found if "NVIDIA-L4" in words] == ["NVIDIA-L4: 5 free of 6, fits"]
    assert "Tesla-T4: 8 free of 8, fits, not in resources.gpuProducts" in found
    assert "2 of 3 pods with 2 GPUs would find a node now: the others wait" in found
    assert "the quota of the namespace has 2 GPUs left, and the job needs 6" in found


@pytest.fixture
def stranger(kube, namespace, apiserver, tmp_path, monkeypatch):
    """A person without any right in the namespace."""
    account = f"/api/v1/namespaces/{namespace.name}/serviceaccounts/default/token"
    answer = kube.call("POST", account, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})
    document = yaml.safe_load(apiserver.read_text())
    document["users"][0]["user"] = {"token": answer["status"]["token"]}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))


def test_without_rights_the_missing_right_is_named(plan, stranger) -> None:
    with pytest.raises(CommandError, match=r'datasets.hone.dev "rows" is forbidden: .* cannot get resource "datasets"'):
        plan(dataset())
