"""The cache: newer wins, deleted stays deleted, children by their controller."""

import pytest

from hone_operator.objects.cache import Cache, strip

pytestmark = pytest.mark.pure


def body(version: int, uid: str = "u", name: str = "x", **fields):
    metadata = {"namespace": "team", "name": name, "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata | fields.pop("metadata", {}), "spec": {}, "status": {}, **fields}


def owned(version: int, uid: str, name: str, owner: str):
    reference = {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "name": "x", "uid": owner}
    return body(version, uid, name, metadata={"ownerReferences": [{**reference, "controller": True}]})


def test_an_older_body_does_not_replace_a_newer_one():
    cache = Cache()
    assert cache.put("Dataset", body(9))
    assert not cache.put("Dataset", body(8))
    assert not cache.put("Dataset", body(9))
    assert cache.get("Dataset", "team", "x")["metadata"]["resourceVersion"] == "9"


def test_versions_are_numbers_not_text():
    cache = Cache()
    cache.put("Dataset", body(9))
    assert cache.put("Dataset", body(10))


def test_an_answer_that_comes_after_the_deletion_revives_nothing():
    cache = Cache()
    cache.put("Job", body(1))
    cache.remove("Job", body(2))
    assert not cache.put("Job", body(3))
    assert cache.get("Job", "team", "x") is None


def test_the_deletion_of_a_predecessor_leaves_its_successor():
    cache = Cache()
    cache.put("FineTuneJob", body(1, "old"))
    cache.put("FineTuneJob", body(5, "new"))
    cache.remove("FineTuneJob", body(4, "old"))
    assert cache.get("FineTuneJob", "team", "x")["metadata"]["uid"] == "new"


def test_children_are_those_whose_controller_it_is():
    cache = Cache()
    cache.put("Job", owned(1, "a", "run-1", "owner"))
    cache.put("Job", owned(1, "b", "run-2", "owner"))
    cache.put("Job", owned(1, "c", "other-1", "somebody"))
    cache.put("Pod", owned(1, "p", "pod", "owner"))
    parent = {"kind": "FineTuneJob", **body(1, "owner")}
    assert [j["metadata"]["name"] for j in cache.children(parent, "Job")] == ["run-1", "run-2"]
    cache.remove("Job", owned(2, "a", "run-1", "owner"))
    assert [j["metadata"]["name"] for j in cache.children(parent, "Job")] == ["run-2"]


def test_what_nobody_reads_is_not_kept():
    cache = Cache()
    index = "batch.kubernetes.io/job-completion-index"
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 1000, index: "1"}
    pod = body(1, metadata={"managedFields": [{}], "annotations": annotations})
    pod["spec"] = {"containers": [{"env": []}], "nodeName": "n1"}
    cache.put("Pod", pod)
    kept = cache.pod("team", "x")
    assert kept["spec"] == {"nodeName": "n1"}
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["annotations"] == {index: "1"}


def test_models_are_found_by_the_job_that_made_them():
    def version(uid, name, job, job_uid, namespace="team"):
        found = body(1, uid, name, spec={"lineage": {"job": {"name": job, "uid": job_uid}}})
        found["metadata"]["namespace"] = namespace
        return found

    cache = Cache()
    for made in (
        version("a", "m-v1", "run", "u1"),
        version("b", "m-v2", "run", "u2"),
        version("c", "x", "run", "u1", "z"),
    ):
        cache.put("ModelVersion", made)
    cache.put("ModelVersion", {**body(1, "d", "odd"), "spec": {"lineage": None}})

    def found(name, uid):
        return sorted(v["metadata"]["name"] for v in cache.made_by("team", name, uid))

    assert found("run", "u1") == ["m-v1", "m-v2"]
    assert found("renamed", "u2") == ["m-v2"]
    assert found("other", "u9") == []
    cache.remove("ModelVersion", version("a", "m-v1", "run", "u1"))
    assert found("run", "u1") == ["m-v2"]


def test_a_namespace_has_what_was_put_there_and_not_removed():
    cache = Cache()
    elsewhere = body(1, "e", metadata={"namespace": "another"})
    cache.put("Dataset", elsewhere)
    cache.put("Dataset", body(1, "old"))
    cache.put("Dataset", body(2, "new"))  # of the same name
    cache.put("Dataset", body(1, "y", "y"))
    cache.remove("Dataset", body(3, "old"))  # which has a successor
    assert [b["metadata"]["uid"] for b in cache.items("Dataset", "team")] == ["new", "y"]
    cache.remove("Dataset", body(3, "new"))
    cache.remove("Dataset", body(3, "y", "y"))
    assert cache.items("Dataset", "team") == []
    assert [b["metadata"]["uid"] for b in cache.items("Dataset")] == ["e"]
    assert not [key for key in cache._in_namespace if "team" in key], "namespaces come and go"


def test_the_jobs_that_name_a_dataset_or_a_model_are_found_until_they_name_it_no_more():
    def job(version: int, spec):
        return body(version, "j", "run", spec={"model": {"uri": "hf://o/n"}, **spec})

    def users(kind: str, name: str) -> list[str]:
        return [found["metadata"]["name"] for found in cache.users(kind, "team", name)]

    cache = Cache()
    held_out = {"evaluation": {"retention": {"datasets": [{"name": "kept"}]}}}
    cache.put("FineTuneJob", job(1, {"datasets": [{"name": "rows"}], **held_out}))
    assert (users("Dataset", "rows"), users("Dataset", "kept"), users("ModelVersion", "rows")) == (["run"], ["run"], [])
    cache.put("FineTuneJob", job(2, {"datasets": [{"name": "others"}], "model": {"modelVersion": "tutor-v1"}}))
    assert (users("Dataset", "rows"), users("Dataset", "others")) == ([], ["run"])
    assert users("ModelVersion", "tutor-v1") == ["run"]
    cache.remove("FineTuneJob", job(3, {}))
    assert (users("Dataset", "others"), users("ModelVersion", "tutor-v1"), cache._users) == ([], [], {})


def test_a_job_of_another_schema_is_kept_and_names_nothing():
    cache = Cache()
    assert cache.put("FineTuneJob", body(1, "j", "run", spec={"datasets": [{"title": "rows"}]}))
    assert cache.users("Dataset", "team", "rows") == []


def test_of_all_workloads_only_those_of_our_jobs_are_kept():
    cache = Cache()
    job = {"apiVersion": "batch/v1", "kind": "Job", "name": "run-1", "uid": "j", "controller": True}
    workload = body(2, "w", "job-run-1", metadata={"ownerReferences": [job]})
    assert not cache.is_kept("Workload", workload)
    cache.put("Job", {"kind": "Job", **body(1, "j", "run-1")})
    assert cache.is_kept("Workload", workload)
    other = body(2, "w", "job-run-1", metadata={"ownerReferences": [{**job, "uid": "another Job of that name"}]})
    assert not cache.is_kept("Workload", other)
    cache.put("Workload", workload)
    cache.remove("Job", body(3, "j", "run-1"))
    assert cache.is_kept("Workload", workload), "its deletion must be seen"


@pytest.mark.parametrize("kind", ["Model", "ModelVersion", "Job"])
def test_a_request_for_another_attempt_is_kept_and_other_annotations_are_not(kind: str) -> None:
    annotations = {"hone.dev/retry": "1", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    body = {"metadata": {"name": "a", "namespace": "ns", "uid": "u", "annotations": annotations}, "spec": {}}
    assert strip(kind, body)["metadata"]["annotations"] == {"hone.dev/retry": "1"}
