"""ModelVersions as inputs of a run: where their weights are, and how a pod mounts them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from hone_api.base.meta import alias_of
from hone_api.base.schemes import image_of
from hone_api.blocks.delivery import ArtifactForm
from hone_api.kinds.modelversion import Ancestor, ModelVersionSpec
from hone_api.kinds.plan_record import PlanRecord, StageSettings
from hone_api.kinds.resolved import PinnedModel
from hone_api.plan import ArtifactInput, ModelInput, PublicKey
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Mount

MODELS = PurePosixPath("/models")
"""Where volumes other than the store, and images, are mounted."""
IMAGE_FOLDER = "models"
"""Folder of an image with the files of the model, as KServe reads them and deliveries write them."""
MAX_ANCESTORS = 16
MAX_PLANS = 98_304
"""Characters of the plans of all ancestors: they are in an annotation of the attempt, whose limit is 256 KiB."""
STANDALONE: tuple[ArtifactForm, ...] = ("Merged", "Full")
"""Forms that load without another model, in order of preference."""


class UnusableModelError(ValueError):
    """A ModelVersion that no run can start from; the message says why."""


def pin(name: str, spec: ModelVersionSpec) -> PinnedModel:
    """Locate the weights of a ModelVersion: its merged or full form, else its base and the adapter to merge.

    Raises:
        UnusableModelError: it has neither, or it is an adapter whose base is not recorded.
    """
    forms = {a.format: a for a in spec.artifacts}
    for form in STANDALONE:
        if form in forms:
            return PinnedModel(name=name, uri=forms[form].uri, digest=forms[form].digest)
    if "Adapter" not in forms:
        raise UnusableModelError(f"ModelVersion {name} has only {', '.join(forms)}: training needs safetensors")
    base = spec.lineage.base_model
    if base.location is None:
        raise UnusableModelError(
            f"ModelVersion {name} is an adapter, and lineage.baseModel.location does not say where its base is"
        )
    adapter = forms["Adapter"]
    return PinnedModel(name=name, uri=base.location, adapter_uri=adapter.uri, adapter_digest=adapter.digest)


def ancestors(name: str, spec: ModelVersionSpec, pinned: PinnedModel) -> list[Ancestor]:
    """The chain up to and including this ModelVersion, by value, oldest first; only the newest stages of a very long
    one."""
    lineage = spec.lineage
    parent = Ancestor(
        **{field: getattr(lineage, field) for field in Ancestor.model_fields if hasattr(lineage, field)},
        model_version=name,
        digest=pinned.adapter_digest or pinned.digest or "",
    )
    room, chain = MAX_PLANS, list[Ancestor]()
    for stage in [parent, *reversed(lineage.ancestors)][:MAX_ANCESTORS]:
        entry = stage if stage.plan or not stage.hyper_parameters else _as_plan(stage)
        room -= len((entry.plan and entry.plan.text) or "")
        chain.insert(0, entry if room >= 0 else _without_text(entry))
    return chain


def _as_plan(stage: Ancestor) -> Ancestor:
    """A stage from before `plan` as it is recorded today."""
    values = stage.values
    plan, settings = PlanRecord.of(values), StageSettings.of(values)
    return stage.model_copy(update={"plan": plan, "settings": settings, "hyper_parameters": None})


def _without_text(stage: Ancestor) -> Ancestor:
    return stage.model_copy(update={"plan": stage.plan and stage.plan.model_copy(update={"text": None})})


@dataclass(frozen=True)
class Place:
    """A folder of a volume or an image as pods see it."""

    path: PurePosixPath
    volume: Mount | None
    """To mount; None: the store, which every run mounts."""

    @classmethod
    def of(cls, uri: str, platform: Platform) -> "Place":
        """The place of `pvc://claim/path` or `oci://image` in pods."""
        if image := image_of(uri):
            key = names.digest(image)
            return cls(MODELS / key / IMAGE_FOLDER, Mount.image(f"models-{key}", MODELS / key, image))
        _, claim, path = names.split_uri(uri)
        if claim == platform.store.claim_name:
            return cls(names.STORE / path, None)
        return cls(MODELS / claim / path, Mount.claim(f"models-{names.digest(claim)}", MODELS / claim, claim))


def places(models: Iterable[PinnedModel], platform: Platform, others: Iterable[str] = ()) -> list[Mount]:
    """Mounts for all folders of these models, and for other addresses, each volume once."""
    uris = [*others, *(uri for m in models for uri in (m.uri, m.adapter_uri) if uri)]
    volumes = [volume for uri in uris if (volume := Place.of(uri, platform).volume)]
    return list({volume.name: volume for volume in volumes}.values())


def folder(uri: str) -> str:
    """The folder of a volume, at most two levels deep, that contains everything that `pvc://claim/path` needs.

    Two, because a cache of huggingface_hub has links from `models--org--name/snapshots` to its sibling `blobs`.
    """
    _, _, path = names.split_uri(uri)
    return "/".join(PurePosixPath(path).parts[:2])


def store_folders(models: Iterable[PinnedModel], platform: Platform) -> list[str]:
    """Folders of the store that hold these models."""
    uris = [uri for m in models for uri in (m.uri, m.adapter_uri) if uri]
    return [folder(uri) for uri in uris if Place.of(uri, platform).volume is None]


def model_input(model: PinnedModel, platform: Platform) -> ModelInput:
    """The model as the trainer's plan names it."""
    return ModelInput(
        path=str(Place.of(model.uri, platform).path),
        digest=model.digest,
        adapter=adapter_input(model, platform),
        trusted=trusted_signers(model, platform),
    )


