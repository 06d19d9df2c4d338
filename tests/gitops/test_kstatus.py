"""What the operator writes, as kstatus (Flux, Helm 4 --wait) and Argo CD read it.

The rules are those of sigs.k8s.io/cli-utils pkg/kstatus/status: deletion, generation, Reconciling, Stalled, Ready.
"""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from support.cluster.platforms import platform_with

from hone_dev.cluster import binaries
from hone_dev.generate import argocd
from hone_dev.tools.shell import run
from hone_operator.reconcile.dataset import dataset
from hone_operator.reconcile.model import model
from hone_operator.reconcile.run import finetunejob
from hone_operator.reconcile.staging.observed import Observed
from hone_operator.reconcile.version import modelversion

pytestmark = pytest.mark.pure
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PLATFORM = platform_with("trainer:1")
ROOT = argocd.FOLDER / "resource_customizations" / "hone.dev"
DIGEST = "sha256:" + "0" * 64


def kstatus(obj: dict[str, Any]) -> str:
    """Current, InProgress, Failed or Terminating."""
    meta, status = obj["metadata"], obj.get("status") or {}
    if "deletionTimestamp" in meta:
        return "Terminating"
    if "observedGeneration" in status and status["observedGeneration"] != meta.get("generation"):
        return "InProgress"
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"


def resource(kind: str, spec: dict[str, Any], status: dict[str, Any] | None = None) -> dict[str, Any]:
    meta = {"name": "x", "namespace": "team", "uid": "u", "generation": 1, "creationTimestamp": "2026-01-02T03:04:05Z"}
    out = {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}
    return {**out, "status": status} if status else out


JOB = {"model": {"uri": "hf://a/b"}, "datasets": [{"name": "rows"}], "output": {"modelName": "tutor"}}
DATASET = {"source": {"uri": "https://data.example/rows.jsonl"}}
VERSION = {
    "modelName": "tutor",
    "version": 1,
    "artifacts": [{"format": "Adapter", "uri": "pvc://hone-store/models/u/adapter", "digest": DIGEST, "sizeBytes": 1}],
    "lineage": {
        "baseModel": {"uri": "hf://a/b"},
        "datasets": [{"name": "rows", "split": "train", "digest": DIGEST}],
        "job": {"name": "run", "uid": "u"},
        "method": "SFT",
        "hyperParameters": {},
        "seed": 1,
    },
}
REJECTED = resource("ModelVersion", VERSION | {"modelName": "x", "approval": {"state": "Rejected"}})
DECIDE = {
    "FineTuneJob": lambda o: finetunejob.reconcile(o, Observed(), NOW, PLATFORM),
    "Dataset": lambda o: dataset.reconcile(o, dataset.ObservedForDataset(), NOW, PLATFORM),
    "ModelVersion": lambda o: modelversion.reconcile(o, modelversion.ObservedForModelVersion(), NOW, PLATFORM),
    "Model": lambda o: model.reconcile(o, model.ObservedForModel([REJECTED]), NOW),
}


@pytest.mark.parametrize(
    ("kind", "spec", "status", "expected"),
    [
        ("FineTuneJob", JOB, None, ("InProgress", "Progressing")),
        ("FineTuneJob", {**JOB, "suspend": True}, None, ("InProgress", "Suspended")),
        ("FineTuneJob", {**JOB, "datasets": []}, None, ("Failed", "Degraded")),
        ("FineTuneJob", {**JOB, "deepspeed": {"zeroStage": 3, "offload": "NVMe"}}, None, ("Failed", "Degraded")),
        ("Dataset", DATASET, None, ("InProgress", "Progressing")),
        ("Dataset", {**DATASET, "suspend": True}, None, ("InProgress", "Suspended")),
        ("Dataset", {"source": {"uri": "pvc://claim/../x"}}, None, ("Failed", "Degraded")),
        ("ModelVersion", VERSION, None, ("InProgress", "Progressing")),
        ("ModelVersion", VERSION, {"verifiedAt": "2026-01-02T03:04:05Z"}, ("Current", "Healthy")),
        ("ModelVersion", {**VERSION, "artifacts": []}, None, ("Failed", "Degraded")),
        ("Model", {}, None, ("Current", "Healthy")),
        ("Model", {"aliases": [{"name": "production", "version": 2}]}, None, ("InProgress", "Progressing")),
        ("Model", {"aliases": [{"name": "production", "version": 1}]}, None, ("Failed", "Degraded")),
    ],
)
def test_the_first_status_of_the_operator(health, kind, spec, status, expected):
    obj = resource(kind, spec, status)
    outcome = DECIDE[kind](obj)
    assert outcome.status is not None
    written = {**obj, "status": outcome.status}
    assert (kstatus(written), health(written)["status"]) == expected
    types = [c["type"] for c in outcome.status["conditions"]]
    assert len(set(types)) == len(types)
    assert {"Ready", "Reconciling", "Stalled"} <= set(types)
    assert {c["observedGeneration"] for c in outcome.status["conditions"]} == {1}


ALIKE = {"Current": {"Healthy"}, "InProgress": {"Progressing", "Suspended"}, "Failed": {"Degraded"}}
# kstatus calls an object without any status Current; the operator writes one at once.
STATES = sorted(ROOT.glob("*/testdata/*.yaml"))
SEEN = [p for p in STATES if p.stem != "new"]


@pytest.mark.parametrize("path", SEEN, ids=lambda p: f"{p.parts[-3]}-{p.stem}")
def test_argo_cd_and_kstatus_agree(health, path):
    obj = yaml.safe_load(path.read_text())
    assert health(obj)["status"] in ALIKE[kstatus(obj)]


@pytest.mark.long
@pytest.mark.gitops
def test_the_library_of_flux_says_the_same():
    objects = [yaml.safe_load(path.read_text()) for path in STATES]
    said = run(binaries.kstatus(), stdin="\n".join(map(json.dumps, objects))).split()
    assert said == [kstatus(each) for each in objects]
