"""Model: what belongs to the name of a model and not to one of its versions, first of all its aliases."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.base.meta import (
    CONDITIONS,
    MAX_COUNT,
    OBSERVED_GENERATION,
    ApiModel,
    Column,
    Condition,
    Digest,
    Kind,
    Name,
    ShortText,
    SignedDecimal,
    Text,
    Timestamp,
    keyed_by,
)
from hone_api.base.rule import Rule
from hone_api.blocks.delivery import ONE_DELIVERY, Delivery
from hone_api.blocks.entries import RETRIED, PlaceStatus
from hone_api.blocks.imports import MAX_IMPORTS, ONE_IMPORT, Imports
from hone_api.blocks.retrain import Retrain, RetrainStatus
from hone_api.blocks.tracking import Registry, RegistryStatus
from hone_api.kinds.modelversion import MAX_VERSION
from hone_api.words.states import ApprovalState, GateResult, ImportState

MAX_ALIASES = 16
MAX_CANDIDATES = 5
"""Newest versions for which the status says what keeps them from being promoted."""
MAX_HISTORY = 10
"""Earlier targets of an alias that its status remembers."""
AliasName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=32)]
_VERSION = r"^v[0-9]+$"
_MODEL_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_LIKE_A_VERSION = "an alias is not called like a version: choose a word, e.g. production"
VersionNumber = Annotated[int, Field(ge=1, le=MAX_VERSION)]


class PinnedAlias(ApiModel):
    """A name for a version, chosen by people: promotion and rollback are one commit."""

    rules = (
        Rule(
            f"!self.matches('{_VERSION}')",
            _LIKE_A_VERSION,
            of="name",
            one_field=True,
        ),
    )
    name: AliasName = Field(description="Name, e.g. production.")
    version: VersionNumber = Field(description="Number of the version that the alias points to.")


class PromotionGate(ApiModel):
    """A limit for a number of the evaluation. It passes or fails only if the whole 95 % interval does."""

    rules = (
        Rule(
            "has(self.atMost) || has(self.atLeast)",
            "set atMost, atLeast or both, e.g. atMost: '1.2'",
        ),
    )
    metric: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(
        description="Name of the number in spec.evaluation.numbers or status.evaluations of the ModelVersion, e.g. "
        "loss: the newest of each dataset is read."
    )
    dataset: Annotated[str, StringConstraints(max_length=253)] = Field(
        default="", description="Its dataset there, e.g. faq/validation. Default: all numbers of this name must pass."
    )
    value: Literal["Tuned", "Change", "Against"] = Field(
        default="Tuned",
        description="Tuned: the value of the model; Change: tuned minus base; Against: tuned minus the version in use, "
        "which evaluation.against of the job or against of spec.evaluations of the ModelVersion names; of "
        "parity_<reward>, minus the recorded answers. It passes if no model was in use. Default Tuned.",
    )
    at_most: SignedDecimal | None = Field(default=None, description="Upper limit in the metric's unit, e.g. '1.2'.")
    at_least: SignedDecimal | None = Field(default=None, description="Lower limit in the metric's unit, e.g. '0.8'.")


class Promotion(ApiModel):
    """Aliases that the operator moves: to the newest version whose gates passed and that a person approved."""

    rules = (
        Rule(
            f"self.all(name, !name.matches('{_VERSION}'))",
            _LIKE_A_VERSION,
            of="aliases",
            one_field=True,
        ),
    )
    policy: Literal["Automatic", "Manual"] = Field(
        default="Manual",
        description="Automatic moves the aliases. Manual moves none: they stay where they are. In both cases an alias "
        "leaves a version that is rejected, no longer approved, altered or gone, but not one whose gates fail later. "
        "Default Manual.",
    )
    aliases: Annotated[list[AliasName], Field(min_length=1, max_length=8)] = Field(
        description="Aliases that the operator alone moves, e.g. champion; none of them may be in spec.aliases."
    )
    gates: Annotated[list[PromotionGate], keyed_by("metric", "dataset", "value", max_length=16)] | None = Field(
        default=None, description="Limits that a version must keep; all of them. Default: none, approval is enough."
    )


class VersionRetention(ApiModel):
    """Which versions are deleted when newer ones exist."""

    keep: int = Field(
        ge=1,
        le=1000,
        description="Number of newest versions that stay, and of newest versions that can be used: rejected ones, "
        "and those whose files do not match, do not push out others. Older ones are deleted, except those that are "
        "approved, that an alias points to, that a later version was made from, or that a job, a Dataset or a running "
        "pod uses.",
    )


class ModelDelivery(Delivery):
    """A copy of each version of the model elsewhere. Each has a place of its own, which follows from its number."""

    rules = (
        *Delivery.rules,
        Rule(
            "!self.uri.startsWith('oci://') || !self.uri.substring(self.uri.lastIndexOf('/')).contains(':')",
            "each version gets the tag v<version>: remove the tag",
            field_path=".uri",
        ),
    )
    when: Literal["Ready", "Approved", "Aliased"] = Field(
        default="Approved",
        description="Which versions. Ready: all that can be used; Approved: those that a person approved; Aliased: "
        "those to which an alias of this Model points. What was delivered stays there. Default Approved.",
    )


class ModelSpec(ApiModel):
    """What people decide about a model of this name. The operator creates an empty Model and never changes its spec."""

    rules = (
        Rule(
            "!has(self.promotion) || !has(self.aliases) || self.promotion.aliases.all(a, "
            "!self.aliases.exists(p, p.name == a))",
            "an alias has one writer: name it in spec.aliases or in spec.promotion.aliases, not in both",
        ),
        ONE_DELIVERY,
        ONE_IMPORT,
    )
    aliases: Annotated[list[PinnedAlias], keyed_by("name", max_length=MAX_ALIASES)] | None = Field(
        default=None,
        description="Aliases that people move, each once. An alias whose version is missing, not Ready or rejected "
        "stays where it was until that version can be used. Default: none.",
    )
    promotion: Promotion | None = Field(
        default=None, description="Aliases that follow gates and approval. Default: none."
    )
    retention: VersionRetention | None = Field(
        default=None,
        description="Which versions are deleted when newer ones exist. What happens to the files of a deleted version "
        "is its own deletionPolicy, which output.deletionPolicy of its job decided. Default: none is deleted.",
    )
    retrain: Retrain | None = Field(default=None, description="Training again when rows change. Default: never.")
    deliveries: Annotated[list[ModelDelivery], keyed_by("uri", max_length=4)] | None = Field(
        default=None,
        description="Where versions are copied to, in addition to spec.deliveries of each. status.deliveries of the "
        "ModelVersion has the state. Default: nowhere.",
    )
    registry: Registry | None = Field(
        default=None,
        description="Where Ready versions and all aliases are registered as well. A version with deliveries is "
        "registered once one of them has arrived. Condition Registered has the state. Default: nowhere.",
    )
    imports: Imports | None = Field(
        default=None,
        description="Models that were trained elsewhere. Each is imported once, and becomes the next version of this "
        "model. status.imports shows the progress. If you remove an entry, its version stays. Default: none.",
    )


class AliasTarget(ApiModel):
    """Where an alias pointed before."""

    version: int = Field(ge=1, le=MAX_VERSION, description="Number of the version.")
    since: Timestamp = Field(description="From when on.")
    until: Timestamp = Field(description="Until when.")
    digest: Digest | None = Field(default=None, description="As of the alias.")


class AliasStatus(ApiModel):
    """Where an alias points."""

    name: AliasName = Field(description="Name of the alias.")
    version: int = Field(ge=1, le=MAX_VERSION, description="Number of the version.")
    model_version: Name = Field(description="Name of the ModelVersion.")
    since: Timestamp = Field(description="When the alias was moved there.")
    digest: Digest | None = Field(
        default=None,
        description="Digest of the version's artifact; of several, the SHA-256 of their digests. The alias never "
        "points to a version of the same number with another digest.",
    )
    writer: Literal["Spec", "Promotion"] = Field(
        description="Who moves the alias. Spec: people, in spec.aliases; Promotion: the operator, by spec.promotion."
    )
    approved_by: ShortText | None = Field(
        default=None, description="With Promotion: who approved the version, from its spec.approval.by."
    )
    history: Annotated[list[AliasTarget], Field(max_length=MAX_HISTORY)] = Field(
        default_factory=list, description="Earlier versions, newest first; at most 10."
    )


class FormerAlias(ApiModel):
    """Where an alias that points nowhere now pointed before."""

    name: AliasName = Field(description="Name of the alias.")
    history: Annotated[list[AliasTarget], Field(max_length=MAX_HISTORY)] = Field(
        description="Versions, newest first; at most 10."
    )


class ImportStatus(PlaceStatus):
    """One entry of spec.imports."""

    key: ShortText = Field(description="Digest of what the entry asks for; another one is another import.")
    state: ImportState = Field(
        description="Pending: not begun, or the next attempt waits; Importing: a Job reads the files; Imported: the "
        "ModelVersion exists; Failed: no further attempt before the entry or the annotation hone.dev/retry changes."
    )
    message: Text | None = Field(
        default=None, description="What happened, and what to do; of an imported model, the files that were left out."
    )
    model_version: Name | None = Field(default=None, description="Name of the ModelVersion that it became.")
    imported_at: Timestamp | None = Field(default=None, description="When the files were complete.")


class PromotionCandidate(ApiModel):
    """What keeps a version from being promoted."""

    version: int = Field(ge=1, le=MAX_VERSION, description="Number of the version.")
    model_version: Name = Field(description="Name of the ModelVersion.")
    gates: GateResult = Field(
        description="All gates together. Inconclusive: the 95 % interval spans a limit, or a number is missing."
    )
    approval: ApprovalState = Field(description="spec.approval.state of the ModelVersion.")
    message: Text | None = Field(
        default=None, description="What is missing; absent for a version that can be promoted."
    )


class ModelStatus(ApiModel):
    """Current state; written only by the operator."""

    observed_generation: int | None = OBSERVED_GENERATION
    conditions: list[Condition] = CONDITIONS
    retried: ShortText | None = RETRIED
    versions: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Number of ModelVersions of this name.")
    last_version: int | None = Field(
        default=None,
        ge=1,
        le=MAX_VERSION,
        description="Highest number that a version of this name has had, also one that was deleted. It is not used "
        "again.",
    )
    latest: int | None = Field(default=None, ge=1, le=MAX_VERSION, description="Highest version number that exists.")
    aliases: Annotated[list[AliasStatus], keyed_by("name", max_length=2 * MAX_ALIASES)] | None = Field(
        default=None,
        description="Where each alias points, by name.",
    )
    former_aliases: Annotated[list[FormerAlias], Field(max_length=2 * MAX_ALIASES)] | None = Field(
        default=None,
        description="Aliases of the spec that point nowhere now, and where they pointed, by name.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    promotable: int | None = Field(
        default=None,
        ge=1,
        le=MAX_VERSION,
        description="Newest version whose gates passed and that a person approved; with spec.promotion.",
    )
    candidates: Annotated[list[PromotionCandidate], Field(max_length=MAX_CANDIDATES)] | None = Field(
        default=None, description="The newest versions and what keeps them from being promoted; with spec.promotion."
    )
    retrain: RetrainStatus | None = Field(default=None, description="What spec.retrain depends on.")
    registry: RegistryStatus | None = Field(default=None, description="What the registry of spec.registry has.")
    imports: Annotated[list[ImportStatus], Field(max_length=MAX_IMPORTS)] | None = Field(
        default=None, description="State of each entry of spec.imports."
    )
    summary: ShortText | None = Field(default=None, description="The aliases in one line, for display.")


MODEL = Kind(
    kind="Model",
    plural="models",
    singular="model",
    short_name="mdl",
    spec=ModelSpec,
    empty=True,
    status=ModelStatus,
    columns=(
        Column("Versions", ".status.versions", type="integer"),
        Column("Latest", ".status.latest", type="integer"),
        Column("Aliases", ".status.summary"),
        Column("Promotable", ".status.promotable", type="integer", priority=1),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Age", ".metadata.creationTimestamp", type="date"),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
        Column("Registered", '.status.conditions[?(@.type=="Registered")].status', priority=1),
        Column("Retrain", '.status.conditions[?(@.type=="UpToDate")].reason', priority=1),
        Column("Imported", '.status.conditions[?(@.type=="Imported")].status', priority=1),
    ),
    rules=(
        Rule(
            f"size(self.metadata.name) <= 50 && self.metadata.name.matches('{_MODEL_NAME}')",
            "metadata.name is the name of a model, as in spec.output.modelName of a FineTuneJob: at most 50 lower-case "
            "letters, digits and -, e.g. support-bot",
        ),
    ),
)
