"""The Job that stages the data sets of evaluation.harness in the store; it requests no GPU."""

from collections.abc import Mapping
from typing import Any

from hone_api.base.schemes import image_of
from hone_api.blocks.evaluation import Harness
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.plan import TasksPlan
from hone_operator.desired.core import names
from hone_operator.desired.core.hub import hub_environment, secret_mounts
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Work, writable_folders
from hone_operator.desired.core.shared import Shared

CPU, MEMORY = "1", "4Gi"
"""Data sets are converted in pieces; every task is built once from its rows."""


def tasks(
    claim: Mapping[str, Any],
    shared: Shared,
    spec: FineTuneJobSpec,
    harness: Harness,
    number: int,
    platform: Platform,
) -> list[dict[str, Any]]:
    """Job and ConfigMap of attempt `number`.

    The token of the model's repository also serves gated data sets.
    """
    of_hub = None if image_of(spec.model.uri or "") else spec.model.secret_name
    secrets, secret_path = secret_mounts(of_hub)
    plan = TasksPlan(harness=harness, secret_path=secret_path, store=str(names.STORE), limits=platform.limits)
    work = Work(
        component="tasks",
        verb="tasks",
        plan=plan,
        cpu=CPU,
        memory=MEMORY,
        mounts=(*writable_folders(platform, "evaluation-tasks"), *secrets),
        env=hub_environment(platform),
    )
    return shared.objects(claim, number, work, platform)