def trusted_signers(model: PinnedModel, platform: Platform) -> list[PublicKey] | None:
    """Whose signature the folder must have. None: the base of an adapter, which has no signature to check."""
    return platform.signing.trusted if model.digest is not None else None


def adapter_input(model: PinnedModel, platform: Platform) -> ArtifactInput | None:
    """The adapter to merge first, if any."""
    if model.adapter_uri is None or model.adapter_digest is None:
        return None
    return ArtifactInput(
        path=str(Place.of(model.adapter_uri, platform).path),
        digest=model.adapter_digest,
        trusted=platform.signing.trusted,
    )


def references(spec: Mapping[str, Any]) -> list[str]:
    """Names of the ModelVersions that a job reads in addition to its base, e.g. the reward model."""
    named = [(spec.get("ppo") or {}).get("rewardModelVersion")]
    for block in ("grpo", "evaluation"):
        rewards = (spec.get(block) or {}).get("rewards") or ()
        named += [(reward.get("rewardModel") or {}).get("modelVersion") for reward in rewards]
    named.append(teacher(spec))
    return list(dict.fromkeys(name for name in named if name))


def datasets(spec: Mapping[str, Any]) -> set[str]:
    """Names of the Datasets that a job is trained or measured on; the spec may be older than its schema."""
    fields = [spec.get("datasets"), spec.get("evaluationDatasets")]
    fields.append(((spec.get("evaluation") or {}).get("retention") or {}).get("datasets"))
    return {d["name"] for named in fields for d in named or ()}


def versions(spec: Mapping[str, Any]) -> set[str]:
    """Names of the ModelVersions that a job starts from, reads in addition to its base, or is compared with."""
    named = (spec["model"].get("modelVersion"), rival(spec))
    return {*references(spec), *(name for name in named if name)}


def parents(spec: Mapping[str, Any]) -> list[str]:
    """Names of the ModelVersions in the lineage of one; `spec` is its own."""
    lineage = spec.get("lineage") or {}
    above = [lineage.get("baseModel") or {}, *(lineage.get("ancestors") or ())]
    return [name for parent in above if (name := parent.get("modelVersion"))]


def measured_on(spec: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(kind, name) of each Dataset, Model and ModelVersion in spec.evaluations of a ModelVersion; the spec may be older
    than its schema."""
    out = set()
    for entry in spec.get("evaluations") or ():
        against = entry.get("against")
        other = alias_of(against)
        named = (("Dataset", entry.get("dataset")), ("Model", other[0]) if other else ("ModelVersion", against))
        out |= {(kind, name) for kind, name in named if name}
    return out


def alias(spec: Mapping[str, Any]) -> tuple[str, str] | None:
    """(Model, alias) that a job starts from by `models://name@alias`; None: it names its base otherwise."""
    return alias_of(spec["model"].get("uri"))


def comparison_alias(spec: Mapping[str, Any]) -> tuple[str, str] | None:
    """(Model, alias) that the tuned model is compared with; None: with the base alone."""
    return alias_of((spec.get("evaluation") or {}).get("against"))


def rival(spec: Mapping[str, Any]) -> str | None:
    """The ModelVersion that the tuned model is compared with, where the job names it and not an alias."""
    against = (spec.get("evaluation") or {}).get("against")
    return None if alias_of(against) else against


def teacher(spec: Mapping[str, Any]) -> str | None:
    """The ModelVersion among them that answers prompts instead of scoring."""
    return (spec.get("distillation") or {}).get("teacherModelVersion")
