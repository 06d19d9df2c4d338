"""`hone sweep` at a real API server: the statuses of its jobs are played, the rest is as it is."""

from __future__ import annotations

import contextlib
import json
import threading
import time

import pytest
import yaml
from support.cluster.hand import AT, conditions
from support.cluster.rights import Account, token
from typer.testing import CliRunner

from hone_cli.__main__ import application
from hone_cli.errors import CliExit, CommandError
from hone_cli.reach.kube import ServerRefusalError
from hone_cli.reach.objects import Objects
from hone_cli.runs import sweep as command

pytestmark = pytest.mark.apiserver
MANIFEST = """\
apiVersion: hone.dev/v1alpha1
kind: Dataset
metadata: {name: rows}
spec: {source: {uri: pvc://data/rows.jsonl}, suspend: true}
---
apiVersion: hone.dev/v1alpha1
kind: FineTuneJob
metadata: {name: job, labels: {team: support}}
spec:
  model: {uri: hf://Qwen/Qwen2.5-0.5B-Instruct}
  datasets: [{name: rows}]
  evaluation: {against: "models://bot@champion", maxRows: 64}
  output: {modelName: bot, merge: true, push: [{uri: "s3://bucket/models", secretName: hone-s3}]}
"""
RANKS = ("--vary", "adapter.rank=4,8,32", "--trials", "4", "--yes")
VALUES = {"4": "1.2", "8": "0.8", "32": "1.0", "": "1.0"}
"""Loss by rank; without one it is that of the manifest."""


def rank_of(job):
    return str(json.loads(job["metadata"]["annotations"]["hone.dev/sweep-settings"]).get("adapter.rank", ""))


def succeeds(namespace, job):
    """As the operator writes it: a version with numbers next to those of `evaluation.against`."""
    name, model = job["metadata"]["name"], job["spec"]["output"]["modelName"]
    number = 1 + len(namespace.names("ModelVersion"))
    lineage = {"baseModel": {"uri": "hf://owner/base@main"}, "datasets": [], "job": {"name": name, "uid": "x"}}
    artifact = {"format": "Adapter", "uri": "pvc://hone-store/models/1/adapter", "digest": f"sha256:{'0' * 64}"}
    measured = {"name": "loss", "tuned": VALUES[rank_of(job)], "rows": 64}
    if job["spec"]["evaluation"].get("against"):
        difference = float(measured["tuned"]) - 1
        ends = {"againstLow": f"{difference - 0.05}", "againstHigh": f"{difference + 0.05}"}
        measured |= {"against": "1.0", **ends}
    spec = {"modelName": model, "version": number, "artifacts": [{**artifact, "sizeBytes": 1}]}
    spec |= {"lineage": lineage | {"method": "SFT", "seed": 1}, "evaluation": {"numbers": [measured]}}
    namespace.create("ModelVersion", f"{model}-v{number}", spec)
    ended = {"phase": "Succeeded", "modelVersionName": f"{model}-v{number}", "completionTime": "2026-01-01T01:00:00Z"}
    status = {**ended, "startTime": AT, "conditions": conditions("Finished", "Succeeded")}
    namespace.patch("FineTuneJob", name, {"status": status}, "status")


def fails(namespace, job):
    failure = {"failure": {"code": "GpuOutOfMemory", "message": "rank 0", "hint": "Ask for more."}}
    status = {"phase": "Failed", "conditions": conditions("Finished", "Failed"), **failure}
    namespace.patch("FineTuneJob", job["metadata"]["name"], {"status": status}, "status")


