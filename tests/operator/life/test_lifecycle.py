"""The life of a job: the operator's process against a real API server; pods are played by hand."""

import json

import pytest

pytestmark = pytest.mark.apiserver


def test_a_job_becomes_a_verified_model_version(namespace, operator, spec, result):
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1 exists")
    pods = namespace.start_pods("run-1")
    namespace.until(lambda: namespace.condition("FineTuneJob", "run", "Running").get("status") == "True", "Running")
    for rank, pod in enumerate(pods):
        namespace.end_pod(pod, 0, {"result": result} if rank == 0 else None)
    namespace.end_job("run-1", "Complete")
    namespace.until(lambda: namespace.condition("FineTuneJob", "run", "Finished").get("status") == "True", "Finished")

    status = namespace.get("FineTuneJob", "run")["status"]
    assert status["phase"] == "Succeeded"
    assert status["modelVersionName"] == "tutor-v1"
    assert status["progress"]["summary"] == "12/12 100%"
    assert [a["outcome"] for a in status["attempts"]] == ["Succeeded"]

    version = namespace.get("ModelVersion", "tutor-v1")
    assert "ownerReferences" not in version["metadata"]
    uid = namespace.get("FineTuneJob", "run")["metadata"]["uid"]
    assert version["spec"]["artifacts"][0]["uri"] == f"pvc://hone-store/models/{uid}/adapter"
    assert version["spec"]["lineage"]["datasets"][0]["digest"] == "sha256:" + "0" * 64

    verify = namespace.until(lambda: [n for n in namespace.names("Job") if "verify" in n], "a verify Job")[0]
    namespace.succeed(verify, {"kind": "Verify", "files": 3, "sizeBytes": 7})
    namespace.until(lambda: namespace.condition("ModelVersion", "tutor-v1", "Ready").get("status") == "True", "Ready")
    assert namespace.get("ModelVersion", "tutor-v1")["status"]["evalLoss"] == "2.1"
    assert operator.stop() == 0


def is_true(namespace, kind, name, type_):
    return namespace.condition(kind, name, type_).get("status") == "True"


def reason(namespace, kind, name, type_):
    return namespace.condition(kind, name, type_).get("reason")


def test_nothing_stays_on_an_object_and_a_restart_writes_nothing(namespace, operator, spec):
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    namespace.start_pods("run-1")
    namespace.until(lambda: is_true(namespace, "FineTuneJob", "run", "Running"), "Running")
    for kind, name in (("FineTuneJob", "run"), ("Dataset", "rows"), ("Job", "run-1")):
        meta = namespace.get(kind, name)["metadata"]
        assert "finalizers" not in meta
        assert kind == "Job" or not meta.get("annotations"), "nothing is kept on what users own"
    operator.kill()
    before = {kind: namespace.list(kind) for kind in ("FineTuneJob", "Dataset", "Job", "ConfigMap", "Service")}
    operator.start()
    namespace.until(operator.ready, "the operator has looked at everything")
    namespace.create("FineTuneJob", "second", spec())
    namespace.until(lambda: namespace.get("Job", "second-1"), "it reconciles again")
    for kind, bodies in before.items():
        for body in bodies:
            now = namespace.get(kind, body["metadata"]["name"])
            assert now["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"], kind


@pytest.mark.faults("O15")
def test_what_is_missing_is_used_when_it_appears(namespace, operator, spec):
    namespace.create("FineTuneJob", "run", spec(model={"uri": "pvc://late/smol"}))
    namespace.until(
        lambda: reason(namespace, "FineTuneJob", "run", "DatasetReady") == "DatasetNotFound", "DatasetNotFound"
    )
    namespace.create("Dataset", "rows", {"source": {"uri": "configmap://answers/rows.jsonl"}})
    namespace.until(lambda: reason(namespace, "Dataset", "rows", "Ready") == "ConfigMapNotFound", "ConfigMapNotFound")
    assert namespace.names("Job") == []
    namespace.create("ConfigMap", "answers", data={"rows.jsonl": "{}"})
    job = namespace.until(lambda: namespace.names("Job"), "the materializing Job")[0]
    result = {"kind": "Materialize", "digest": "sha256:" + "1" * 64, "path": "datasets/1"}
    result |= {"rows": 10, "splits": [{"name": "train", "rows": 10}]}
    namespace.succeed(job, result)
    namespace.until(lambda: reason(namespace, "FineTuneJob", "run", "ModelReady") == "PVCNotFound", "PVCNotFound")
    namespace.claim("late")
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")


def test_tasks_of_the_harness_are_staged_before_a_run_asks_for_anything(namespace, operator, spec):
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec(evaluation={"harness": {"tasks": ["arc_easy"]}}))
    job = namespace.until(lambda: namespace.names("Job"), "the Job that stages them")[0]
    assert reason(namespace, "FineTuneJob", "run", "TasksReady") in (None, "Fetching")
    assert namespace.get("Job", job)["metadata"]["labels"]["hone.dev/component"] == "tasks"
    assert namespace.names("Job") == [job]
    pinned = f"allenai/ai2_arc@{'c' * 40}"
    staged = {"kind": "Tasks", "path": f"evaluation-tasks/{'e' * 64}", "digest": "sha256:" + "7" * 64}
    namespace.succeed(job, {**staged, "version": "0.4.13", "dataSets": [pinned]})
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    namespace.until(lambda: is_true(namespace, "FineTuneJob", "run", "TasksReady"), "TasksReady")
    resolved = namespace.get("FineTuneJob", "run")["status"]["resolved"]
    assert resolved["evaluationTasks"]["dataSets"] == [pinned]
    volumes = namespace.get("Job", "run-1")["spec"]["template"]["spec"]["volumes"]
    volume = next(v for v in volumes if v["name"] == "plan")
    plan = json.loads(namespace.get("ConfigMap", volume["configMap"]["name"])["data"]["plan.json"])
    assert plan["harnessTasks"]["path"] == f"/store/evaluation-tasks/{'e' * 64}"
    assert plan["evaluation"]["harness"]["limit"] == 200


