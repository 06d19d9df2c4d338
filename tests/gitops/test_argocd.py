"""docs/guides/gitops.md by the real Argo CD: its controllers, a Git server, the operator; pods are played by hand."""

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster import gitops
from support.cluster.gitops import Applications, Repository, until_played
from support.cluster.hand import Namespace, now, version_of
from support.cluster.kube import Kube, connect, wait_until
from support.cluster.operator_process import Operator

from hone_dev.cluster import binaries
from hone_dev.cluster.argocd import ArgoCD
from hone_dev.cluster.controlplane import control_plane
from hone_dev.tools import paths
from hone_dev.tools.shell import run

pytestmark = [pytest.mark.apiserver, pytest.mark.long, pytest.mark.gitops]
EXAMPLE = paths.SOURCE / "examples" / "15-gitops"
GUIDE = paths.SOURCE / "docs" / "guides" / "gitops.md"
SCRIPTS = paths.SOURCE / "deploy" / "argocd" / "resource_customizations" / "hone.dev"
AGENT = "argocd-application-controller"
PLACE = "https://git.example.org/platform/"


class Platform:
    """A cluster with Argo CD and the operator, and the repository of a platform team."""

    def __init__(self, kubeconfig: Path, argo: ArgoCD, folder: Path) -> None:
        self.kubeconfig, self.argo, self.folder = kubeconfig, argo, folder
        self.kube: Kube = connect(kubeconfig, folder)
        self.git = Repository(argo.repositories / "fine-tuning.git", folder / "copy")
        self.apps = Applications(self.kube, argo.git.url("fine-tuning.git"))

    def operator_starts(self) -> None:
        """The Deployment's pod, which nothing runs here."""
        self.operator = Operator(self.kubeconfig, self.folder, forked=True).start()

    def kubectl(self, *argv: str) -> str:
        return run(binaries.kubernetes() / "kubectl", "--kubeconfig", self.kubeconfig, *argv, cwd=paths.SOURCE)

    def space(self, name: str = "", exists: bool = False) -> Namespace:
        """A namespace with what every tenant has."""
        name = name or f"g-{uuid.uuid4().hex[:8]}"
        if not exists:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self.kube.call("POST", "/api/v1/namespaces", body)
        return gitops.furnished(Namespace(self.kube, name))

    def writes(self) -> list[str]:
        return gitops.writes(self.folder / "plane" / "logs" / "audit.log", AGENT)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("argocd")
    argo = ArgoCD(folder / "repositories")
    argo.repositories.mkdir()
    with control_plane(folder / "plane", garbage="400", addons=argo.addons()) as kubeconfig:
        made = Platform(kubeconfig, argo, folder)
        no_health_without_a_script(made)
        made.kubectl(*re.search(r"^kubectl (-n argocd patch .*)$", GUIDE.read_text(), re.M)[1].split())
        made.operator_starts()
        try:
            yield made
        finally:
            made.operator.kill()


def no_health_without_a_script(platform: Platform) -> None:
    space = platform.space()
    platform.git.commit({f"{space.name}/rows.yaml": dataset()})
    platform.apps.create(space.name, space.name, space.name)
    (found,) = platform.apps.reaches(space.name, "Synced", "Healthy")["status"]["resources"]
    assert (found["kind"], found.get("health")) == ("Dataset", None)


def dataset(name: str = "rows", **metadata: Any) -> str:
    return manifest("Dataset", name, {"source": {"uri": "pvc://data/rows.jsonl"}}, **metadata)


def job(name: str = "run", metadata: Any = None, **spec: Any) -> str:
    body = {
        "model": {"uri": "pvc://models/smol"},
        "datasets": [{"name": "rows"}],
        "resources": {"cpu": "1", "memory": "1Gi"},
        "output": {"modelName": "tutor"},
        **spec,
    }
    return manifest("FineTuneJob", name, body, **(metadata or {}))


