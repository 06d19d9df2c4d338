"""Contents of Datasets that nothing refers to any more are removed by a Job, also after a restart; never one in use."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cluster.hand import Namespace
from support.cluster.operator_process import Operator
from support.lives.versions import version_spec

from hone_api.plan import SweepPlan

pytestmark = pytest.mark.apiserver
DONE = {"kind": "Sweep", "removed": 1, "sizeBytes": 9, "stored": {"runs": 7}}
Start = Callable[[], Operator]


@pytest.fixture
def start(apiserver: Path, namespace: Namespace, start_operator: Callable[[Path, dict[str, str]], Operator]) -> Start:
    """The operator, which removes after two seconds."""
    env = {"HONE_WATCH_NAMESPACES": json.dumps([namespace.name]), "HONE_STORE__KEEP_UNUSED_SECONDS": "2"}
    return lambda: start_operator(apiserver, env)


def ledger(namespace: Namespace) -> dict[str, str]:
    if "hone-contents" not in namespace.names("ConfigMap"):
        return {}
    found: dict[str, str] = namespace.get("ConfigMap", "hone-contents")["data"]
    return {content: since for content, since in found.items() if len(content) == 64}


def sweeps(namespace: Namespace) -> list[Any]:
    jobs = namespace.list("Job")
    return [job for job in jobs if job["metadata"]["labels"].get("hone.dev/component") == "sweep"]


def test_what_a_deleted_dataset_leaves_goes_and_what_a_run_uses_stays(
    namespace: Namespace, start: Start, spec: Callable[..., Any]
) -> None:
    operator = start()
    namespace.dataset("rows", "0")
    namespace.dataset("other", "1")
    namespace.create("FineTuneJob", "run", spec())
    namespace.until(lambda: namespace.get("Job", "run-1"), "attempt 1, which pins the rows")
    namespace.until(lambda: set(ledger(namespace)) == {"0" * 64, "1" * 64}, "both are known")
    operator.kill()
    namespace.delete("Dataset", "rows")
    namespace.delete("Dataset", "other")
    encoded = "c" * 40  # rows of a run that is gone
    namespace.patch("ConfigMap", "hone-contents", {"data": {f"encoded.{encoded}": ""}})
    start()
    (job,) = namespace.until(lambda: sweeps(namespace), "a Job")
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("ConfigMap", "hone-contents")
    volumes = {v["name"]: v for v in job["spec"]["template"]["spec"]["volumes"]}
    name = volumes["plan"]["configMap"]["name"]
    body = namespace.until(lambda: namespace.get("ConfigMap", name), "its plan")
    assert body["immutable"]
    assert body["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"], "it goes with the Job"
    plan = SweepPlan.model_validate_json(body["data"]["plan.json"])
    assert (plan.remove, plan.encoded) == (["sha256:" + "1" * 64], [encoded])
    assert plan.datasets == []
    uid = namespace.get("FineTuneJob", "run")["metadata"]["uid"]
    assert plan.jobs == [uid], "its checkpoints stay"
    assert namespace.get("ConfigMap", "hone-contents")["data"][f"run.{uid}"] == ""
    assert time.time() - 600 < plan.as_of <= time.time()
    namespace.succeed(job["metadata"]["name"], DONE)
    namespace.until(lambda: ledger(namespace) == {"0" * 64: ""}, "what was removed is forgotten")
    assert f"encoded.{encoded}" not in namespace.get("ConfigMap", "hone-contents")["data"]
    namespace.until(lambda: not sweeps(namespace), "and its Job is gone")
    namespace.delete("FineTuneJob", "run")
    namespace.delete("Job", "run-1")  # as the garbage collector does
    measured = json.loads(namespace.get("ConfigMap", "hone-contents")["data"]["stored.json"])
    assert measured["bytes"] == {"runs": 7}
    (job,) = namespace.until(lambda: sweeps(namespace), "the rows and checkpoints of a run go with it")
    volumes = {v["name"]: v for v in job["spec"]["template"]["spec"]["volumes"]}
    name = volumes["plan"]["configMap"]["name"]
    body = namespace.until(lambda: namespace.get("ConfigMap", name), "its plan")
    assert SweepPlan.model_validate_json(body["data"]["plan.json"]).jobs == []


def test_a_namespace_that_goes_is_let_go(namespace: Namespace, operator: Operator) -> None:
    """Nothing can be created in it any more: that is not an error."""
    namespace.dataset("rows", "0")
    namespace.dataset("other", "1")
    namespace.until(lambda: ledger(namespace), "the ledger")
    namespace.kube.call("DELETE", f"/api/v1/namespaces/{namespace.name}", {})
    namespace.delete("ConfigMap", "hone-contents")
    namespace.delete("Dataset", "other")
    namespace.until(lambda: "contents are not looked after now" in operator.log(), "it is let go")
    assert "Contents " not in operator.log(), "no failure is told"


def model(policy: str) -> dict[str, Any]:
    """Spec of a ModelVersion whose run is gone."""
    job = {"name": "run", "uid": "run-uid"}
    spec = version_spec("Adapter", "pvc://hone-store/models/run-uid/attempt-1/adapter", "0", job=job)
    return spec | {"deletionPolicy": policy}


def test_a_model_goes_with_a_model_version_that_says_so(namespace: Namespace, start: Start) -> None:
    start()
    namespace.create("ModelVersion", "tutor-v1", model("Retain"))
    (verify,) = namespace.until(lambda: namespace.names("Job"), "it is verified")
    namespace.succeed(verify, {"kind": "Verify", "files": 1, "sizeBytes": 7})
    namespace.until(lambda: verify not in namespace.names("Job"), "its Job goes")
    assert namespace.condition("ModelVersion", "tutor-v1", "Ready")["status"] == "True"
    namespace.patch("ModelVersion", "tutor-v1", {"spec": {"deletionPolicy": "Delete"}})
    namespace.delete("ModelVersion", "tutor-v1")
    (job,) = namespace.until(lambda: sweeps(namespace), "a Job")
    volumes = {v["name"]: v for v in job["spec"]["template"]["spec"]["volumes"]}
    body = namespace.until(lambda: namespace.get("ConfigMap", volumes["plan"]["configMap"]["name"]), "its plan")
    plan = SweepPlan.model_validate_json(body["data"]["plan.json"])
    assert (plan.models, plan.exports) == (["run-uid/attempt-1"], [])
    done = DONE | {"unclaimed": ["models/mine"], "unclaimedCount": 1}
    namespace.succeed(job["metadata"]["name"], done)
    namespace.until(lambda: not sweeps(namespace), "and its Job is gone")
    data = namespace.get("ConfigMap", "hone-contents")["data"]
    assert set(data) == {"stored.json"}, "the model is forgotten"
    assert json.loads(data["stored.json"])["unclaimed"] == ["models/mine"], "what nobody names is told"


def test_what_retention_deletes_gives_its_bytes_back_if_the_job_says_so(
    namespace: Namespace, start: Start, spec: Callable[..., Any], result: dict[str, Any]
) -> None:
    """Nobody has to change a ModelVersion: the job decides, and the newest version keeps its files."""
    (artifact,) = result["artifacts"]
    made = result | {"artifacts": [artifact | {"uri": "attempt-1/adapter"}]}
    start()
    namespace.dataset()
    for name in ("first", "second"):
        output = {"modelName": "tutor", "deletionPolicy": "Delete"}
        namespace.create("FineTuneJob", name, spec(output=output))
        namespace.until(lambda name=name: namespace.get("Job", f"{name}-1"), "attempt 1")
        namespace.succeed(f"{name}-1", made)
        (verify,) = namespace.until(lambda: [n for n in namespace.names("Job") if "verify" in n], "it is verified")
        namespace.succeed(verify, {"kind": "Verify", "files": 1, "sizeBytes": 7})
        namespace.until(lambda: not [n for n in namespace.names("Job") if "verify" in n], "its Job goes")
    versions = {v["metadata"]["name"]: v["spec"]["deletionPolicy"] for v in namespace.list("ModelVersion")}
    assert versions == {"tutor-v1": "Delete", "tutor-v2": "Delete"}
    uids = [namespace.get("FineTuneJob", name)["metadata"]["uid"] for name in ("first", "second")]
    namespace.patch("Model", "tutor", {"spec": {"retention": {"keep": 1}}})
    namespace.until(lambda: namespace.names("ModelVersion") == ["tutor-v2"], "the older version goes")

    def removed() -> list[str]:
        plans = [json.loads((body.get("data") or {}).get("plan.json", "{}")) for body in namespace.list("ConfigMap")]
        return [place for plan in plans if plan.get("kind") == "Sweep" for place in plan["models"]]

    assert namespace.until(removed, "a sweep") == [f"{uids[0]}/attempt-1"]
