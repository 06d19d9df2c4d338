"""Finished jobs that are kept as records: one that really finishes, and copies of it."""

from __future__ import annotations

import copy as copying
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from active_jobs import MERGE_PATCH, now
from kubeapi import HONE, KubeApi
from measured_operator import until
from operator_objects import job

NAMESPACE = "records"
VERSIONS = 100
"""Versions of one model."""
COMPONENT = "hone.dev/component"
RESULTS: dict[str, dict[str, Any]] = {
    "training": {
        "kind": "Training",
        "artifacts": [{"format": "Adapter", "uri": "adapter", "digest": "sha256:" + "a" * 64, "sizeBytes": 7}],
        "numbers": [{"name": "loss", "base": "3.9", "tuned": "2.1", "rows": 10}],
        "steps": 12,
    },
    "verify": {"kind": "Verify", "files": 3, "sizeBytes": 7},
}
"""What the pods of a job leave."""


@dataclass
class Records:
    """What records of finished jobs cost; memory in MiB, times in seconds."""

    count: int
    empty: float = 0
    """With one record."""
    rss: float = 0
    restart: float = 0
    writes: Counter[str] = field(default_factory=Counter)
    """After the restart."""

    @property
    def kib_each(self) -> float:
        return (self.rss - self.empty) * 1024 / (self.count - 1)


@dataclass(frozen=True)
class Template:
    """A finished job and its model, as the API server has them."""

    job: dict[str, Any]
    version: dict[str, Any]


async def finish_one(api: KubeApi) -> Template:
    """Let one job finish. A hand plays scheduler and kubelet."""
    body = job("first")
    body["spec"]["resources"]["nodes"] = 1
    await api.call("POST", f"{HONE}/namespaces/{NAMESPACE}/finetunejobs", body)
    versions = f"{HONE}/namespaces/{NAMESPACE}/modelversions"

    async def ready() -> bool:
        async for pod in api.each(f"/api/v1/namespaces/{NAMESPACE}/pods"):
            if pod["status"]["phase"] == "Pending":
                await _succeed(api, pod)
        return any(_is(each, "Ready") for each in (await api.call("GET", versions))["items"])

    await until("the model of the first job", ready, every=0.5)
    finished = await api.call("GET", f"{HONE}/namespaces/{NAMESPACE}/finetunejobs/first")
    if not _is(finished, "Succeeded"):
        raise RuntimeError(f"the job has a model and has not succeeded: {finished['status']}")
    return Template(finished, (await api.call("GET", versions))["items"][0])


def _is(body: dict[str, Any], type_: str) -> bool:
    conditions = body.get("status", {}).get("conditions", ())
    return any(c["type"] == type_ and c["status"] == "True" for c in conditions)


async def _succeed(api: KubeApi, pod: dict[str, Any]) -> None:
    """The pod has run, and left its result."""
    message = json.dumps({"result": RESULTS[pod["metadata"]["labels"][COMPONENT]]})
    times = {"startedAt": now(), "finishedAt": now()}
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "message": message, **times}}
    container = {"name": "trainer", "image": "trainer", "imageID": "", "ready": False, "restartCount": 0}
    status = {
        "phase": "Succeeded",
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}],
        "containerStatuses": [container | {"state": ended}],
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}/status"
    await api.call("PATCH", path, {"status": status}, MERGE_PATCH)


async def copy(api: KubeApi, template: Template, count: int) -> None:
    """As many records in all as `count`, and no Job, pod or plan of any of them."""
    await api.all_of(lambda number: _one(api, template, number), range(1, count))
    for plural in ("/apis/batch/v1/namespaces/{}/jobs", "/api/v1/namespaces/{}/pods"):
        await api.call("DELETE", plural.format(NAMESPACE), {"propagationPolicy": "Background"})

    async def gone() -> bool:
        return await api.count(f"/api/v1/namespaces/{NAMESPACE}/pods") == 0

    await until("the deletion of the first job's pods", gone)


async def _one(api: KubeApi, template: Template, number: int) -> None:
    model, version = f"model-{number // VERSIONS}", number % VERSIONS + 1
    made = await _create(api, template.job, f"job-{number}", "finetunejobs", _job_change(model, f"{model}-v{version}"))

    def change(body: dict[str, Any]) -> None:
        meta, spec = body["metadata"], body["spec"]
        meta["labels"] = {k: made["metadata"]["name"] if v == "first" else v for k, v in meta["labels"].items()}
        spec |= {"modelName": model, "version": version}
        spec["lineage"]["job"] |= {"name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}

    await _create(api, template.version, f"{model}-v{version}", "modelversions", change)


def _job_change(model: str, version: str) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        body["spec"]["output"]["modelName"] = model
        body["status"]["modelVersionName"] = version

    return change


async def _create(
    api: KubeApi, template: dict[str, Any], name: str, plural: str, change: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Create a copy with its status; returns it."""
    body = copying.deepcopy(template)
    kept = ("labels", "annotations", "finalizers")
    body["metadata"] = {k: v for k, v in body["metadata"].items() if k in kept} | {"name": name}
    change(body)
    status = body.pop("status")
    path = f"{HONE}/namespaces/{NAMESPACE}/{plural}"
    made: dict[str, Any] = await api.call("POST", path, body)
    await api.call("PATCH", f"{path}/{name}/status", {"status": status}, MERGE_PATCH)
    return made
