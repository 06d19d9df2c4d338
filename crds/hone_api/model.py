"""Model: what belongs to the name of a model and not to one of its versions, first of all its aliases."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.meta import (
    CONDITIONS,
    MAX_COUNT,
    OBSERVED_GENERATION,
    ApiModel,
    Column,
    Condition,
    Kind,
    Name,
    Rule,
    ShortText,
    Timestamp,
)
from hone_api.modelversion import MAX_VERSION

MAX_ALIASES = 16
MAX_HISTORY = 10
"""Earlier targets of an alias that its status remembers."""
AliasName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=32)]
VersionNumber = Annotated[int, Field(ge=1, le=MAX_VERSION)]


class PinnedAlias(ApiModel):
    """A name for a version, chosen by people: promotion and rollback are one commit."""

    rules = (
        Rule(
            "!self.name.matches('^v[0-9]+$')",
            "an alias is not called like a version: choose a word, e.g. production",
            field_path=".name",
        ),
    )
    name: AliasName = Field(description="Name, e.g. production.")
    version: VersionNumber = Field(description="Number of the version that the alias points to.")


class ModelSpec(ApiModel):
    """What people decide about a model of this name. The operator creates an empty Model and never changes its spec."""

    aliases: Annotated[list[PinnedAlias], Field(max_length=MAX_ALIASES)] | None = Field(
        default=None,
        description="Aliases that people move, each once. An alias whose version is missing, not Ready or rejected "
        "stays where it was until that version can be used. Default: none.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


class AliasTarget(ApiModel):
    """Where an alias pointed before."""

    version: int = Field(ge=1, le=MAX_VERSION, description="Number of the version.")
    since: Timestamp = Field(description="From when on.")
    until: Timestamp = Field(description="Until when.")


class AliasStatus(ApiModel):
    """Where an alias points."""

    name: AliasName = Field(description="Name of the alias.")
    version: int = Field(ge=1, le=MAX_VERSION, description="Number of the version.")
    model_version: Name = Field(description="Name of the ModelVersion.")
    since: Timestamp = Field(description="When the alias was moved there.")
    writer: Literal["Spec"] = Field(description="Who moves the alias. Spec: people, in spec.aliases.")
    history: Annotated[list[AliasTarget], Field(max_length=MAX_HISTORY)] = Field(
        default_factory=list, description="Earlier versions, newest first; at most 10."
    )


class ModelStatus(ApiModel):
    """Current state; written only by the operator."""

    observed_generation: int | None = OBSERVED_GENERATION
    conditions: list[Condition] = CONDITIONS
    versions: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Number of ModelVersions of this name.")
    latest: int | None = Field(default=None, ge=1, le=MAX_VERSION, description="Highest version number that exists.")
    aliases: Annotated[list[AliasStatus], Field(max_length=2 * MAX_ALIASES)] | None = Field(
        default=None,
        description="Where each alias points, by name.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    summary: ShortText | None = Field(default=None, description="The aliases in one line, for display.")


MODEL = Kind(
    kind="Model",
    plural="models",
    singular="model",
    short_name="mdl",
    spec=ModelSpec,
    status=ModelStatus,
    columns=(
        Column("Versions", ".status.versions", type="integer"),
        Column("Latest", ".status.latest", type="integer"),
        Column("Aliases", ".status.summary"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Age", ".metadata.creationTimestamp", type="date"),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
    ),
    rules=(
        Rule(
            "size(self.metadata.name) <= 50 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name is the name of a model, as in spec.output.modelName of a FineTuneJob: at most 50 lower-case "
            "letters, digits and -, e.g. support-bot",
        ),
    ),
)
