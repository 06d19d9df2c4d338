"""The installed chart: its own `helm test`, and an upgrade and a rollback while a run trains."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.cluster.live import ROWS, config_map, dataset, job, lines, training, wait

from hone_cli.runs.mirror import mirror
from hone_dev.cluster.node import REGISTRY
from hone_dev.demo.command import RELEASE, SYSTEM
from hone_dev.tools import paths

pytestmark = pytest.mark.e2e


def test_helm_test_passes(hone) -> None:
    said = hone.helm("test", RELEASE, "--namespace", SYSTEM, "--logs", "--timeout", "10m")
    assert said.count("ok      ") == 4


def images_of(hone: Any, namespace: str) -> set[str]:
    """Those of all pods that are there now."""
    pods = [pod["spec"] for pod in hone.get("--namespace", namespace, "pods")["items"]]
    return {c["image"] for pod in pods for c in (*pod["containers"], *pod.get("initContainers", ()))}


@pytest.mark.alone
@pytest.mark.long
def test_the_chart_of_a_registry_trains_by_helm_test_with_what_hone_mirror_lists(
    hone, kubectl, tiny, tmp_path, capsys
) -> None:
    """As in a closed network: chart, images and base are on servers of this machine, and no pod has another image."""
    chart, version = f"oci://{REGISTRY}/charts", f"0.1.0-t{kubectl.namespace[-6:]}"
    hone.helm("package", paths.SOURCE / "charts" / "hone", "--version", version, "--destination", tmp_path)
    hone.helm("push", tmp_path / f"hone-{version}.tgz", chart, "--plain-http")
    test = {"namespace": kubectl.namespace, "model": tiny}
    (values := tmp_path / "values.yaml").write_text(json.dumps({**hone.values, "helmTest": test}))
    what = (RELEASE, f"{chart}/hone", "--version", version, "--plain-http", "--namespace", SYSTEM, "--values", values)
    (rendered := tmp_path / "hone.yaml").write_text(hone.helm("template", *what))
    mirror([rendered], registry="mirror.example.org", hub=Path("/srv/hub"))
    listed = capsys.readouterr().out
    hone.helm("upgrade", *what, "--wait", "--timeout", "10m")
    try:
        hone.helm("test", RELEASE, "--namespace", SYSTEM, "--timeout", "10m")
        kubectl("wait", "--for=condition=Ready", "mv/hone-test-fine-tune-v1", "--timeout=300s")
        model = kubectl.get("mv", "hone-test-fine-tune-v1")
        images = images_of(hone, SYSTEM) | {model["status"]["downloadPod"]["image"]}  # the pods that trained are gone
        assert len(images) == 2
        assert all(f"oras cp {image} mirror.example.org/" in listed for image in images), listed
        assert f"hf download {tiny.removeprefix('hf://')} " in listed
    finally:
        hone.helm("rollback", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "10m")


def operator_pods(hone: Any) -> list[str]:
    selector = "--selector=app.kubernetes.io/name=hone,app.kubernetes.io/component=operator"
    return [pod["metadata"]["uid"] for pod in hone.get("--namespace", SYSTEM, "pods", selector)["items"]]


def step(kubectl: Any) -> int:
    progress = (kubectl.get("ftj", "run").get("status") or {}).get("progress") or {}
    return int(progress.get("step", 0))


def goes_on(kubectl: Any) -> None:
    """The run that trained before is shown with further steps."""
    before = step(kubectl)
    wait(lambda: step(kubectl) > before + 1, lambda: f"no step after {before}: {kubectl.get('ftj', 'run')['status']}")


@pytest.mark.alone
@pytest.mark.long
def test_a_run_goes_on_through_an_upgrade_and_a_rollback_of_the_chart(hone, kubectl, tiny) -> None:
    """The operator is another process each time; the run is the same: one attempt, the same pod, no step lost."""
    kubectl.apply(config_map("files", {"good.jsonl": lines(ROWS)}), dataset("good", "good.jsonl"))
    kubectl.apply(job("run", {"uri": tiny}, training={"maxSteps": 1_000_000, "batchSize": 2}))
    goes_on(kubectl)
    (pod,) = training(kubectl, "pods")
    seen = set(operator_pods(hone))
    where = ("--namespace", SYSTEM, "--wait", "--timeout", "10m")
    chart = paths.SOURCE / "charts" / "hone"
    for change in (("upgrade", RELEASE, chart, "--reuse-values", "--set", "log.level=DEBUG"), ("rollback", RELEASE)):
        hone.helm(*change, *where)
        before = frozenset(seen)
        wait(lambda before=before: set(operator_pods(hone)) - before, lambda: "the operator is not another pod")
        seen |= set(operator_pods(hone))
        goes_on(kubectl)
    (same,) = training(kubectl, "pods")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    (attempt,) = kubectl.get("ftj", "run")["status"]["attempts"]
    assert (attempt["number"], attempt["startStep"], attempt.get("lostSteps", 0)) == (1, 0, 0)
