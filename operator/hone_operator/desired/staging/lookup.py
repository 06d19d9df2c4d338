"""The Job that looks up which commit a branch or tag of the hub names; it downloads nothing and mounts no volume."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from hone_api.plan import LookupPlan
from hone_operator.desired.core import names
from hone_operator.desired.core.hub import hub_environment, secret_mounts
from hone_operator.desired.core.job import JobName, job_with_plan
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Work

COMPONENT = "lookup"
CPU, MEMORY = "100m", "256Mi"


class Question(NamedTuple):
    """What is looked up."""

    uri: str
    """hf://owner/name[@revision]"""
    secret: str | None
    """With the token for the hub."""

    def key(self, platform: Platform) -> str:
        """Equal for equal questions; another image or hub may answer what this one could not."""
        return names.digest(*self, platform.trainer.image, platform.hugging_face.endpoint or None, length=16)


def lookup(owner: Mapping[str, Any], question: Question, last: str, platform: Platform) -> list[dict[str, Any]]:
    """ConfigMap and Job of one look.

    Args:
        last: when the hub was asked before; it tells one look from the next.
    """
    meta = owner["metadata"]
    mounts, secret_path = secret_mounts(question.secret)
    plan = LookupPlan(uri=question.uri, secret_path=secret_path, limits=platform.limits)
    pod = Work(
        component=COMPONENT,
        verb="lookup",
        plan=plan,
        cpu=CPU,
        memory=MEMORY,
        mounts=tuple(mounts),
        env=hub_environment(platform),
    )
    content = question.key(platform)
    labels = names.labels(COMPONENT, owner, **{names.STAGING_ATTEMPT: "1", names.CONTENT: content})
    name = names.lookup(meta["name"], meta["uid"], names.digest(content, last))
    return job_with_plan(owner, JobName(name, labels), pod, platform)