def manifest(kind: str, name: str, spec: Any, **metadata: Any) -> str:
    body = {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
    return yaml.safe_dump(body)


WAVE = "argocd.argoproj.io/sync-wave"
KEPT = {"annotations": {"argocd.argoproj.io/sync-options": "Prune=false"}}


def test_a_run_has_no_drift_and_is_as_healthy_as_the_table_says(platform: Platform) -> None:
    """Every write of Argo CD is in the audit log: once both are synced there is none, until the run has ended, and each
    comparison in between finds no difference."""
    space, apps = platform.space(), platform.apps
    name = space.name
    platform.git.commit({f"{name}/data/rows.yaml": dataset(), f"{name}/jobs/run.yaml": job()})
    apps.create(f"{name}-data", f"{name}/data", name)
    apps.create(f"{name}-jobs", f"{name}/jobs", name)
    apps.reaches(f"{name}-data", "Synced", "Progressing")
    apps.reaches(f"{name}-jobs", "Synced", "Progressing")
    before = platform.writes()
    with apps.compared(f"{name}-data", f"{name}-jobs") as seen:
        until_played(space, "materialize")
        apps.reaches(f"{name}-data", "Synced", "Healthy")
        attempt = space.until(lambda: [n for n in space.names("Job") if n == "run-1"], "attempt 1")[0]
        pods = space.start_pods(attempt)
        space.until(lambda: space.condition("FineTuneJob", "run", "Running").get("status") == "True", "Running")
        apps.reaches(f"{name}-jobs", "Synced", "Progressing")
        space.patch("FineTuneJob", "run", {"spec": {"suspend": True}})
        apps.reaches(f"{name}-jobs", "Synced", "Suspended")
        space.end_pod(pods[0], 75)
        space.end_job(attempt, "Failed", "PodFailurePolicy")
        space.patch("FineTuneJob", "run", {"spec": {"suspend": False}})
        space.until(lambda: "run-2" in space.names("Job"), "attempt 2")
        apps.reaches(f"{name}-jobs", "Synced", "Progressing")
        until_played(space, "training")
        apps.reaches(f"{name}-jobs", "Synced", "Healthy")
        until_played(space, "verify")
        space.until(lambda: space.condition("ModelVersion", "tutor-v1", "Ready").get("status") == "True", "Ready")
    assert f"create finetunejobs {name}/run" in before
    assert platform.writes() == before
    assert set(seen) == {(f"{name}-data", "Synced"), (f"{name}-jobs", "Synced")}


def test_every_recorded_state_has_its_documented_health(platform: Platform) -> None:
    """The cases next to the scripts, as objects of the API server; without the operator, which would decide itself."""
    space = platform.space()
    platform.operator.stop()
    states, expected = {}, {}
    for cases in SCRIPTS.glob("*/health_test.yaml"):
        for case in yaml.safe_load(cases.read_text())["tests"]:
            state = yaml.safe_load((cases.parent / case["inputPath"]).read_text())
            states[state["kind"], Path(case["inputPath"]).stem] = state
            expected[state["kind"], Path(case["inputPath"]).stem] = case["healthStatus"]["status"]
    files = {f"{kind}-{name}": manifest(kind, name, state["spec"]) for (kind, name), state in states.items()}
    platform.git.commit({f"{space.name}/{file}.yaml": text for file, text in files.items()})
    platform.apps.create(space.name, space.name, space.name)
    platform.apps.reaches(space.name, "Synced", "Progressing")
    for (kind, name), state in states.items():
        if status := state.get("status"):
            behind = state["metadata"]["generation"] - status["observedGeneration"]
            status["observedGeneration"] = space.get(kind, name)["metadata"]["generation"] - behind
            space.patch(kind, name, {"status": status}, "status")
    found: dict[tuple[str, str], str] = {}

    def all_are_seen() -> bool:
        """The Application is Degraded with the first of them; the others may still be those of before."""
        app = platform.apps.reaches(space.name, "Synced", "Degraded")
        found.update({(r["kind"], r["name"]): r["health"]["status"] for r in app["status"]["resources"]})
        return found == expected

    with suppress(AssertionError):
        space.until(all_are_seen, "the health of each")
    platform.operator_starts()
    assert found == expected


def test_an_object_that_fails_is_degraded(platform: Platform) -> None:
    space, apps = platform.space(), platform.apps
    name = space.name
    objects = {
        "rows": dataset(),
        "bad": dataset("bad"),
        "waits": manifest("Dataset", "waits", {"source": {"uri": "pvc://data/x.jsonl"}, "suspend": True}),
        "run": job(output={"modelName": "other"}),
        "version": json.dumps(version_of("tutor", 1)),
        "model": manifest("Model", "tutor", {"aliases": [{"name": "champion", "version": 2}]}),
    }
    platform.git.commit({f"{name}/{file}.yaml": text for file, text in objects.items()})
    apps.create(name, name, name)
    kinds = ("FineTuneJob", "Dataset bad", "Dataset waits", "ModelVersion", "Model")

    def become(*expected: str) -> None:
        def there() -> bool:
            seen[:] = [apps.health(name, *words.split()) for words in kinds]
            return seen == list(expected)

        seen: list[str] = []
        space.until(there, f"{kinds} are {expected}")

    become("Progressing", "Progressing", "Suspended", "Progressing", "Progressing")
    diverged = {"code": "Diverged", "message": "loss is nan at step 7"}
    bad = space.until(lambda: [n for n in space.names("Job") if n.startswith("bad-")], "the Job of bad")[0]
    space.fail(bad, 65, {"code": "InvalidRow", "message": "row 3 has no text"})
    until_played(space, "materialize")
    space.until(lambda: space.get("Job", "run-1"), "attempt 1")
    space.fail("run-1", 70, diverged)
    until_played(space, "verify")
    become("Degraded", "Degraded", "Suspended", "Healthy", "Progressing")
    rejected = version_of("tutor", 1)
    rejected["spec"]["approval"] = {"state": "Rejected"}
    model = manifest("Model", "tutor", {"aliases": [{"name": "champion", "version": 1}]})
    platform.git.commit({f"{name}/version.yaml": json.dumps(rejected), f"{name}/model.yaml": model})
    become("Degraded", "Degraded", "Suspended", "Healthy", "Degraded")
    assert apps.reaches(name, "Synced", "Degraded")


def trained(platform: Platform, space: Namespace, files: dict[str, str], **policy: Any) -> str:
    """An Application of the namespace's name whose job `run` has trained; returns the uid of the job."""
    platform.git.commit({f"{space.name}/{file}": text for file, text in files.items()})
    platform.apps.create(space.name, space.name, space.name, **policy)
    until_played(space, "materialize")
    until_played(space, "training")
    until_played(space, "verify")
    platform.apps.reaches(space.name, "Synced", "Healthy")
    return str(space.get("FineTuneJob", "run")["metadata"]["uid"])


def attempts(space: Namespace) -> list[str]:
    """Every run so far, by the folders of its models: also those of jobs that are gone."""
    return [v["spec"]["artifacts"][0]["uri"] for v in space.list("ModelVersion")]


def test_a_finished_job_does_not_train_again_however_it_is_synced(platform: Platform) -> None:
    space, apps = platform.space(), platform.apps
    name = space.name
    uid = trained(platform, space, {"rows.yaml": dataset(), "run.yaml": job()})
    for options in (
        ["ServerSideApply=true"],
        [],
        ["ServerSideApply=true"],
        ["Replace=true"],
        [],
        ["ApplyOutOfSyncOnly=true"],
    ):
        state = apps.sync(name, *options, prune=True)
        assert state["phase"] == "Succeeded", (options, state["message"])
        apps.reaches(name, "Synced", "Healthy")
    found = space.get("FineTuneJob", "run")
    assert found["metadata"]["uid"] == uid
    assert (found["status"]["phase"], len(found["status"]["attempts"])) == ("Succeeded", 1)
    assert [n for n in space.names("Job") if n.startswith("run-")] in ([], ["run-1"])


def test_a_job_with_the_mark_is_its_own_record(platform: Platform) -> None:
    """Pruned and restored by commits, or deleted and created by a sync: it is rebuilt from its ModelVersion."""
    space, apps = platform.space(), platform.apps
    name = space.name
    marked = job(metadata={"annotations": {"hone.dev/restored": "true"}})
    uid = trained(platform, space, {"rows.yaml": dataset(), "run.yaml": marked})
    platform.git.commit({f"{name}/run.yaml": None})
    apps.reaches(name, "Synced", "Healthy")
    assert space.names("FineTuneJob") == []
    assert space.names("ModelVersion") == ["tutor-v1"], "what a job made survives it"
    platform.git.revert()
    apps.reaches(name, "Synced", "Healthy")
    assert apps.sync(name, "Force=true", "Replace=true")["phase"] == "Succeeded"
    apps.reaches(name, "Synced", "Healthy")
    found = space.get("FineTuneJob", "run")
    assert found["metadata"]["uid"] != uid
    assert found["status"]["phase"] == "Succeeded"
    assert space.condition("FineTuneJob", "run", "Running")["reason"] == "RestoredFromModelVersion"
    assert [n for n in space.names("Job") if n.startswith("run-")] == []
    assert space.names("ModelVersion") == ["tutor-v1"]


def test_a_job_without_the_mark_trains_again_once_it_was_deleted(platform: Platform) -> None:
    """What the guide warns of."""
    space = platform.space()
    trained(platform, space, {"rows.yaml": dataset(), "run.yaml": job()})
    space.delete("FineTuneJob", "run")
    platform.apps.refreshed(space.name)
    until_played(space, "training")
    space.until(lambda: space.names("ModelVersion") == ["tutor-v1", "tutor-v2"], "a second version")


def test_objects_that_git_keeps_stay_and_edits_are_taken_back(platform: Platform) -> None:
    """So do a request to train, and a job that Git never had."""
    space, apps = platform.space(), platform.apps
    name = space.name
    aliases = [{"name": "champion", "version": 1}]
    model = manifest("Model", "tutor", {"aliases": aliases}, **KEPT)
    files = {"rows.yaml": dataset(**KEPT), "run.yaml": job(cleanup={"podsAfter": "24h"}), "model.yaml": model}
    trained(platform, space, files)
    space.patch("Model", "tutor", {"spec": {"aliases": [{"name": "champion", "version": 7}]}})
    space.patch("Model", "tutor", {"metadata": {"annotations": {"hone.dev/retrain-requested-at": now()}}})
    space.until(lambda: space.get("Model", "tutor")["spec"]["aliases"] == aliases, "the alias of Git")
    apps.reaches(name, "Synced", "Healthy")
    assert "hone.dev/retrain-requested-at" in space.get("Model", "tutor")["metadata"]["annotations"], "a request stays"
    space.create("FineTuneJob", "by-hand", space.get("FineTuneJob", "run")["spec"])
    platform.git.commit({f"{name}/{file}": None for file in files} | {f"{name}/other.yaml": dataset("other")})
    space.until(lambda: apps.refreshed(name) and "run" not in space.names("FineTuneJob"), "the job is pruned")
    space.until(lambda: "other" in space.names("Dataset"), "the sync is over")
    assert space.names("FineTuneJob") == ["by-hand"]
    assert apps.refreshed(name)["status"]["sync"]["status"] == "OutOfSync"
    assert space.names("Dataset") == ["other", "rows"]
    assert space.names("Model") == ["tutor"]
    assert space.names("ModelVersion") == ["tutor-v1"]


def test_a_wave_waits_for_data_and_a_later_one_for_the_end_of_training(platform: Platform) -> None:
    space, apps = platform.space(), platform.apps
    name = space.name

    def wave(number: int) -> dict[str, dict[str, str]]:
        return {"annotations": {WAVE: str(number)}}

    after = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "after", **wave(2)}}
    files = {"rows.yaml": dataset(**wave(0)), "run.yaml": job(metadata=wave(1)), "after.yaml": yaml.safe_dump(after)}
    platform.git.commit({f"{name}/{file}": text for file, text in files.items()})
    apps.create(name, name, name)
    space.until(lambda: space.names("Dataset") == ["rows"], "the Dataset")
    apps.refreshed(name)
    assert space.names("FineTuneJob") == []
    until_played(space, "materialize")
    space.until(lambda: [n for n in space.names("Job") if n == "run-1"], "attempt 1")
    assert apps.get(name)["status"]["operationState"]["phase"] == "Running"
    assert "after" not in space.names("ConfigMap")
    until_played(space, "training")
    space.until(lambda: "after" in space.names("ConfigMap"), "the last wave")
    apps.reaches(name, "Synced", "Healthy")


