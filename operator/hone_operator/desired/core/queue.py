"""What Kueue reads on a training Job, and the field of its Workload with which a run is suspended.

Kueue admits a Job as a whole, by setting `spec.suspend` to false, and may add node selectors, tolerations, labels and
annotations to its template. See docs/decisions/kueue.md.
"""

from collections.abc import Mapping
from typing import Any

from hone_api.blocks.placement import Scheduling, Topology
from hone_api.words.failures import ExitCode
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform

REQUIRED = "kueue.x-k8s.io/podset-required-topology"
PREFERRED = "kueue.x-k8s.io/podset-preferred-topology"
MULTI_KUEUE = "kueue.x-k8s.io/multikueue"
"""Value of spec.managedBy of a Job that MultiKueue runs elsewhere."""


def queue_of(scheduling: Scheduling, platform: Platform) -> str | None:
    """The LocalQueue that the pods wait in; None: they start without a queue."""
    return scheduling.queue_name if platform.kueue.enabled else None


def queued(job: Mapping[str, Any], queue: str, scheduling: Scheduling | None = None) -> dict[str, Any]:
    """The Job as it is created in a queue: suspended, until Kueue admits it."""
    meta, spec = job["metadata"], job["spec"]
    asked = scheduling or Scheduling()
    priority = {names.QUEUE_PRIORITY: asked.workload_priority_class} if asked.workload_priority_class else {}
    manager = {"managedBy": MULTI_KUEUE} if asked.managed_by else {}
    policy = {"rules": [_without_interruption(rule) for rule in spec["podFailurePolicy"]["rules"]]}
    return {
        **job,
        "metadata": {**meta, "labels": {**meta["labels"], names.QUEUE: queue, **priority}},
        "spec": {
            **spec,
            **manager,
            "suspend": True,
            "podFailurePolicy": policy,
            "template": _placed(spec["template"], asked.topology),
        },
    }


def _placed(template: Mapping[str, Any], topology: Topology | None) -> Mapping[str, Any]:
    """The template with the annotation that asks for one domain of a topology."""
    if topology is None:
        return template
    meta, asked = template["metadata"], {REQUIRED: topology.required, PREFERRED: topology.preferred}
    annotations = {**meta.get("annotations", {}), **{name: level for name, level in asked.items() if level}}
    return {**template, "metadata": {**meta, "annotations": annotations}}


def _without_interruption(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rule for pods that Kueue may stop. The Job controller does not count pods that it deletes because of
    `suspend`, but a rule that matches their exit code would fail the Job: it would lose its place in the queue."""
    if "onExitCodes" not in rule:
        return rule
    codes = rule["onExitCodes"]
    kept = [code for code in codes["values"] if code != ExitCode.INTERRUPTED]
    return {**rule, "onExitCodes": {**codes, "values": kept}}


def activation(workload: Mapping[str, Any], active: bool) -> dict[str, Any]:
    """The two fields of a Workload that the operator changes; the uid is a precondition.

    A deactivated Workload gives its quota back, and Kueue stops its pods. The annotation says that it was the operator:
    what an administrator has deactivated stays so.
    """
    meta = workload["metadata"]
    ours = {k: meta[k] for k in ("name", "namespace", "uid")}
    # Not removed, but changed: Kueue owns every annotation that it has seen, by the way in which it writes the status.
    held = {names.HELD: "false" if active else "true"}
    return {
        "apiVersion": names.KUEUE_API,
        "kind": "Workload",
        "metadata": {**ours, "annotations": held},
        "spec": {"active": active},
    }
