"""The plan: everything that a pod of the trainer image needs, resolved, in one JSON file.

From operator to trainer. It has no Kubernetes in it: the same file works on a laptop.
Relative paths are relative to the plan file's folder.

One module for each group of Jobs; import from here.
"""

from typing import Annotated

from pydantic import Field

from hone_api.plan.deliveries import DeliverPlan, RegisterPlan
from hone_api.plan.fields import (
    CONTRACT,
    PLAN_SHA256_ENV,
    POD_INDEX_ENV,
    SECRET_VARIABLES_ENV,
    SECRETS_ENV,
    ArtifactInput,
    Cidr,
    DatasetInput,
    ExportFolder,
    Limits,
    ModelInput,
    NetworkPlan,
    PlanFields,
    PublicKey,
    Release,
    ServicePattern,
    TasksInput,
)
from hone_api.plan.models import ImportPlan, MeasurePlan, SignPlan, VerifyPlan
from hone_api.plan.rows import MaterializePlan, MixPlan, RowsPlan
from hone_api.plan.store import FetchPlan, LookupPlan, SweepPlan, TasksPlan
from hone_api.plan.training import TrackingInput, TrainingPlan

__all__ = [
    "CONTRACT",
    "PLAN_SHA256_ENV",
    "POD_INDEX_ENV",
    "SECRETS_ENV",
    "SECRET_VARIABLES_ENV",
    "AnyPlan",
    "ArtifactInput",
    "Cidr",
    "DatasetInput",
    "DeliverPlan",
    "ExportFolder",
    "FetchPlan",
    "ImportPlan",
    "Limits",
    "LookupPlan",
    "MaterializePlan",
    "MeasurePlan",
    "MixPlan",
    "ModelInput",
    "NetworkPlan",
    "Plan",
    "PlanFields",
    "PublicKey",
    "RegisterPlan",
    "Release",
    "RowsPlan",
    "ServicePattern",
    "SignPlan",
    "SweepPlan",
    "TasksInput",
    "TasksPlan",
    "TrackingInput",
    "TrainingPlan",
    "VerifyPlan",
]

AnyPlan = (
    MaterializePlan
    | MixPlan
    | FetchPlan
    | LookupPlan
    | TasksPlan
    | TrainingPlan
    | VerifyPlan
    | SweepPlan
    | SignPlan
    | DeliverPlan
    | RegisterPlan
    | ImportPlan
    | MeasurePlan
)

Plan = Annotated[AnyPlan, Field(discriminator="kind")]
