"""The Job that stages a base model in the store; it asks for no GPU."""

from collections.abc import Mapping
from typing import Any

from hone_api.finetunejob import FineTuneJobSpec
from hone_api.plan import FetchPlan
from hone_operator.desired import names
from hone_operator.desired.hub import hub_environment, secret_mounts
from hone_operator.desired.job import JobName, job
from hone_operator.desired.platform import Platform
from hone_operator.desired.pod import Work, store

CPU, MEMORY = "500m", "2Gi"
"""Files are streamed to the store; nothing is loaded."""


def fetch(owner: Mapping[str, Any], spec: FineTuneJobSpec, number: int, platform: Platform) -> list[dict[str, Any]]:
    """ConfigMap and Job of try `number`."""
    meta = owner["metadata"]
    secrets, secret_path = secret_mounts(spec.model.secret_name)
    plan = FetchPlan(
        model=spec.model,
        secret_path=secret_path,
        store=str(names.STORE),
        limits=platform.limits,
    )
    work = Work(
        component="fetch",
        verb="fetch",
        plan=plan,
        cpu=CPU,
        memory=MEMORY,
        mounts=(store(platform), *secrets),
        env=hub_environment(platform),
    )
    labels = names.labels("fetch", owner, **{names.TRY: str(number)})
    return job(owner, JobName(names.fetch(meta["name"], meta["uid"], number), labels), work, platform)
