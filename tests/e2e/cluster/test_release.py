"""A release on real pods: its images are pulled from a registry by digest, a stranger's commands install it, upgrade it
and take the upgrade back while a run trains, uninstall it with its models kept, and install it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cluster.live import ROWS, config_map, dataset, job, lines, reason_becomes, training, wait

from hone_api import RELEASE
from hone_dev.cluster import images as built
from hone_dev.cluster.node import REGISTRY
from hone_dev.demo.command import RELEASE as NAME
from hone_dev.demo.command import SYSTEM, install
from hone_dev.release import command
from hone_dev.tools import paths

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.long]
BEFORE = "0.0.9"
SPACE = ("--namespace", SYSTEM)
CHART = f"oci://{REGISTRY}/charts/hone"
STEPS = 8000
"""Of the run that trains meanwhile: 100 s on two cores, and an upgrade and a rollback take 30."""
Images = dict[str, dict[str, str]]


def sources_of(version: str, folder: Path) -> Path:
    """What the images are made from, as of another release."""
    for file in {file for target in built.DEFAULT for file in built._inputs(target)}:
        copy = folder / file.relative_to(paths.SOURCE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    file = folder / "crds/hone_api/__init__.py"
    text = file.read_text()
    file.write_text(text.replace(f'RELEASE = "{RELEASE}"', f'RELEASE = "{version}"'))
    assert file.read_text() != text
    return folder


@pytest.fixture
def releases(hone: Any, tmp_path: Path) -> Images:
    """Two releases in the registry of the cluster; their images by version and target."""
    made: Images = {}
    for version in (BEFORE, RELEASE):
        release = command.Release(version, tmp_path / version, REGISTRY)
        release.folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            if version == BEFORE:
                patch.setattr(paths, "SOURCE", sources_of(version, tmp_path / "sources"))
            pushed = built.push(f"{REGISTRY}/hone", insecure=True)
        made[version] = {target: reference for target, (reference, _) in pushed.items()}
        command.write_chart(release, made[version])
        command.push_chart(release)
    assert not set(made[BEFORE].values()) & set(made[RELEASE].values())
    return made


@pytest.fixture
def stranger(hone: Any) -> Iterator[Any]:
    """Somebody with a cluster that has no Hone; afterwards it has what other tests stand on."""
    hone.helm("uninstall", NAME, *SPACE, "--wait")
    yield hone
    install(hone)


def images_of(pods: list[dict[str, Any]]) -> set[str]:
    """What the node runs in these pods, by digest."""
    return {status["imageID"] for pod in pods for status in pod["status"]["containerStatuses"]}


def operator_runs(hone: Any, image: str) -> None:
    selector = "--selector=app.kubernetes.io/name=hone,app.kubernetes.io/component=operator"
    (pod,) = [
        pod for pod in hone.get(*SPACE, "pods", selector)["items"] if not pod["metadata"].get("deletionTimestamp")
    ]
    assert images_of([pod]) == {image}


def step(kubectl: Any, name: str) -> int:
    progress = (kubectl.get("ftj", name).get("status") or {}).get("progress") or {}
    return int(progress.get("step", 0))


def trains(kubectl: Any, name: str, image: str) -> str:
    """It gets further from now on, in a pod of this image; returns the pod's uid."""
    before = step(kubectl, name)
    wait(lambda: step(kubectl, name) > before, lambda: f"no step after {before}: {kubectl.get('ftj', name)['status']}")
    (pod,) = training(kubectl, "pods", name)
    assert images_of([pod]) == {image}
    return str(pod["metadata"]["uid"])


def model_of(kubectl: Any, name: str) -> dict[str, Any]:
    """The ModelVersion of a job that has ended, every file of it compared with its manifest."""
    reason_becomes(kubectl, "ftj", name, "Finished", "Succeeded")
    version = kubectl.get("ftj", name)["status"]["modelVersionName"]
    reason_becomes(kubectl, "mv", version, "Ready", "Verified")
    return dict(kubectl.get("mv", version))


def test_a_release_is_installed_upgraded_rolled_back_removed_and_installed_again(
    stranger: Any, kubectl: Any, tiny: str, releases: Images, tmp_path: Path
) -> None:
    """One run trains through the first three; its model is the base of a run of the last."""
    hone, old, new = stranger, releases[BEFORE], releases[RELEASE]
    (values := tmp_path / "values.yaml").write_text(
        json.dumps({name: hone.values[name] for name in ("huggingFace", "progress")})
    )
    of = (NAME, CHART, "--plain-http", *SPACE, "--values", values, "--wait", "--timeout", "10m", "--version")
    hone.helm("install", *of, BEFORE)
    operator_runs(hone, old["operator"])
    hone.helm("test", NAME, *SPACE)

    kubectl.apply(config_map("files", {"good.jsonl": lines(ROWS)}), dataset("good", "good.jsonl"))
    kubectl.apply(job("through", {"uri": tiny}, training={"maxSteps": STEPS, "batchSize": 2}))
    pod = trains(kubectl, "through", old["trainer"])
    for verb, argv, version in (("upgrade", (*of, RELEASE), new), ("rollback", (NAME, *SPACE, "--wait"), old)):
        hone.helm(verb, *argv)
        operator_runs(hone, version["operator"])
        assert trains(kubectl, "through", old["trainer"]) == pod, f"{verb}: it trains in another pod"

    kept = model_of(kubectl, "through")
    status = kubectl.get("ftj", "through")["status"]
    (attempt,) = status["attempts"]
    assert attempt == attempt | {"number": 1, "startStep": 0, "endStep": STEPS, "lostSteps": 0}
    hone.helm("uninstall", NAME, *SPACE, "--wait")
    assert hone.get(*SPACE, "deployments")["items"] == []
    assert kubectl.get("mv", kept["metadata"]["name"])["spec"] == kept["spec"]

    hone.helm("install", *of, RELEASE)
    operator_runs(hone, new["operator"])
    kubectl.apply(job("next", {"modelVersion": kept["metadata"]["name"]}, training={"maxSteps": 200, "batchSize": 2}))
    trains(kubectl, "next", new["trainer"])
    ancestor, *_ = model_of(kubectl, "next")["spec"]["lineage"]["ancestors"]
    assert ancestor["modelVersion"] == kept["metadata"]["name"]
    assert kubectl.get("ftj", "through")["status"] == status, "what has finished stays as it is"
