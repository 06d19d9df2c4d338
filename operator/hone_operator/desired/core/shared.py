"""Staging work that the FineTuneJobs of a namespace share: equal work has one Job, owned by the store's claim.

The Job is also the record of what is in the store: its result serves every FineTuneJob with the same work. It is
deleted with the claim, or when no FineTuneJob needs its work any more (see `sweeping`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone_api.base.meta import ALIAS_SCHEME
from hone_operator.desired.core import names
from hone_operator.desired.core.job import JobName, plan_config, with_plan
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Work

Spec = Mapping[str, Any]
"""Spec of a FineTuneJob, as the API server returns it."""


@dataclass(frozen=True)
class Shared:
    """One piece of shared work."""

    component: str
    key: str
    """Digest of everything that its Job depends on: equal keys, equal work."""
    title: str
    """Prefix of the Job's name."""
    lasting: bool = False
    """Whether its result never changes, because it names a commit."""

    def job_name(self, number: int) -> str:
        """Name of attempt `number`."""
        return names.fit(self.title, f"{self.component}-{self.key[:8]}-{number}", 52)

    def labels(self, claim: Mapping[str, Any], number: int, component: str) -> dict[str, str]:
        """Labels of the objects of attempt `number`."""
        return names.labels(component, claim, **{names.STAGING_ATTEMPT: str(number), names.CONTENT: self.key})

    def objects(
        self,
        claim: Mapping[str, Any],
        number: int,
        work: Work,
        platform: Platform,
        more: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """[Job, ConfigMap] of attempt `number`. The claim owns the Job and the Job owns its plan, so both are deleted
        in turn.

        Args:
            more: labels besides those of `labels`.
        """
        name = JobName(self.job_name(number), {**self.labels(claim, number, self.component), **(more or {})})
        config = plan_config(claim, name, work, platform)
        job = with_plan(config["metadata"]["name"], claim, name, work, platform)
        config["metadata"]["ownerReferences"] = [owned_by_job(name.name)]
        return [job, config]


def owned_by_job(name: str) -> dict[str, Any]:
    """Owner reference of what the same decision creates after the Job: its uid is set when the Job has been created,
    see `Writes.create`."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": "", "controller": True}
    return {**owner, "blockOwnerDeletion": False}


def base_model(spec: Spec, platform: Platform) -> Shared | None:
    """The base model; None if nothing must be downloaded."""
    model = spec.get("model") or {}
    uri = model.get("uri") or ""
    if not uri or uri.startswith(("pvc://", "oci://", ALIAS_SCHEME)):
        return None
    name, _, revision = uri.partition("@")
    key = work_key("fetch", [uri, model.get("secretName")], platform)
    return Shared("fetch", key, _title(name), lasting=re.fullmatch("[0-9a-f]{40}", revision) is not None)


def harness_tasks(spec: Spec, platform: Platform) -> Shared | None:
    """The data sets of evaluation.harness; None without them."""
    harness = (spec.get("evaluation") or {}).get("harness")
    if not harness:
        return None
    return Shared(
        "tasks", work_key("tasks", [harness, (spec.get("model") or {}).get("secretName")], platform), "harness"
    )


def wanted(spec: Spec, platform: Platform) -> list[Shared]:
    """All shared work that this FineTuneJob needs."""
    work = (base_model(spec, platform), harness_tasks(spec, platform))
    return [shared for shared in work if shared]


def work_key(component: str, what: list[Any], platform: Platform) -> str:
    """Equal for equal work. A new image, limits or mounts define new work, so a Job that cannot succeed is replaced
    when its cause is fixed."""
    shaped_by = [
        platform.trainer.image,
        platform.hugging_face.endpoint or None,
        platform.staging.cpu,
        platform.staging.memory,
        platform.limits.to_json(),
        platform.store.isolate_runs,
    ]
    return names.digest(component, what, shaped_by, length=16)


def _title(uri: str) -> str:
    """hf://org/Some_Model -> some-model."""
    return re.sub(r"[^a-z0-9]+", "-", uri.rpartition("/")[2].lower()).strip("-") or "model"
