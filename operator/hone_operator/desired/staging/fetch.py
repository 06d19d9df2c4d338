"""The Job that stages a base model in the store; it requests no GPU."""

from collections.abc import Mapping
from typing import Any

from hone_api.contract import encoding
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.plan import FetchPlan, TrainingPlan
from hone_operator.desired.core import names
from hone_operator.desired.core.hub import hub_environment, secret_mounts
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Work, read_only_folders, writable_folders
from hone_operator.desired.core.shared import Shared
from hone_operator.desired.run.attempt import AttemptInputs
from hone_operator.desired.staging.encode import encode_plan


def rows_to_try(first: AttemptInputs | None, platform: Platform) -> TrainingPlan | None:
    """What is tried before the weights are fetched; None where no rows are there yet.

    Args:
        first: the first attempt with the Datasets that are Ready now; None: they are not.
    """
    plan = encode_plan(first, platform) if first else None
    return None if plan is None or encoding.is_answered_later(plan) else plan


def rows_label(rows: TrainingPlan | None) -> str:
    """Value of the label by which a FineTuneJob tells whether rows like its own were tried; empty for none."""
    return names.digest(rows.to_json(), length=16) if rows else ""


def fetch(
    claim: Mapping[str, Any],
    shared: Shared,
    spec: FineTuneJobSpec,
    number: int,
    platform: Platform,
    rows: TrainingPlan | None = None,
) -> list[dict[str, Any]]:
    """Job and ConfigMap of attempt `number`.

    Args:
        rows: see `rows_to_try`.
    """
    secrets, secret_path = secret_mounts(spec.model.secret_name)
    plan = FetchPlan(
        model=spec.model,
        secret_path=secret_path,
        store=str(names.STORE),
        rows=rows,
        limits=platform.limits,
    )
    work = Work(
        component="fetch",
        verb="fetch",
        plan=plan,
        cpu=platform.staging.cpu,
        memory=platform.staging.memory,
        mounts=(
            *writable_folders(platform, "base-models"),
            *(read_only_folders(platform, "datasets") if rows else ()),
            *secrets,
        ),
        env=hub_environment(platform),
    )
    labels = {names.ROWS: rows_label(rows)} if rows else {}
    return shared.objects(claim, number, work, platform, labels)