@pytest.mark.faults("O14")
def test_suspend_reaches_the_job_and_goes_again(namespace, operator, spec):
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    namespace.patch("FineTuneJob", "run", {"spec": {"suspend": True}})
    namespace.until(lambda: namespace.get("Job", "run-1")["spec"]["suspend"], "the Job is suspended")
    namespace.until(lambda: is_true(namespace, "FineTuneJob", "run", "Suspended"), "Suspended")
    namespace.patch("FineTuneJob", "run", {"spec": {"suspend": False}})
    namespace.until(lambda: not namespace.get("Job", "run-1")["spec"]["suspend"], "the Job goes on")
    assert len(namespace.get("FineTuneJob", "run")["status"]["attempts"]) == 1


def test_a_failure_is_reported_and_final(namespace, operator, spec):
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    namespace.fail("run-1", 70, {"code": "Diverged", "message": "loss is nan at step 7", "rank": 1})
    namespace.until(lambda: is_true(namespace, "FineTuneJob", "run", "Failed"), "Failed")
    status = namespace.get("FineTuneJob", "run")["status"]
    assert status["failure"]["code"] == status["reason"] == "Diverged"
    assert [c["type"] for c in status["conditions"]][:3] == ["Ready", "Stalled", "Reconciling"]
    assert status["failure"]["rank"] == 1
    assert is_true(namespace, "FineTuneJob", "run", "Stalled")
    events = namespace.until(
        lambda: [e for e in namespace.list("Event") if e["reason"] == "Failed"], "the event of the failure"
    )
    assert events[0]["involvedObject"]["name"] == "run"
    assert namespace.names("ModelVersion") == []


@pytest.mark.faults("O19")
def test_a_foreign_job_is_left_alone(namespace, operator, spec):
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "foreign"}]}}
    namespace.create("Job", "run-1", {"template": template})
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: reason(namespace, "FineTuneJob", "run", "Admitted") == "NameTaken", "NameTaken")
    assert namespace.get("Job", "run-1")["spec"]["template"]["spec"]["containers"][0]["image"] == "foreign"


def test_version_numbers_of_many_runs_at_once_are_distinct(namespace, operator, spec, result):
    namespace.dataset()
    runs = [f"run{n}" for n in range(6)]
    for run in runs:
        namespace.create("FineTuneJob", run, spec(resources={"cpu": "1", "memory": "1Gi"}))
    for run in runs:
        namespace.until(lambda run=run: namespace.get("Job", f"{run}-1"), f"{run}-1")
        namespace.succeed(f"{run}-1", result)
    for run in runs:
        namespace.until(lambda run=run: is_true(namespace, "FineTuneJob", run, "Finished"), f"{run} finished")
    assert namespace.names("ModelVersion") == [f"tutor-v{n}" for n in range(1, 7)]
    namespace.delete("ModelVersion", "tutor-v6")
    namespace.create("FineTuneJob", "later", spec(resources={"cpu": "1", "memory": "1Gi"}))
    namespace.until(lambda: namespace.get("Job", "later-1"), "later-1")
    namespace.succeed("later-1", result)
    namespace.until(lambda: namespace.get("ModelVersion", "tutor-v7"), "a number that was never used")


def test_a_ledger_that_cannot_be_changed_is_named_with_the_way_out(namespace, operator, spec, result):
    """Whoever may create ConfigMaps can take its name, and make it immutable."""
    namespace.dataset()
    namespace.kube.call(
        "POST",
        f"/api/v1/namespaces/{namespace.name}/configmaps",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hone-model-versions"}, "immutable": True},
    )
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1 exists")
    namespace.succeed("run-1", result)
    namespace.until(lambda: reason(namespace, "FineTuneJob", "run", "Reconciling") == "WriteRefused", "it is told")
    words = namespace.condition("FineTuneJob", "run", "Reconciling")["message"]
    assert f"kubectl delete configmap hone-model-versions -n {namespace.name}" in words
    namespace.delete("ConfigMap", "hone-model-versions")
    namespace.until(lambda: is_true(namespace, "FineTuneJob", "run", "Succeeded"), "the run ends")
    assert namespace.get("FineTuneJob", "run")["status"]["modelVersionName"] == "tutor-v1"


def test_pods_are_admitted_where_pod_security_is_restricted(kube, namespace, operator, spec):
    kube.call(
        "PATCH",
        f"/api/v1/namespaces/{namespace.name}",
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
        "application/merge-patch+json",
    )
    namespace.dataset()
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1")
    assert len(namespace.start_pods("run-1")) == 2
