"""A Model whose job is repeated on new rows, at a real API server."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.apiserver


def train(namespace, name, result):
    """A job's first attempt, which ends well, as rank 0 reports it."""
    namespace.until(lambda: namespace.get("Job", f"{name}-1"), "attempt 1")
    namespace.succeed(f"{name}-1", result)


def repeat(namespace, spec, result, retrain):
    """Train the job `run`, then ask that its Model repeats it."""
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    train(namespace, "run", result)
    namespace.until(lambda: namespace.condition("FineTuneJob", "run", "Finished").get("status") == "True", "its end")
    ask(namespace, retrain)
    namespace.until(lambda: reason(namespace) == "Trained", "the run trained on these rows")


def ask(namespace, retrain):
    namespace.until(lambda: namespace.get("Model", "tutor"), "the Model")
    body = {"fineTuneJob": "run", "minInterval": "0s", "quietPeriod": "0s", **retrain}
    namespace.patch("Model", "tutor", {"spec": {"retrain": body}})


def reason(namespace):
    return namespace.condition("Model", "tutor", "UpToDate").get("reason")


def change(namespace, digit, rows, added):
    """New content of the Dataset."""
    changes = {"previous": "sha256:" + "0" * 64, "added": added, "removed": 0}
    status = {"digest": "sha256:" + digit * 64, "rows": rows, "changes": changes}
    namespace.patch("Dataset", "rows", {"status": status}, "status")


def test_new_rows_make_one_job_that_goes_with_its_model(namespace, operator, spec, result):
    repeat(namespace, spec, result, {"rows": {"atLeast": 5}})
    change(namespace, "1", rows=107, added=7)
    namespace.until(lambda: len(namespace.names("FineTuneJob")) == 2, "a second job")
    [name] = set(namespace.names("FineTuneJob")) - {"run"}
    namespace.until(lambda: namespace.get("Job", f"{name}-1"), "its attempt 1")
    namespace.until(lambda: namespace.get("FineTuneJob", name).get("status"), "its status, which is written after that")
    job, first = namespace.get("FineTuneJob", name), namespace.get("FineTuneJob", "run")
    assert {k: v for k, v in job["spec"].items() if k != "suspend"} == {
        k: v for k, v in first["spec"].items() if k != "suspend"
    }
    [owner] = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Model", namespace.get("Model", "tutor")["metadata"]["uid"])
    assert job["status"]["resolved"]["datasetDigests"] == {"rows": "sha256:" + "1" * 64}
    namespace.until(lambda: reason(namespace) == "Retraining", "it waits for the job")
    status = namespace.get("Model", "tutor")["status"]["retrain"]
    assert status["lastJob"] == name
    assert [d["changedRows"] for d in status["datasets"]] == [0]
    assert "retrain" in namespace.get("Model", "tutor")["spec"], "no machine writes a spec"


def test_old_repetitions_are_deleted_and_their_versions_stay(namespace, operator, spec, result):
    repeat(namespace, spec, result, {"rows": {"atLeast": 5}, "successfulJobsHistoryLimit": 1})

    def on_new_rows(digit):
        before = set(namespace.names("FineTuneJob"))
        change(namespace, digit, rows=107, added=7)
        namespace.until(lambda: set(namespace.names("FineTuneJob")) - before, "a job on it")
        [name] = set(namespace.names("FineTuneJob")) - before
        train(namespace, name, result)
        namespace.until(lambda: namespace.condition("FineTuneJob", name, "Finished").get("status") == "True", "its end")
        return name

    on_new_rows("1")
    second = on_new_rows("2")
    namespace.until(lambda: set(namespace.names("FineTuneJob")) == {"run", second}, "the deletion of the first")
    assert len(namespace.names("ModelVersion")) == 3


def hone(kubeconfig, *words):
    """A command of a person: exit code and what it prints."""
    command = [sys.executable, "-m", "hone_cli", *words]
    env = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_person_asks_for_a_job_on_few_new_rows(namespace, operator, apiserver, spec, result):
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    train(namespace, "run", result)
    namespace.until(lambda: namespace.get("Model", "tutor"), "the Model")
    code, words = hone(apiserver, "retrain", "tutor", "-n", namespace.name)
    assert (code, "Model tutor has no spec.retrain" in words) == (1, True)
    ask(namespace, {})
    namespace.until(lambda: reason(namespace) == "Trained", "the run trained on these rows")
    change(namespace, "1", rows=101, added=1)
    namespace.until(lambda: reason(namespace) == "WaitingForRows", "nothing asks for a job")
    before = namespace.get("Model", "tutor")["spec"]
    code, words = hone(apiserver, "retrain", "tutor", "-n", namespace.name)
    assert (code, words.startswith("Requested.")) == (0, True), words
    namespace.until(lambda: len(namespace.names("FineTuneJob")) == 2, "a second job")
    model = namespace.get("Model", "tutor")
    assert model["spec"] == before, "a GitOps tool finds nothing to set back"
    assert model["status"]["retrain"]["lastStart"] >= model["metadata"]["annotations"]["hone.dev/retrain-requested-at"]
    code, words = hone(apiserver, "retrain", "none", "-n", namespace.name)
    assert (code, "has no Model none" in words) == (1, True)


def test_a_new_commit_of_the_base_makes_one_job(namespace, operator, spec, result):
    old, new = "a" * 40, "b" * 40
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec(model={"uri": "hf://org/model@main"}))
    [fetch] = namespace.until(lambda: namespace.names("Job"), "the fetch")
    folder = {"path": f"base-models/org--model/{old}", "digest": "sha256:" + "0" * 64, "sizeBytes": 1}
    namespace.succeed(fetch, {"kind": "Fetch", "commit": old, **folder})
    train(namespace, "run", result)
    ask(namespace, {"base": {}})

    def look():
        return [name for name in namespace.names("Job") if "-lookup-" in name]

    [name] = namespace.until(look, "a look at the hub")
    assert "persistentVolumeClaim" not in str(namespace.get("Job", name)["spec"]), "it mounts no store"
    namespace.succeed(name, {"kind": "Lookup", "commit": new})
    namespace.until(lambda: len(namespace.names("FineTuneJob")) == 2, "a job on the new base")
    base = namespace.get("Model", "tutor")["status"]["retrain"]["base"]
    assert (base["uri"], base["present"], base["trained"]) == ("hf://org/model@main", new, new)
    namespace.until(lambda: not look(), "the answer is in the status")


@pytest.mark.parametrize(
    ("retrain", "why"),
    [
        ({"fineTuneJob": "run", "rows": {}}, "set exactly one of atLeast and share"),
        ({"fineTuneJob": "run", "rows": {"atLeast": 1, "share": "1%"}}, "set exactly one of atLeast and share"),
        ({"fineTuneJob": "run", "times": {}}, "set exactly one of every and schedule"),
    ],
)
def test_what_says_nothing_or_two_things_is_refused(namespace, retrain, why):
    with pytest.raises(RuntimeError, match=why):
        namespace.create("Model", "tutor", {"retrain": retrain})
