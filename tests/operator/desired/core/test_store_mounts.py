"""Which folders of the store a pod may write, which it may read, and that the plan's paths are on a mount."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest
from support.cluster.desired_objects import CASES, DIGEST, LASTING, PLATFORM, all_containers, owner, run
from support.cluster.platforms import changed

from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.resolved import PinnedModel, Resolved
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.run.attempt import AttemptInputs
from hone_operator.desired.run.training import training

pytestmark = pytest.mark.pure


def store_mounts(bodies: list[dict[str, Any]], container: int = 0) -> tuple[set[str], set[str]]:
    """(folders that a pod's container may write, folders that it may only read) of the store."""
    job = next(b for b in bodies if b["kind"] == "Job")
    volumes = job["spec"]["template"]["spec"]["volumes"]
    claims = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in volumes}
    found: tuple[set[str], set[str]] = (set(), set())
    for mount in all_containers(job)[container]["volumeMounts"]:
        if claims[mount["name"]] == PLATFORM.store.claim_name:
            found[mount.get("readOnly", False)].add(mount.get("subPath", ""))
    return found


OWN = {"runs/0000-uid", "models/0000-uid"}
MAY_WRITE: dict[str, set[str]] = {
    **{case: OWN for case in CASES if case.startswith("training-")},
    **{case: {"incoming/rows-data-e14762a9"} for case in CASES if case.startswith("materialize-")},
    **{
        case: {"incoming/rows-data-e14762a9", "source-files/0000-uid"}
        for case in ("materialize-hub", "materialize-pvc")
    },
    "materialize-mixture": {"incoming/mix-data-e14762a9"},
    "fetch": {"base-models"},
    "tasks": {"evaluation-tasks"},
    "encode": {"encoded"},
    "pods-of-a-dataset": {"incoming/rows-data-e14762a9", "source-files/0000-uid"},
    "pods-that-encode": {"encoded"},
    "verify": set(),
    "sign": {"models/x/adapter", "models/x/full"},
    "deliver-hub": set(),
    "deliver-image": set(),
    "deliver-volume": set(),
    "lookup": set(),
    "register": set(),
    "sweep": {""},
}


@pytest.mark.attack("Pod Security")
@pytest.mark.parametrize("case", sorted(CASES.keys() - {"store"}))
def test_a_pod_writes_only_its_own_folders_of_the_store(case):
    bodies = CASES[case]()
    written, read = store_mounts(bodies)
    assert written == MAY_WRITE[case]
    if case.startswith("materialize-"):
        assert read == {"datasets"}
        assert store_mounts(bodies, container=1) == ({""}, set(LASTING))
    volumes = [v["name"] for v in next(b for b in bodies if b["kind"] == "Job")["spec"]["template"]["spec"]["volumes"]]
    assert len(volumes) == len(set(volumes))


def chained(base: PinnedModel, *others: PinnedModel, platform: Platform = PLATFORM) -> list[dict[str, Any]]:
    spec = FineTuneJobSpec.model_validate(
        {"model": {"modelVersion": base.name}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}}
    )
    resolved = Resolved(
        model_version=base,
        model_versions=list(others) or None,
        dataset_digests={"rows": DIGEST},
        image=platform.trainer.image,
    )
    return training(AttemptInputs(owner("FineTuneJob", "run"), spec, 1, resolved), platform)


def pinned(name: str, uri: str, adapter: str | None = None) -> PinnedModel:
    return PinnedModel(
        name=name, uri=uri, digest=DIGEST, adapter_uri=adapter, adapter_digest=DIGEST if adapter else None
    )


MERGED = pinned("parent", "pvc://hone-store/models/parent-uid/attempt-1/merged")
ADAPTER = pinned(
    "parent", "pvc://hone-store/base-models/org--model/abc", "pvc://hone-store/models/parent-uid/attempt-2/adapter"
)
JUDGE = pinned("judge", "pvc://hone-store/models/judge-uid/attempt-1/full")
ELSEWHERE = pinned("parent", "pvc://other/models/parent-uid/attempt-1/merged")
CACHED = pinned("parent", "pvc://hone-store/models--org--model/snapshots/abc")
ROOT = pinned("parent", "pvc://hone-store")


@pytest.mark.attack("Pod Security")
@pytest.mark.parametrize(
    ("models", "read"),
    [
        ((MERGED,), {"models/parent-uid"}),
        ((MERGED, MERGED), {"models/parent-uid"}),
        ((ADAPTER,), {"base-models/org--model", "models/parent-uid"}),
        ((MERGED, JUDGE), {"models/parent-uid", "models/judge-uid"}),
        ((ELSEWHERE,), set()),
        ((CACHED,), {"models--org--model/snapshots"}),
        ((ROOT,), {""}),
    ],
)
def test_of_other_models_a_run_reads_those_that_its_plan_names(models, read):
    bodies = chained(*models)
    assert store_mounts(bodies) == (OWN, read | {"datasets"})
    plan = json.loads(bodies[0]["data"]["plan.json"])
    container = bodies[-1]["spec"]["template"]["spec"]["containers"][0]
    paths = [m["mountPath"] for m in container["volumeMounts"]]
    assert len(paths) == len(set(paths))
    for path in (plan["modelPath"], plan["workPath"], plan["outputPath"]):
        assert any(PurePosixPath(path).is_relative_to(p) for p in paths), f"{path} is on no mount"


@pytest.mark.parametrize(
    ("uri", "mount"),
    [
        (
            "pvc://hone-store/hub/models--org--model/snapshots/abc",
            ("/model/hub/models--org--model", "hub/models--org--model"),
        ),
        ("pvc://hone-store/mine", ("/model/mine", "mine")),
        ("pvc://weights/deep/down/here", ("/model", None)),
    ],
)
def test_a_base_model_on_a_volume_is_seen_where_the_plan_says(uri, mount):
    config, job = run({"model": {"uri": uri}})
    mounts = job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    (found,) = [m for m in mounts if m["mountPath"].startswith("/model")]
    assert (found["mountPath"], found.get("subPath")) == mount
    assert found["readOnly"] is True
    assert PurePosixPath(json.loads(config["data"]["plan.json"])["modelPath"]).is_relative_to(mount[0])


def test_a_store_that_cannot_be_divided_is_mounted_whole():
    """store.isolateRuns false: no subPath is left, which the kubelet might not be able to make."""
    whole = changed(PLATFORM, store__isolate_runs=False)
    assert store_mounts(chained(MERGED, JUDGE, platform=whole)) == ({""}, set())
    assert store_mounts(run({"model": {"uri": "pvc://hone-store/mine"}}, platform=whole)) == ({""}, {""})
