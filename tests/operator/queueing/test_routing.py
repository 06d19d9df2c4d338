"""Which objects a change concerns."""

from __future__ import annotations

from typing import Any

import pytest

from hone_operator.objects.cache import Cache
from hone_operator.queueing.routing import keys_concerned

pytestmark = pytest.mark.pure


def body(kind: str, name: str, namespace: str = "team", **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}", "resourceVersion": "1"}
    return {"kind": kind, "metadata": meta, "spec": spec}


def owner(api_version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": "x", "controller": True}


def keys(changed: dict[str, Any], *others: dict[str, Any]) -> list[str]:
    cache = Cache()
    for other in (changed, *others):
        cache.put(other["kind"], other)
    return sorted(map(str, keys_concerned(changed["kind"], changed, cache)))


def test_a_dataset_concerns_those_whose_rows_must_not_hold_its_own() -> None:
    contamination = {"contamination": {"datasets": [{"name": "exam"}]}}
    names_it = body("Dataset", "rows", curation=contamination)
    elsewhere = body("Dataset", "rows", "other", curation=contamination)
    others = (names_it, elsewhere, body("Dataset", "plain", curation={"deduplicate": "Near"}))
    contents = "Contents team/hone-contents"
    assert keys(body("Dataset", "exam"), *others) == [contents, "Dataset team/exam", "Dataset team/rows"]


def test_a_model_version_concerns_the_datasets_whose_rows_it_scores() -> None:
    names_it = body("Dataset", "rows", curation={"scores": [{"modelVersion": "judge-v1"}, {"scorer": "Quality"}]})
    found = keys(body("ModelVersion", "judge-v1"), names_it, body("Dataset", "plain"))
    assert found == ["Dataset team/rows", "ModelVersion team/judge-v1"]


def test_a_job_and_its_model_concern_the_jobs_that_begin_with_it() -> None:
    first = body("FineTuneJob", "first", model={"uri": "hf://a/b"})
    second = body("FineTuneJob", "second", model={"fineTuneJob": "first"})
    third = body("FineTuneJob", "third", model={"fineTuneJob": "second"})
    elsewhere = body("FineTuneJob", "other", "other", model={"fineTuneJob": "first"})
    done = body("FineTuneJob", "done", model={"fineTuneJob": "first"})
    done["status"] = {"conditions": [{"type": "Finished", "status": "True"}]}
    others = (second, third, elsewhere, done)
    assert keys(first, *others) == ["FineTuneJob team/first", "FineTuneJob team/second"]
    version = body("ModelVersion", "first-v1", lineage={"job": {"name": "first"}})
    made = ["FineTuneJob team/first", "FineTuneJob team/second", "ModelVersion team/first-v1"]
    assert keys(version, first, *others) == made, "the job that made it may have lost its status"


def test_a_job_that_was_deleted_waits_for_nothing() -> None:
    cache, second = Cache(), body("FineTuneJob", "second", model={"fineTuneJob": "first"})
    cache.put("FineTuneJob", second)
    cache.remove("FineTuneJob", second)
    first = body("FineTuneJob", "first", model={"uri": "hf://a/b"})
    cache.put("FineTuneJob", first)
    assert [str(key) for key in keys_concerned("FineTuneJob", first, cache)] == ["FineTuneJob team/first"]


def test_an_object_that_goes_may_leave_rows_behind() -> None:
    cache, gone = Cache(), body("ModelVersion", "tutor-v1")
    assert [str(key) for key in keys_concerned("ModelVersion", gone, cache)] == [
        "ModelVersion team/tutor-v1",
        "Contents team/hone-contents",
    ]
    cache.put("ModelVersion", gone)
    assert [str(key) for key in keys_concerned("ModelVersion", gone, cache)] == ["ModelVersion team/tutor-v1"]


def test_a_job_that_goes_referred_to_rows() -> None:
    job = body("Job", "run-1")
    job["metadata"]["ownerReferences"] = [owner("hone.dev/v1alpha1", "FineTuneJob", "run")]
    assert keys(job) == ["FineTuneJob team/run"]
    gone = [str(key) for key in keys_concerned("Job", job, Cache())]
    assert gone == ["FineTuneJob team/run", "Contents team/hone-contents"]


def test_a_job_that_encodes_rows_concerns_the_contents_and_who_waits() -> None:
    """Deleting the last object that names an encoded split must find it in the ledger."""
    waiting = body("FineTuneJob", "first")
    for component, also in (("encode", ["Contents team/hone-contents"]), ("fetch", [])):
        job = body("Job", f"{component}-1")
        job["metadata"]["labels"] = {"hone.dev/component": component}
        job["metadata"]["ownerReferences"] = [owner("v1", "PersistentVolumeClaim", "hone-store")]
        assert keys(job, waiting) == [*also, "FineTuneJob team/first"]


def test_a_job_that_removes_rows_concerns_the_contents() -> None:
    job = body("Job", "hone-sweep-1")
    job["metadata"]["ownerReferences"] = [owner("v1", "ConfigMap", "hone-contents")]
    assert keys(job) == ["Contents team/hone-contents"]


class Watched(Cache):
    """Notes the namespaces of all that is looked through."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_through: set[str] = set()

    def items(self, *which: Any) -> list[dict[str, Any]]:
        found = list(super().items(*which))
        self.looked_through |= {one["metadata"]["namespace"] for one in found}
        return found


@pytest.mark.parametrize("kind", ["FineTuneJob", "Dataset", "ModelVersion", "Job", "Pod"])
def test_a_change_costs_no_look_at_other_namespaces(kind: str) -> None:
    """With 5,000 jobs in 100 namespaces each change of a Dataset held the operator up for 37 ms."""
    cache = Watched()
    for namespace in ("team", "another", "third"):
        cache.put("FineTuneJob", body("FineTuneJob", "run", namespace, model={}, datasets=[{"name": "changed"}]))
        cache.put("Dataset", body("Dataset", "rows", namespace))
    changed = body(kind, "changed", model={}) if kind == "FineTuneJob" else body(kind, "changed")
    cache.put(kind, changed)
    found = keys_concerned(kind, changed, cache)
    assert cache.looked_through <= {"team"}
    assert {key.namespace for key in found} <= {"team"}
    if kind == "Dataset":
        assert "FineTuneJob team/run" in map(str, found)
