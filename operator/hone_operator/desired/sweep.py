"""The ConfigMap that remembers the contents of a namespace's store, and the Job that removes some of them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hone_api.plan import SweepPlan
from hone_operator.desired import names
from hone_operator.desired.job import JobName, with_plan
from hone_operator.desired.platform import Platform
from hone_operator.desired.pod import Work, store

PLAN = names.PLAN_FILE.name
CPU, MEMORY = "100m", "512Mi"


def ledger(namespace: str, contents: Mapping[str, str], plan: str | None) -> dict[str, Any]:
    """ConfigMap of the contents, by hexadecimal digest: empty, or since when nothing refers to it.

    It belongs to nobody: what it remembers outlives every object. It holds the plan of the Job that removes some, as a
    ConfigMap of the Job's own would stay behind.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.CONTENTS,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": names.FIELD_MANAGER},
        },
        "data": {**contents, **({PLAN: plan} if plan else {})},
    }


def plan(contents: Sequence[str], datasets: Sequence[str], as_of: datetime, platform: Platform) -> SweepPlan:
    """What the Job is to remove, and the names of the Datasets that are there."""
    return SweepPlan(
        store=str(names.STORE),
        remove=[f"sha256:{content}" for content in contents],
        datasets=sorted(datasets),
        as_of=as_of.timestamp(),
        grace_seconds=platform.store_keep_unused_seconds,
    )


def sweep(owner: Mapping[str, Any], plan: SweepPlan, platform: Platform) -> dict[str, Any]:
    """The Job; owner is the ledger, which has the plan."""
    work = Work(component="sweep", verb="sweep", plan=plan, cpu=CPU, memory=MEMORY, mounts=(store(platform),))
    name = names.fit("hone-sweep", names.digest(plan.to_json()))
    return with_plan(names.CONTENTS, owner, JobName(name, names.labels("sweep", owner)), work, platform)
