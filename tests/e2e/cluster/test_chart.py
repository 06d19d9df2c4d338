"""The installed chart: its own `helm test`, also of a chart in a registry."""

import json
from pathlib import Path
from typing import Any

import pytest

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
