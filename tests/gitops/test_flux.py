"""docs/guides/gitops.md by the real controllers of Flux, a Git server, the operator; pods are played by hand."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster import gitops
from support.cluster.gitops import Kustomizations, Repository, until_played
from support.cluster.hand import Namespace
from support.cluster.kube import Kube, connect
from support.cluster.operator_process import Operator

from hone_dev.cluster import binaries
from hone_dev.cluster.controlplane import control_plane
from hone_dev.cluster.flux import Flux
from hone_dev.tools import paths
from hone_dev.tools.shell import run

pytestmark = [pytest.mark.apiserver, pytest.mark.long, pytest.mark.gitops]
EXAMPLE = paths.SOURCE / "examples" / "15-gitops"
AGENT = "kustomize-controller"
PLACE = "https://git.example.org/platform/"


class Platform:
    """A cluster with Flux and the operator, the repository of the example, and team-a of the example."""

    def __init__(self, kubeconfig: Path, flux: Flux, folder: Path) -> None:
        self.kubeconfig, self.folder = kubeconfig, folder
        self.kube: Kube = connect(kubeconfig, folder)
        self.git = Repository(flux.repositories / "fine-tuning.git", folder / "copy")
        self.url = flux.git.url("")
        self.flux = Kustomizations(self.kube, self.git)

    def kubectl(self, *argv: str) -> str:
        return run(binaries.kubernetes() / "kubectl", "--kubeconfig", self.kubeconfig, *argv, cwd=paths.SOURCE)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("flux")
    flux = Flux(folder / "repositories")
    flux.repositories.mkdir()
    with control_plane(folder / "plane", garbage="400", addons=flux.addons()) as kubeconfig:
        made = Platform(kubeconfig, flux, folder)
        operator = Operator(kubeconfig, folder, forked=True).start()
        try:
            yield made
        finally:
            operator.kill()


def job(name: str) -> dict[str, Any]:
    """A job on the rows of the example."""
    spec = {
        "model": {"uri": "pvc://models/smol"},
        "datasets": [{"name": "questions"}],
        "resources": {"cpu": "1", "memory": "1Gi"},
        "output": {"modelName": name},
    }
    return {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def team(platform: Platform) -> Namespace:
    """Team A of the example, whose job has trained."""
    here = {f: f.read_text().replace(PLACE, platform.url) for f in EXAMPLE.rglob("*") if f.is_file()}
    platform.git.commit({str(f.relative_to(EXAMPLE)): text for f, text in here.items()})
    platform.kubectl("apply", "--filename", str(platform.folder / "copy" / "flux" / "team-a.yaml"))
    space = gitops.furnished(Namespace(platform.kube, "team-a"))
    space.until(
        lambda: platform.flux.condition("team-a-jobs").get("reason") == "DependencyNotReady", "jobs wait for data"
    )
    assert space.names("FineTuneJob") == []
    until_played(space, "materialize")
    platform.flux.reaches("team-a-data", "ReconciliationSucceeded")
    platform.flux.reaches("team-a-jobs", "ReconciliationSucceeded")
    platform.flux.reaches("team-a-model", "ReconciliationSucceeded")
    assert space.condition("FineTuneJob", "help-desk-1", "Accepted")["status"] == "True"
    assert space.condition("FineTuneJob", "help-desk-1", "Finished").get("status") != "True", "it is ready before that"
    until_played(space, "fetch")
    until_played(space, "training")
    until_played(space, "verify")
    space.until(lambda: phase(space) == "Succeeded", "the job has trained")
    return space


def phase(space: Namespace) -> Any:
    return space.get("FineTuneJob", "help-desk-1").get("status", {}).get("phase")


def test_flux_writes_each_object_once(platform: Platform, team: Namespace) -> None:
    for name in ("team-a-data", "team-a-jobs", "team-a-model"):
        platform.flux.reconciled(name)
    written = gitops.writes(platform.folder / "plane" / "logs" / "audit.log", AGENT)
    assert sorted(written) == [
        "patch datasets team-a/questions",
        "patch finetunejobs team-a/help-desk-1",
        "patch models team-a/help-desk",
    ]


def suspend(platform: Platform, *options: str) -> None:
    patch = '--patch={"spec":{"suspend":true}}'
    platform.kubectl("patch", "ftj", "help-desk-1", "--namespace=team-a", "--type=merge", patch, *options)


def test_flux_takes_back_what_kubectl_wrote_unless_it_writes_under_another_name(
    platform: Platform, team: Namespace
) -> None:
    suspend(platform)
    platform.flux.reconciled("team-a-jobs")
    assert not team.get("FineTuneJob", "help-desk-1")["spec"].get("suspend")
    suspend(platform, "--field-manager=hone")
    platform.flux.reconciled("team-a-jobs")
    assert team.get("FineTuneJob", "help-desk-1")["spec"]["suspend"] is True
    asked = {"hone.dev/retrain-requested-at": "2026-01-01T00:00:00Z"}
    [request] = [f"{key}={time}" for key, time in asked.items()]
    platform.kubectl("annotate", "models.hone.dev/help-desk", "--namespace=team-a", request)
    platform.flux.reconciled("team-a-model")
    assert not asked.items() & team.get("Model", "help-desk")["metadata"]["annotations"].items()
    team.patch("Model", "help-desk", {"metadata": {"annotations": asked}})
    platform.flux.reconciled("team-a-model")
    assert asked.items() <= team.get("Model", "help-desk")["metadata"]["annotations"].items()


def test_a_suspended_kustomization_changes_nothing(platform: Platform, team: Namespace) -> None:
    platform.flux.patch("team-a-model", {"spec": {"suspend": True}})
    file = "team-a/model/model.yaml"
    before = (EXAMPLE / file).read_text()
    promoted = before.replace("spec: {}", "spec:\n  aliases:\n  - name: champion\n    version: 1")
    platform.flux.commit({file: promoted})
    platform.flux.reconciled("team-a-jobs")
    assert "aliases" not in team.get("Model", "help-desk")["spec"]
    platform.flux.patch("team-a-model", {"spec": {"suspend": False}})
    platform.flux.reaches("team-a-model", "ReconciliationSucceeded")
    assert team.get("Model", "help-desk")["status"]["aliases"][0]["version"] == 1
    platform.flux.revert()
    platform.flux.reaches("team-a-model", "ReconciliationSucceeded")
    assert not team.get("Model", "help-desk")["spec"].get("aliases")


def test_flux_waits_for_a_version_that_does_not_exist_yet(platform: Platform, team: Namespace) -> None:
    platform.flux.patch("team-a-model", {"spec": {"timeout": "3s"}})
    file = "team-a/model/model.yaml"
    promoted = "spec:\n  aliases:\n  - name: champion\n    version: 9"
    platform.flux.commit({file: (EXAMPLE / file).read_text().replace("spec: {}", promoted)})
    message = platform.flux.reaches("team-a-model", "HealthCheckFailed")["message"]
    assert "timeout waiting for" in message
    assert "Model/team-a/help-desk status: 'InProgress'" in message
    platform.flux.revert()
    platform.flux.reaches("team-a-model", "ReconciliationSucceeded")


def test_an_edit_of_a_run_is_refused_with_the_way_out(platform: Platform, team: Namespace) -> None:
    file = "team-a/jobs/finetunejob.yaml"
    platform.flux.commit({file: (EXAMPLE / file).read_text().replace("maxSteps: 24", "maxSteps: 25")})
    message = platform.flux.reaches("team-a-jobs", "ReconciliationFailed")["message"]
    assert "with another name" in message
    platform.flux.revert()
    platform.flux.reaches("team-a-jobs", "ReconciliationSucceeded")


def test_a_job_that_is_pruned_and_restored_does_not_train_again(platform: Platform, team: Namespace) -> None:
    files = [f"team-a/{part}/{kind}.yaml" for part, kind in (("data", "dataset"), ("jobs", "finetunejob"))]
    lists = [f"team-a/{part}/kustomization.yaml" for part in ("data", "jobs")]
    nothing = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: []\n"
    uid = team.get("FineTuneJob", "help-desk-1")["metadata"]["uid"]
    platform.flux.commit(dict.fromkeys(files) | dict.fromkeys(lists, nothing))
    team.until(lambda: team.names("FineTuneJob") == [], "the job is pruned")
    platform.flux.reaches("team-a-data", "ReconciliationSucceeded")
    assert (team.names("Dataset"), team.names("ModelVersion")) == (["questions"], ["help-desk-v1"])
    platform.flux.revert()
    platform.flux.reaches("team-a-jobs", "ReconciliationSucceeded")
    team.until(lambda: phase(team) == "Succeeded", "it is rebuilt from its ModelVersion")
    assert team.get("FineTuneJob", "help-desk-1")["metadata"]["uid"] != uid
    assert team.condition("FineTuneJob", "help-desk-1", "Running")["reason"] == "RestoredFromModelVersion"
    assert [name for name in team.names("Job") if name.startswith("help-desk-1-")] == []


def test_the_kustomization_of_the_guide_sees_what_is_accepted_and_what_fails(
    platform: Platform, team: Namespace
) -> None:
    (body,) = gitops.guide_objects("Kustomization", "healthCheckExprs")
    body["spec"] |= {"targetNamespace": "team-a", "sourceRef": {"kind": "GitRepository", "name": "fine-tuning"}}
    file = "fine-tuning/guide.yaml"
    platform.flux.commit({file: yaml.safe_dump(job("guide"))})
    platform.kube.call("POST", platform.flux.GROUP, body)
    platform.flux.reaches("fine-tuning", "ReconciliationSucceeded")
    assert team.condition("FineTuneJob", "guide", "Finished").get("status") != "True"
    suspended = (sys.executable, "-m", "hone_cli", "suspend", "guide", "--namespace=team-a")
    run(*suspended, env={"KUBECONFIG": str(platform.kubeconfig)})
    platform.flux.reconciled("fine-tuning")
    assert team.get("FineTuneJob", "guide")["spec"]["suspend"] is True
    bad = {**job("bad"), "kind": "Dataset", "spec": {"source": {"uri": "pvc://data/rows.jsonl"}}}
    platform.flux.commit({"fine-tuning/bad.yaml": yaml.safe_dump(bad)})
    read = team.until(lambda: [name for name in team.names("Job") if name.startswith("bad-")], "the Job of bad")[0]
    team.fail(read, 65, {"code": "InvalidRow", "message": "row 3 has no text"})
    assert "Dataset/team-a/bad" in platform.flux.reaches("fine-tuning", "HealthCheckFailed")["message"]


def test_the_account_of_the_guide_writes_what_a_team_keeps_in_git_and_nothing_else(
    platform: Platform, team: Namespace
) -> None:
    platform.kubectl("--namespace=flux-system", "create", "serviceaccount", "team-a")
    platform.flux.commit(gitops.of_team())
    (body,) = gitops.guide_objects("Kustomization", "healthCheckExprs")
    body["metadata"]["name"] = "few"
    body["spec"] |= {"path": "./few", "targetNamespace": "team-a", "serviceAccountName": "team-a"}
    body["spec"] |= {"sourceRef": {"kind": "GitRepository", "name": "fine-tuning"}, "retryInterval": "1s"}
    platform.kube.call("POST", platform.flux.GROUP, body)
    assert "forbidden" in platform.flux.reaches("few", "ReconciliationFailed")["message"]
    rights = {"apiVersion": "v1", "kind": "List", "items": gitops.guide_objects("Role")}
    file = platform.folder / "rights.json"
    file.write_text(json.dumps(rights))
    platform.kubectl("apply", f"--filename={file}")
    until_played(team, "materialize")
    platform.flux.reaches("few", "ReconciliationSucceeded")
    platform.flux.commit(gitops.of_team("2"))
    platform.flux.reaches("few", "ReconciliationSucceeded")
    kinds = ("ConfigMap", "Dataset", "FineTuneJob", "Model")
    for kind in kinds:
        assert team.get(kind, "few")["metadata"]["annotations"]["example.org/revision"] == "2"
    platform.flux.commit({"few/rights.yaml": yaml.safe_dump(gitops.FOREIGN)})
    refused = platform.flux.reaches("few", "ReconciliationFailed")["message"]
    assert "RoleBinding/team-a/few" in refused
    assert "forbidden" in refused
    platform.flux.revert()
    nothing = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: []\n"
    platform.flux.commit(dict.fromkeys(gitops.of_team()) | {"few/kustomization.yaml": nothing})
    platform.flux.reaches("few", "ReconciliationSucceeded")
    for kind in kinds:
        team.until(lambda kind=kind: "few" not in team.names(kind), f"the {kind} is pruned")
    log = platform.folder / "plane" / "logs" / "audit.log"
    assert "system:serviceaccount:flux-system:team-a" in gitops.writers(log, "team-a")
