"""The Job that stages a base model in the store; it requests no GPU."""

from collections.abc import Mapping
from typing import Any

from hone_api.finetunejob import FineTuneJobSpec
from hone_api.plan import FetchPlan
from hone_operator.desired import names
from hone_operator.desired.hub import hub_environment, secret_mounts
from hone_operator.desired.platform import Platform
from hone_operator.desired.pod import Work, writable_folders
from hone_operator.desired.shared import Shared


def fetch(
    claim: Mapping[str, Any], shared: Shared, spec: FineTuneJobSpec, number: int, platform: Platform
) -> list[dict[str, Any]]:
    """Job and ConfigMap of attempt `number`."""
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
        cpu=platform.staging_cpu,
        memory=platform.staging_memory,
        mounts=(*writable_folders(platform, "base-models"), *secrets),
        env=hub_environment(platform),
    )
    return shared.objects(claim, number, work, platform)
