"""The Job that stages the data sets of evaluation.harness in the store; it asks for no GPU."""

from collections.abc import Mapping
from typing import Any

from hone_api.finetunejob import FineTuneJobSpec
from hone_api.plan import TasksPlan
from hone_api.training import Harness
from hone_operator.desired import names
from hone_operator.desired.hub import hub_environment, secret_mounts
from hone_operator.desired.job import JobName, job
from hone_operator.desired.platform import Platform
from hone_operator.desired.pod import Work, store

CPU, MEMORY = "1", "4Gi"
"""Data sets are converted in pieces; every task is made once from its rows."""


def tasks(
    owner: Mapping[str, Any], spec: FineTuneJobSpec, harness: Harness, number: int, platform: Platform
) -> list[dict[str, Any]]:
    """ConfigMap and Job of try `number`. The token of the model's repository serves gated data sets, too."""
    meta = owner["metadata"]
    secrets, secret_path = secret_mounts(spec.model.secret_name)
    plan = TasksPlan(harness=harness, secret_path=secret_path, store=str(names.STORE), limits=platform.limits)
    work = Work(
        component="tasks",
        verb="tasks",
        plan=plan,
        cpu=CPU,
        memory=MEMORY,
        mounts=(store(platform), *secrets),
        env=hub_environment(platform),
    )
    labels = names.labels("tasks", owner, **{names.TRY: str(number)})
    return job(owner, JobName(names.tasks(meta["name"], meta["uid"], number), labels), work, platform)