def test_an_edit_of_a_run_is_refused_with_the_way_out(platform: Platform) -> None:
    space, apps = platform.space(), platform.apps
    name = space.name
    platform.git.commit({f"{name}/run.yaml": job()})
    apps.create(name, name, name)
    apps.reaches(name, "Synced", "Progressing")
    platform.git.commit({f"{name}/run.yaml": job(training={"maxSteps": 7})})

    def refusal() -> str:
        state = apps.refreshed(name)["status"]["operationState"]
        return str(state["message"]) if "failed to apply" in state["message"] else ""

    assert "with another name" in space.until(refusal, "the edit is refused")
    assert apps.get(name)["status"]["sync"]["status"] == "OutOfSync"


def test_an_application_stays_green_if_the_job_asks_for_it(platform: Platform) -> None:
    space = platform.space()
    ignored = {"annotations": {"argocd.argoproj.io/ignore-healthcheck": "true"}}
    platform.git.commit({f"{space.name}/run.yaml": job(metadata=ignored)})
    platform.apps.create(space.name, space.name, space.name)
    platform.apps.reaches(space.name, "Synced", "Healthy")
    assert space.condition("FineTuneJob", "run", "Finished").get("status") != "True"


def test_a_version_is_promoted_by_a_commit_and_taken_back_by_a_revert(platform: Platform) -> None:
    space, apps = platform.space(), platform.apps
    name = space.name
    trained(platform, space, {"rows.yaml": dataset(), "run.yaml": job(), "model.yaml": manifest("Model", "tutor", {})})

    def champion() -> Any:
        return [a.get("version") for a in space.get("Model", "tutor")["status"].get("aliases", ())]

    model = manifest("Model", "tutor", {"aliases": [{"name": "champion", "version": 1}]})
    platform.git.commit({f"{name}/model.yaml": model})
    apps.reaches(name, "Synced", "Healthy")
    space.until(lambda: champion() == [1], "version 1 is the champion")
    platform.git.revert()
    apps.reaches(name, "Synced", "Healthy")
    space.until(lambda: champion() == [], "no champion")