@pytest.fixture
def play(namespace):
    """Ends each trial as soon as it is there."""
    done, stop = [], threading.Event()

    def follow(end):
        def loop():
            while not stop.wait(0.05):
                for name in sorted(set(namespace.names("FineTuneJob")) - set(done)):
                    with contextlib.suppress(RuntimeError):  # deleted meanwhile
                        job = namespace.get("FineTuneJob", name)
                        end(namespace, job)
                        done.append(name)

        thread = threading.Thread(target=loop)
        thread.start()
        threads.append(thread)

    threads: list[threading.Thread] = []
    yield follow
    stop.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def sweep(namespace, apiserver, monkeypatch, tmp_path):
    """Runs `hone sweep` of the manifest as a script does."""
    monkeypatch.setattr(command, "SECONDS", 0.1)
    (tmp_path / "job.yaml").write_text(MANIFEST)

    def run(*words, kubeconfig=apiserver):
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        arguments = ["sweep", str(tmp_path / "job.yaml"), *words, "--namespace", namespace.name]
        return CliRunner().invoke(application(["sweep"]), arguments)

    return run


def refused(done, words):
    assert isinstance(done.exception, CommandError), done
    assert words in str(done.exception)


def test_a_sweep_ends_in_the_manifest_to_keep_with_its_evidence(namespace, sweep, play, tmp_path) -> None:
    play(succeeds)
    done = sweep(*RANKS)
    assert done.exit_code == 0, done.stderr
    assert "trial 1 (the manifest as it is) loss 1; 1 hours" in done.stderr
    assert "The sweep is over: 4 trials. Trial " in done.stderr
    dataset, job = yaml.safe_load_all(done.stdout)
    assert dataset["kind"] == "Dataset"
    assert job["metadata"] == {"name": "job", "labels": {"team": "support"}}
    assert job["spec"]["adapter"] == {"rank": 8}
    before = [*yaml.safe_load_all(MANIFEST)][1]["spec"]
    assert {key: value for key, value in job["spec"].items() if key != "adapter"} == before
    evidence = [line for line in done.stdout.splitlines() if line.startswith("#")]
    assert any("loss 0.8, -0.2 [-0.25, -0.15]" in line for line in evidence), evidence

    jobs = {name: namespace.get("FineTuneJob", name) for name in namespace.names("FineTuneJob")}
    assert sorted(jobs) == [f"job-sweep-{number}" for number in (1, 2, 3, 4)]
    for name, trial in jobs.items():
        number = int(name.rpartition("-")[2])
        assert trial["metadata"]["labels"] == {
            "team": "support",
            "hone.dev/sweep": "job-sweep",
            "hone.dev/sweep-trial": str(number),
        }
        output = trial["spec"]["output"]
        assert (output["modelName"], output["deletionPolicy"]) == ("job-sweep", "Delete")
        assert "push" not in output  # only the model that is kept is delivered
        assert trial["spec"]["evaluation"]["maxRows"] == 64
        assert trial["spec"]["evaluation"].get("against") == (None if number == 1 else "job-sweep-v1")
    again = sweep(*RANKS, "-o", "json")
    assert sorted(namespace.names("FineTuneJob")) == sorted(jobs)
    result = json.loads(again.stdout)
    assert result["trials"][result["best"] - 1]["settings"] == {"adapter.rank": 8}
    assert (result["better"], result["chosen"], result["metric"]) == (True, result["best"], "loss")


def test_a_sweep_that_is_ended_goes_on_where_it_was(namespace, sweep, play, monkeypatch) -> None:
    looks = []

    def interrupted(seconds):
        looks.append(seconds)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command.time, "sleep", interrupted)
        done = sweep(*RANKS)
    assert (done.exit_code, len(looks)) == (130, 1)
    assert "The same command goes on with them." in done.stderr
    first = namespace.get("FineTuneJob", "job-sweep-1")["metadata"]["uid"]
    play(succeeds)
    assert sweep(*RANKS).exit_code == 0
    assert namespace.get("FineTuneJob", "job-sweep-1")["metadata"]["uid"] == first
    assert sorted(namespace.names("FineTuneJob")) == [f"job-sweep-{number}" for number in (1, 2, 3, 4)]


