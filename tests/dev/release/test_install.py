"""A release in a registry, installed from there by a stranger's commands, upgraded and rolled back while a run trains,
and uninstalled. The operator of each release is the real one, with the settings that its chart has installed; pods are
played by hand, hence no image is pulled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster.gitops import furnished, until_played
from support.cluster.hand import Namespace, fine_tune_job
from support.cluster.kube import Kube
from support.cluster.operator_process import Operator

from hone_api import RELEASE
from hone_dev.cluster import imageregistry
from hone_dev.cluster.controlplane import control_plane
from hone_dev.release import command
from hone_dev.tools import tools
from hone_dev.tools.shell import run

pytestmark = pytest.mark.apiserver
BEFORE = "0.0.9"
SYSTEM = ("--namespace", "hone-system")


def image(registry: str, target: str, version: str) -> str:
    """Each release has other images."""
    digit = "1" if version == BEFORE else "2"
    return f"{registry}/hone/{target}@sha256:{digit * 64}"


class Stranger:
    """Somebody who has a cluster and the address of a registry, and neither a clone nor values."""

    def __init__(self, kubeconfig: Path, registry: str, folder: Path) -> None:
        self.kubeconfig, self.registry, self.folder = kubeconfig, registry, folder
        self.kube = Kube(kubeconfig, folder)
        self.operator: Operator | None = None

    def helm(self, *argv: str) -> str:
        return run(tools.helm(), "--kubeconfig", self.kubeconfig, *argv, cwd=self.folder)

    def installs(self, verb: str, version: str, *options: str) -> None:
        chart = f"oci://{self.registry}/charts/hone"
        self.helm(verb, "hone", chart, "--version", version, *SYSTEM, "--plain-http", *options)

    def operator_starts(self) -> None:
        """As the Deployment does, with the settings that are installed now."""
        self.operator_stops()
        system = Namespace(self.kube, "hone-system")
        file = self.folder / "config.yaml"
        file.write_text(system.get("ConfigMap", "hone-config")["data"]["config.yaml"])
        settings = yaml.safe_load(file.read_text())
        env = {"HONE_CONFIG_FILE": str(file), "HONE_TRAINER__IMAGE": settings["trainer"]["image"]}
        env["HONE_PROGRESS__ENABLED"] = "false"  # its port may be taken on this machine
        self.operator = Operator(self.kubeconfig, self.folder, env, forked=True).start()
        system.until(self.operator.ready, "the operator is ready")

    def operator_stops(self) -> None:
        if self.operator:
            self.operator.stop()
        self.operator = None

    def deployments(self) -> list[Any]:
        found: list[Any] = self.kube.call("GET", "/apis/apps/v1/namespaces/hone-system/deployments")["items"]
        return found

    def operator_image(self) -> str:
        (deployment,) = self.deployments()
        return image_of(deployment)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    """With two releases in a registry."""
    folder = tmp_path_factory.mktemp("release")
    with imageregistry.serve(folder / "registry") as registry, control_plane(folder / "plane") as kubeconfig:
        for version in (BEFORE, RELEASE):
            made = command.Release(version, folder / version, registry.host)
            made.folder.mkdir()
            command.write_chart(made, {t: image(registry.host, t, version) for t in ("operator", "trainer")})
            command.push_chart(made)
        one = Stranger(kubeconfig, registry.host, folder)
        try:
            yield one
        finally:
            if one.operator and one.operator.alive():
                one.operator.kill()


def trained_by(space: Namespace, job: str) -> dict[str, Any]:
    """The Job that trains for a FineTuneJob, with a pod that runs."""

    def found() -> Any:
        wanted = {"hone.dev/finetunejob": job, "hone.dev/component": "training"}
        jobs = [j for j in space.list("Job") if wanted.items() <= j["metadata"]["labels"].items()]
        return jobs[0] if jobs else None

    made: dict[str, Any] = space.until(found, f"{job} has a Job")
    return made


def submit(space: Namespace, name: str) -> None:
    spec = fine_tune_job()
    space.create("FineTuneJob", name, spec | {"output": {**spec["output"], "modelName": name}})


def image_of(workload: dict[str, Any]) -> str:
    return str(workload["spec"]["template"]["spec"]["containers"][0]["image"])


def test_a_release_is_installed_upgraded_rolled_back_and_removed(stranger: Stranger) -> None:
    """One run trains through all of it."""
    stranger.installs("install", BEFORE, "--create-namespace")
    assert stranger.operator_image() == image(stranger.registry, "operator", BEFORE)
    stranger.operator_starts()
    space = Namespace(stranger.kube, "team-a")
    stranger.kube.call(
        "POST", "/api/v1/namespaces", {"metadata": {"name": "team-a", "labels": {"hone.dev/enabled": "true"}}}
    )
    furnished(space).dataset()
    submit(space, "through")
    run_before = trained_by(space, "through")
    assert image_of(run_before) == image(stranger.registry, "trainer", BEFORE)
    space.start_pods(run_before["metadata"]["name"])
    space.until(lambda: phase(space, "through") == "Running", "it trains")

    for change, version in (("upgrade", RELEASE), ("rollback", BEFORE)):
        stranger.operator_stops()
        if change == "upgrade":
            stranger.installs("upgrade", version)
        else:
            stranger.helm("rollback", "hone", *SYSTEM)
        assert stranger.operator_image() == image(stranger.registry, "operator", version)
        stranger.operator_starts()
        submit(space, f"after-{change}")
        assert image_of(trained_by(space, f"after-{change}")) == image(stranger.registry, "trainer", version)
        assert trained_by(space, "through")["metadata"]["uid"] == run_before["metadata"]["uid"]
        assert [a["number"] for a in space.get("FineTuneJob", "through")["status"]["attempts"]] == [1]

    until_played(space, "training")
    until_played(space, "verify")
    space.until(lambda: phase(space, "through") == "Succeeded", "it has trained")
    (model,) = [name for name in space.names("ModelVersion") if name.startswith("through")]
    stranger.operator_stops()
    stranger.helm("uninstall", "hone", *SYSTEM)
    assert model in space.names("ModelVersion")
    assert phase(space, "through") == "Succeeded"
    assert stranger.deployments() == []


def phase(space: Namespace, name: str) -> Any:
    return (space.get("FineTuneJob", name).get("status") or {}).get("phase")