def training(space: Namespace) -> list[Any]:
    """Metadata of the Jobs that train."""
    return [j["metadata"] for j in space.list("Job") if j["metadata"]["labels"]["hone.dev/component"] == "training"]


def test_the_example_brings_the_chart_and_a_team(platform: Platform) -> None:
    """examples/15-gitops, copied to two repositories; only the addresses are changed. The chart is upgraded by a commit
    while the job trains."""
    chart = Repository(platform.argo.repositories / "hone.git", platform.folder / "chart")
    folder = paths.SOURCE / "charts" / "hone"
    chart.commit({f"charts/hone/{f.relative_to(folder)}": f.read_text() for f in folder.rglob("*") if f.is_file()})
    here = {f: f.read_text().replace(PLACE, platform.argo.git.url("")) for f in EXAMPLE.rglob("*") if f.is_file()}
    platform.git.commit({str(f.relative_to(EXAMPLE)): text for f, text in here.items()})
    root = platform.folder / "root.yaml"
    root.write_text(here[EXAMPLE / "argocd" / "root.yaml"])
    platform.kubectl("apply", "--filename", str(root))
    apps = platform.apps
    apps.reaches("fine-tuning", "Synced", "Healthy")
    wait_until(lambda: platform.kube.call("GET", "/api/v1/namespaces/team-a"), "the namespace of team A")
    space = platform.space("team-a", exists=True)
    until_played(space, "materialize")
    apps.reaches("team-a-data", "Synced", "Healthy")
    until_played(space, "fetch")
    (run,) = space.until(lambda: training(space), "the job trains")
    pods = space.start_pods(run["name"])

    apps.reaches("hone", "Synced", "Progressing")
    tag = "9.9.9"
    chart.commit({"charts/hone/Chart.yaml": (folder / "Chart.yaml").read_text().replace("0.1.0", tag)})
    apps.reaches("hone", "Synced", "Progressing")
    deployment = platform.kube.call("GET", "/apis/apps/v1/namespaces/hone-system/deployments/hone")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"].endswith(f":{tag}")
    platform.operator.stop()
    platform.operator_starts()
    apps.reaches("team-a-jobs", "Synced", "Progressing")
    assert [job["uid"] for job in training(space)] == [run["uid"]]
    assert set(pods) <= set(space.names("Pod"))
    space.succeed(run["name"], gitops.RESULTS["training"])
    until_played(space, "verify")
    apps.reaches("team-a-jobs", "Synced", "Healthy")
    assert [a["number"] for a in space.get("FineTuneJob", "help-desk-1")["status"]["attempts"]] == [1]
    apps.reaches("team-a-model", "Synced", "Healthy")
    labels = platform.kube.call("GET", "/api/v1/namespaces/team-a")["metadata"]["labels"]
    assert labels["hone.dev/enabled"] == "true"
    apps.reaches("hone", "Synced", "Progressing")
    not_ready = {
        r["kind"] for r in apps.get("hone")["status"]["resources"] if r.get("health", {}).get("status") == "Progressing"
    }
    assert not_ready == {"Deployment"}, "nothing runs pods here"
    assert space.names("FineTuneJob") == ["help-desk-1"]