def test_two_loops_of_one_sweep_start_each_trial_once(namespace, sweep, play, monkeypatch) -> None:
    """Whoever comes second finds the job of the first."""
    play(succeeds)
    create = command._Running.body
    seen = []

    def slow(self, number, settings, hours):
        body = create(self, number, settings, hours)
        if number == 2 and not seen:
            seen.append(number)
            self.objects.create(body)  # the other loop
        return body

    monkeypatch.setattr(command._Running, "body", slow)
    assert sweep(*RANKS).exit_code == 0
    assert seen == [2]
    assert len(namespace.names("FineTuneJob")) == 4


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ("adapter.rank=8,5000", "--vary adapter.rank: 5000 is refused: spec.adapter.rank"),
        ("training.learningRate=1e-5..7", "--vary training.learningRate: 7.0 is refused"),
        ("dpo.beta=0.1,0.2", "--vary dpo.beta: 0.1 is refused"),
        ("adapter.type=LoRA,Lora", "--vary adapter.type: Lora is refused: spec.adapter.type"),
    ],
)
def test_a_value_that_would_be_refused_is_refused_before_the_first_trial(namespace, sweep, vary, words) -> None:
    done = sweep("--vary", vary, "--yes")
    assert (done.exit_code, namespace.names("FineTuneJob"), namespace.names("Dataset")) == (3, [], [])
    assert words in done.stderr


def test_nothing_starts_unasked(namespace, sweep) -> None:
    refused(sweep(*RANKS[:-1]), "nothing was started: add --yes")
    assert namespace.names("FineTuneJob") == []


def test_names_that_are_taken_are_named(namespace, sweep, play) -> None:
    job = [*yaml.safe_load_all(MANIFEST)][1]["spec"]
    namespace.create("FineTuneJob", "job-sweep-1", {**job, "suspend": True})
    done = sweep(*RANKS)
    assert done.exit_code != 0
    assert namespace.names("FineTuneJob") == ["job-sweep-1"]
    play(lambda space, job: succeeds(space, job) if "sweep-trial" in str(job["metadata"]) else None)
    assert sweep(*RANKS, "--name", "other").exit_code == 0
    refused(sweep("--vary", "adapter.rank=4,16", "--yes", "--name", "other"), "trials of another manifest")
    for name in ("x" * 46, "a,team=b", "-l", "a;rm", "A", "1a"):
        refused(sweep(*RANKS, f"--name={name}"), "at most 45 characters")


def test_a_name_that_is_taken_later_counts_as_a_refused_trial(namespace, sweep, play) -> None:
    job = [*yaml.safe_load_all(MANIFEST)][1]["spec"]
    namespace.create("FineTuneJob", "job-sweep-3", {**job, "suspend": True})
    play(lambda space, job: succeeds(space, job) if "sweep-trial" in str(job["metadata"]) else None)
    done = sweep(*RANKS)
    assert done.exit_code == 0, done.stderr
    assert "trial 3 is refused: " in done.stderr
    assert "job-sweep-4" in namespace.names("FineTuneJob")


def test_an_api_server_in_trouble_is_asked_again_later(namespace, sweep, play, monkeypatch) -> None:
    play(succeeds)
    create, slept, asked = Objects.create, [], []

    def troubled(self, body, *, dry_run=False):
        asked.append(dry_run)
        if not dry_run and len(asked) < 12:
            error = ServerRefusalError("too many requests")
            error.passes = True
            raise error
        return create(self, body, dry_run=dry_run)

    monkeypatch.setattr(Objects, "create", troubled)
    sleep = time.sleep
    monkeypatch.setattr(command.time, "sleep", lambda seconds: (slept.append(seconds), sleep(0.01)))
    assert sweep(*RANKS).exit_code == 0
    assert len(slept) >= 11 - sum(asked)


def test_what_is_printed_is_what_the_trials_had(namespace, sweep, play, tmp_path) -> None:
    """Not a Dataset or a setting that somebody has changed meanwhile, nor a Secret, nor a number for a text."""
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {key: hunter2}\n---\n"
    (tmp_path / "job.yaml").write_text(
        secret + MANIFEST.replace("spec:\n", "spec:\n  training: {learningRate: 1e-4}\n")
    )
    play(succeeds)
    done = sweep(*RANKS)
    assert done.exit_code == 0, done.stderr
    assert "learningRate: '1e-4'" in done.stdout
    assert "# Secret key is not repeated here" in done.stdout
    assert "hunter2" not in done.output
    change = {"metadata": {"annotations": {"hone.dev/sweep-settings": '{"model.uri": "hf://evil/base"}'}}}
    namespace.patch("FineTuneJob", "job-sweep-2", change)
    refused(sweep(*RANKS), "says that it varies model.uri")
    before = (tmp_path / "job.yaml").read_text()
    (tmp_path / "job.yaml").write_text(before.replace("data/rows.jsonl", "data/other.jsonl"))
    refused(sweep(*RANKS), "trials of another manifest")


