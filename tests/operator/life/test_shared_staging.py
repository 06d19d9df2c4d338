"""One Job stages a base model for all FineTuneJobs of a namespace, and goes when none of them asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.cluster.hand import Namespace
from support.cluster.operator_process import Operator

pytestmark = pytest.mark.apiserver
JOBS = 100
FETCHED = {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": "c" * 40}


def reasons(namespace: Namespace) -> set[str | None]:
    """Reasons of ModelReady of all jobs."""
    found = set()
    for job in namespace.list("FineTuneJob"):
        conditions = (job.get("status") or {}).get("conditions", [])
        found.add(next((c["reason"] for c in conditions if c["type"] == "ModelReady"), None))
    return found


def test_many_jobs_share_one_staging_job(
    namespace: Namespace, operator: Operator, spec: Callable[..., dict[str, Any]]
) -> None:
    wanted = spec(model={"uri": "hf://org/model"})
    for number in range(JOBS):
        namespace.create("FineTuneJob", f"run{number}", wanted)
    namespace.until(lambda: reasons(namespace) == {"WaitingForDataset"}, "all wait for the Dataset")
    assert namespace.names("Job") == []
    namespace.dataset()
    namespace.until(lambda: reasons(namespace) == {"Fetching"}, "all wait for the base model")
    (job,) = namespace.list("Job")
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("PersistentVolumeClaim", "hone-store")
    assert owner["uid"] == namespace.get("PersistentVolumeClaim", "hone-store")["metadata"]["uid"]
    plans = [c for c in namespace.list("ConfigMap") if "hone.dev/content" in c["metadata"].get("labels", {})]
    assert [c["metadata"]["ownerReferences"][0]["uid"] for c in plans] == [job["metadata"]["uid"]]

    namespace.fail(job["metadata"]["name"], 69, {"code": "SourceUnreachable", "message": "no route"})
    namespace.until(lambda: reasons(namespace) == {"SourceUnreachable"}, "the failure is told to all")
    first = job["metadata"]["name"]
    (second,) = namespace.until(lambda: [n for n in namespace.names("Job") if n != first], "the next attempt")
    assert reasons(namespace) == {"SourceUnreachable"}, "it stays in view"
    namespace.succeed(second, FETCHED)
    namespace.until(lambda: reasons(namespace) == {"Available"}, "all have the model")
    namespace.until(lambda: len(namespace.names("Job")) == JOBS + 1, "all train")


def test_it_goes_with_the_last_job_that_asks_for_it(
    namespace: Namespace, operator: Operator, spec: Callable[..., dict[str, Any]]
) -> None:
    namespace.dataset()
    for name in ("one", "two"):
        namespace.create("FineTuneJob", name, spec(model={"uri": "hf://org/model"}))
    namespace.until(lambda: reasons(namespace) == {"Fetching"}, "both wait")
    (job,) = namespace.names("Job")
    namespace.delete("FineTuneJob", "one")
    namespace.create("FineTuneJob", "other", spec(model={"uri": "hf://org/other"}))
    namespace.until(lambda: len(namespace.names("Job")) == 2, "other work has a Job of its own")
    assert job in namespace.names("Job")
    namespace.delete("FineTuneJob", "two")
    namespace.until(lambda: job not in namespace.names("Job"), "nobody asks for it")
    namespace.until(lambda: len(namespace.names("Job")) == 1, "what is asked for stays")