def test_the_account_of_the_guide_writes_what_a_team_keeps_in_git_and_nothing_else(platform: Platform) -> None:
    """Each way to apply; the objects of the guide, in a namespace of this test."""
    space, apps = platform.space(), platform.apps
    platform.kubectl("--namespace=argocd", "create", "serviceaccount", "team-a")
    (project,) = gitops.guide_objects("AppProject")
    project["spec"]["sourceRepos"] = ["*"]
    rights = {"apiVersion": "v1", "kind": "List", "items": gitops.guide_objects("Role")}
    files = {}
    for name, body in (("project", project), ("rights", rights)):
        files[name] = platform.folder / f"{name}.json"
        files[name].write_text(json.dumps(body).replace('"namespace": "team-a"', f'"namespace": "{space.name}"'))
    platform.kubectl("apply", "--validate=false", f"--filename={files['project']}")
    impersonation = '--patch={"data":{"application.sync.impersonation.enabled":"%s"}}'
    patch = ("--namespace=argocd", "patch", "configmap", "argocd-cm")
    platform.kubectl(*patch, impersonation % "true")
    try:
        platform.git.commit({f"{space.name}/{name}": text for name, text in gitops.of_team("0").items()})
        apps.create("few", f"{space.name}/few", space.name, automated=False, project="team-a")
        assert "forbidden" in str(apps.sync("few")["syncResult"])
        platform.kubectl("apply", f"--filename={files['rights']}")
        kinds = ("ConfigMap", "Dataset", "FineTuneJob", "Model")
        for revision, options in (("1", ()), ("2", ("ServerSideApply=true",)), ("3", ())):
            platform.git.commit({f"{space.name}/{name}": text for name, text in gitops.of_team(revision).items()})
            apps.refreshed("few")
            ended = apps.sync("few", *options)
            assert ended["phase"] == "Succeeded", ended["message"]
            for kind in kinds:
                assert space.get(kind, "few")["metadata"]["annotations"]["example.org/revision"] == revision
        assert apps.refreshed("few")["status"]["sync"]["status"] == "Synced"
        platform.git.commit({f"{space.name}/few/rights.yaml": yaml.safe_dump(gitops.FOREIGN)})
        apps.refreshed("few")
        refused = apps.sync("few")
        assert refused["phase"] == "Failed"
        (binding,) = (r for r in refused["syncResult"]["resources"] if r["kind"] == "RoleBinding")
        assert "forbidden" in binding["message"]
        left = {f"{space.name}/{name}": None for name in (*gitops.of_team(), "few/rights.yaml")}
        platform.git.commit({**left, f"{space.name}/few/.keep": ""})
        apps.refreshed("few")
        assert apps.sync("few", prune=True)["phase"] == "Succeeded"
        for kind in kinds:
            space.until(lambda kind=kind: "few" not in space.names(kind), f"the {kind} is pruned")
        log = platform.folder / "plane" / "logs" / "audit.log"
        assert gitops.writers(log, space.name) == {"system:serviceaccount:argocd:team-a"}
    finally:
        platform.kubectl(*patch, impersonation % "false")