def test_a_trial_that_fails_does_not_end_the_sweep(namespace, sweep, play) -> None:
    play(lambda space, job: fails(space, job) if rank_of(job) == "8" else succeeds(space, job))
    done = sweep(*RANKS)
    assert done.exit_code == 0, done.stderr
    assert "has failed: GpuOutOfMemory: hone explain GpuOutOfMemory" in done.stderr
    assert [*yaml.safe_load_all(done.stdout)][1]["spec"].get("adapter") is None  # as it was


def test_if_all_trials_fail_the_sweep_ends(namespace, sweep, play) -> None:
    play(fails)
    done = sweep(*RANKS)
    assert (done.exit_code, done.stdout) == (CliExit.RUN_FAILED, "")
    started = len(namespace.names("FineTuneJob"))
    assert started in (3, 4)  # the fourth starts if two of them have failed by then, and one has not
    assert f"all of {started} trials have failed" in done.stderr


def test_a_trial_that_falls_behind_is_suspended(namespace, sweep, play) -> None:
    """By its curve in the status; the job keeps its checkpoint."""
    slow = {"phase": "Running", "conditions": conditions("Running"), "progress": {"step": 50, "totalSteps": 100}}
    slow["metrics"] = [{"name": "eval_loss", "curve": "10:9 20:9 30:9 40:9 50:9"}]
    good = [{"name": "eval_loss", "curve": "10:4 20:3 30:2 40:1 50:1"}]

    def end(space, job):
        if rank_of(job) == "32" and job["metadata"]["labels"]["hone.dev/sweep-trial"] != "1":
            space.patch("FineTuneJob", job["metadata"]["name"], {"status": slow}, "status")
            return
        succeeds(space, job)
        status = {"metrics": good, "progress": {"step": 100, "totalSteps": 100}}
        space.patch("FineTuneJob", job["metadata"]["name"], {"status": status}, "status")

    play(end)
    done = sweep(*RANKS)
    assert done.exit_code == 0, done.stderr
    (stopped,) = [
        job
        for name in namespace.names("FineTuneJob")
        if "hone.dev/sweep-stopped" in (job := namespace.get("FineTuneJob", name))["metadata"]["annotations"]
    ]
    assert stopped["spec"]["suspend"] is True
    assert "is stopped: worse than the median of the finished trials at 50 % of the steps" in done.stderr


def test_who_may_only_look_sees_which_right_is_missing(namespace, sweep, kube, apiserver, tmp_path) -> None:
    path, meta = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace.name}", {"name": "looks"}
    rules = [{"apiGroups": ["hone.dev"], "resources": ["*"], "verbs": ["get", "list"]}]
    kube.call("POST", f"{path}/roles", {"metadata": meta, "rules": rules})
    namespace.create("ServiceAccount", "looks")
    subject = {"kind": "ServiceAccount", "name": "looks", "namespace": namespace.name}
    reference = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "looks"}}
    kube.call("POST", f"{path}/rolebindings", {"metadata": meta, **reference, "subjects": [subject]})
    account = Account(kube, token(kube, namespace.name, "looks"))
    home = f"/apis/hone.dev/v1alpha1/namespaces/{namespace.name}/finetunejobs"
    namespace.until(lambda: account.call("GET", home).code == 200, "the role is in force")
    done = sweep(*RANKS, kubeconfig=account.kubeconfig(apiserver, tmp_path / "looks"))
    assert done.exit_code == CliExit.REFUSED
    assert 'cannot create resource "finetunejobs"' in done.stderr
    assert namespace.names("FineTuneJob") == []
