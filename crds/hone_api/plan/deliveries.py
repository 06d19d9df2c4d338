"""Plans of the Jobs that copy a model elsewhere or register it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hone_api.base.meta import HttpUrl, Name, ShortText
from hone_api.blocks.delivery import Delivery
from hone_api.blocks.tracking import RegisteredAlias, RegisteredName, VersionToRegister
from hone_api.plan.fields import BILL, ArtifactInput, NetworkPlan
from hone_api.plan.plan_paths import PlanPath


class DeliverPlan(NetworkPlan):
    """Copies one artifact of a ModelVersion to a registry, a bucket or a volume."""

    kind: Literal["Deliver"] = "Deliver"
    name: Name = Field(description="ModelVersion: the name of the folder in a bucket or on a volume.")
    version: int = Field(ge=1, description="Its number: v<number> is the tag of an image that has none.")
    artifact: ArtifactInput
    target: Delivery
    target_path: PlanPath | None = Field(default=None, description="Folder that pvc://claim/path is.")
    secret_path: PlanPath | None = Field(default=None, description="Folder where target.secretName is mounted.")
    labels: dict[str, str] = Field(default_factory=dict, description="Annotations of an image.")
    created: ShortText | None = Field(default=None, description="When training ended, RFC 3339, for an image.")
    provenance: dict[str, Any] | None = Field(
        default=None, description="The same predicate, for a statement that is attached to an image; none: none is."
    )
    bom: dict[str, Any] | None = BILL


class RegisterPlan(NetworkPlan):
    """Registers ModelVersions and sets aliases in MLflow's model registry."""

    kind: Literal["Register"] = "Register"
    model: Name = Field(description="Name of the Model.")
    uri: HttpUrl = Field(description="The server with the registry.")
    name: RegisteredName = Field(description="Name of the registered model.")
    secret_path: PlanPath | None = Field(default=None, description="Folder where secretName is mounted.")
    versions: list[VersionToRegister] = Field(description="Versions to register, and those that get an alias.")
    aliases: list[RegisteredAlias] = Field(default_factory=list, description="Aliases to set, each on one of versions.")
    remove: list[str] = Field(default_factory=list, description="Aliases that point to nothing any more.")
