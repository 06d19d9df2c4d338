"""A plan's ConfigMap and the Job that carries it out: one pod, several that share it, or one for each node of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone_api.words.failures import ExitCode
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import CONTAINER, CONTAINERS, Work, defaults_of, plan_text, template
from hone_operator.desired.core.queue import queued

QUEUED = frozenset(
    {"fetch", "lookup", "tasks", "materialize", "encode", "verify", "deliver", "sign", "register", "import", "measure"}
)
"""Components that wait in the platform's queue for CPU Jobs. Not the sweep, which frees space for the others."""
DECIDED_EXIT_CODES = sorted({ExitCode.DATA, ExitCode.DIVERGED, ExitCode.IO, ExitCode.INTERRUPTED, ExitCode.CONFIG})
"""Exit codes of the contract, ascending: the API server refuses any other order."""


_SHARED = {
    "backoffLimitPerIndex": 3,
    "maxFailedIndexes": 0,
    "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
}
"""A pod that is lost or killed is replaced, and goes on from what is in the store; the first one's end is the Job's."""


@dataclass(frozen=True)
class JobName:
    """Name and labels of the objects for one piece of work."""

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str] | None = None


def plan_config(owner: Mapping[str, Any], job: JobName, work: Work, platform: Platform) -> dict[str, Any]:
    """ConfigMap with plan.json, and with the progress server's ca.crt; immutable."""
    data = {"plan.json": plan_text(work)}
    if platform.progress_ca:
        data["ca.crt"] = platform.progress_ca
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": names.metadata(names.plan(job.name, str(data)), owner, job.labels),
        "immutable": True,
        "data": data,
    }


def job_with_plan(
    owner: Mapping[str, Any], job: JobName, work: Work, platform: Platform, nodes: int = 1
) -> list[dict[str, Any]]:
    """[ConfigMap, Job]: `nodes` pods without retries, or those that share the work. The operator decides whether and
    when to retry."""
    config = plan_config(owner, job, work, platform)
    return [config, with_plan(config["metadata"]["name"], owner, job, work, platform, nodes)]


def with_plan(
    plan: str, owner: Mapping[str, Any], job: JobName, work: Work, platform: Platform, nodes: int = 1
) -> dict[str, Any]:
    """Only the Job; ConfigMap `plan` has its plan.json."""
    shared = work.pods > 1
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        # A policy of the cluster may ask for a label, such as a cost centre, on Jobs as well as on pods.
        "metadata": names.metadata(
            job.name, owner, {**defaults_of(work, platform).labels, **job.labels}, job.annotations
        ),
        "spec": {
            "completionMode": "Indexed",
            "completions": work.pods if shared else nodes,
            "parallelism": work.pods if shared else nodes,
            **(_SHARED if shared else {"backoffLimit": 0}),
            "podReplacementPolicy": "Failed",
            # A rule that fails the Job is here so that its condition says which pod and why.
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore" if shared else "FailJob",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                    *(
                        {
                            "action": "FailJob",
                            "onExitCodes": {
                                "containerName": name,
                                "operator": "In",
                                "values": [int(c) for c in DECIDED_EXIT_CODES],
                            },
                        }
                        for name in (CONTAINERS if work.publisher else (CONTAINER,))
                    ),
                ]
            },
            "template": template(work, job.labels, plan, platform),
        },
    }
    queue = platform.staging.queue_name
    return queued(body, queue) if queue and work.component in QUEUED else body


def suspension(job: Mapping[str, Any], value: bool) -> dict[str, Any]:
    """The one field of a Job that the operator changes; the uid is a precondition."""
    meta = job["metadata"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
        "spec": {"suspend": value},
    }
