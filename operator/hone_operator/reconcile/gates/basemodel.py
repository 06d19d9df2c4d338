"""The models a job reads: on a volume, another job's result, or staged by a fetch Job before any GPU is requested."""

from dataclasses import dataclass, field, replace

from hone_api.base.meta import alias_of
from hone_api.blocks.shape import ModelShape
from hone_api.contract.report import FetchResult
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.modelversion import Ancestor
from hone_api.kinds.resolved import PinnedModel, Resolved
from hone_api.methods import Method
from hone_api.words.states import ConditionType, Reason
from hone_operator.desired.core import modelref, names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.shared import base_model as shared_model
from hone_operator.desired.run.attempt import AttemptInputs
from hone_operator.desired.staging.fetch import fetch, rows_label, rows_to_try
from hone_operator.reconcile.core import upstream
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome_builder import JobBuilder, OutcomeBuilder
from hone_operator.reconcile.core.upstream import Found, Upstream, Wait
from hone_operator.reconcile.staging.staging import RECHECK_SECONDS, Staging, StoreState, stage


@dataclass(frozen=True)
class Sources:
    """What is known about the sources of the models."""

    store: StoreState
    claim_exists: bool | None
    upstream: Upstream
    pinned: Resolved | None
    """The inputs of the first attempt. From then on nothing else matters, and upstream objects may be deleted."""
    first: AttemptInputs | None = None
    """The first attempt with the Datasets, where they are Ready."""


@dataclass(frozen=True)
class BaseModel:
    """The locations of the models, or why the job cannot continue."""

    ready: bool = False
    commit: str | None = None
    uri: str | None = None
    digest: str | None = None
    """Digest of the manifest of a fetched model; a ModelVersion has its own."""
    failure: Cause | None = None
    """Final: another attempt cannot help."""
    version: PinnedModel | None = None
    shape: ModelShape | None = None
    """Its sizes, if known: a user's volume is not inspected."""
    ancestors: list[Ancestor] = field(default_factory=list)
    others: tuple[PinnedModel, ...] = ()
    """ModelVersions that the method reads in addition to the base."""
    teacher: ModelShape | None = None
    """Sizes of the teacher among them, if known."""
    compared_with: str | None = None
    """Name of the one among them that the result is compared with; empty: there is none yet."""
    license: str | None = None
    """Licence of the base, if its card names one."""


def base_model(builder: JobBuilder, spec: FineTuneJobSpec, sources: Sources, platform: Platform) -> BaseModel:
    """Set condition ModelReady, and request a fetch Job if one is due."""
    if pinned := sources.pinned:
        if alias_of(spec.model.uri) and pinned.model_version:
            builder.put(baseModelVersion=pinned.model_version.name)
        return _ready(builder, BaseModel(True, pinned.model_commit, pinned.model_uri, version=pinned.model_version))
    if spec.model.uri is None:
        model = _chained(builder, upstream.base(builder.body["spec"], sources.upstream))
    elif alias := alias_of(spec.model.uri):
        model = _chained(builder, _aliased(builder, alias, sources.upstream))
    elif spec.model.uri.startswith("pvc://"):
        model = _on_volume(builder, spec, sources.claim_exists)
    elif spec.model.uri.startswith("oci://"):
        model = _ready(builder, BaseModel(True, spec.model.uri.rpartition("@")[2], spec.model.uri))
    else:
        model = _fetched(builder, spec, sources, platform)
    return _with_others(builder, model, sources.upstream) if model.ready else model


def _aliased(builder: JobBuilder, alias: tuple[str, str], objects: Upstream) -> Found | Wait | Cause:
    """The ModelVersion to which the alias pointed first: where it points later changes nothing for this job."""
    name = builder.old.get("baseModelVersion") or upstream.resolve_alias(alias, objects)
    if isinstance(name, Wait):
        return name
    builder.put(baseModelVersion=name)
    return upstream.version(name, objects, reward=False)


def _chained(builder: OutcomeBuilder, resolved: Found | Wait | Cause) -> BaseModel:
    """The base is a ModelVersion."""
    if not isinstance(resolved, Found):
        return _not_found(builder, resolved)
    pin = resolved.model
    digest = pin.adapter_digest or pin.digest
    model = BaseModel(
        True, digest, pin.uri, version=pin, shape=resolved.shape, ancestors=resolved.ancestors, license=resolved.license
    )
    return _ready(builder, model)


def _with_others(builder: OutcomeBuilder, model: BaseModel, objects: Upstream) -> BaseModel:
    """Resolve the reward models, the teacher and the model to compare with as well."""
    spec, others, teacher = builder.body["spec"], list[PinnedModel](), None
    for name in modelref.references(spec):
        teaches = name == modelref.teacher(spec)
        resolved = upstream.version(name, objects, reward=not teaches)
        if not isinstance(resolved, Found):
            return _not_found(builder, resolved)
        others.append(resolved.model)
        teacher = resolved.shape if teaches else teacher
    alias, rival = modelref.comparison_alias(spec), modelref.rival(spec)
    rewards = spec.get("method") == Method.REWARD
    champion = upstream.comparison_version(alias, objects, reward=rewards) if alias else None
    champion = upstream.version(rival, objects, reward=rewards) if rival else champion
    if isinstance(champion, Found):
        others += [champion.model] if champion.model not in others else []
    elif champion is not None:
        return _not_found(builder, champion)
    compared_with = champion.model.name if champion else "" if alias else None
    return replace(model, others=tuple(others), teacher=teacher, compared_with=compared_with)


def _not_found(builder: OutcomeBuilder, why: Wait | Cause) -> BaseModel:
    if isinstance(why, Cause):
        builder.conditions.set(ConditionType.MODEL_READY, False, why.code, why.message)
        return BaseModel(failure=why)
    builder.conditions.set(ConditionType.MODEL_READY, False, why.reason, why.message)
    return BaseModel()


def _on_volume(builder: OutcomeBuilder, spec: FineTuneJobSpec, exists: bool | None) -> BaseModel:
    if exists:
        return _ready(builder, BaseModel(True, None, spec.model.uri))
    claim = names.split_uri(spec.model.uri or "")[1]
    message = f"PersistentVolumeClaim {claim} of spec.model.uri does not exist in this namespace: create it."
    builder.conditions.set(ConditionType.MODEL_READY, False, Reason.PVC_NOT_FOUND, message)
    builder.check_in(RECHECK_SECONDS)
    return BaseModel()


def _ready(builder: OutcomeBuilder, model: BaseModel) -> BaseModel:
    if model.version:
        what = f"ModelVersion {model.version.name}, {model.commit}"
    else:
        is_named = model.commit is None or f"{model.uri}".endswith(model.commit)
        what = f"{model.uri}" if is_named else f"{model.uri} at commit {model.commit}"
    builder.conditions.set(ConditionType.MODEL_READY, True, Reason.AVAILABLE, what)
    return model


def _fetched(builder: OutcomeBuilder, spec: FineTuneJobSpec, sources: Sources, platform: Platform) -> BaseModel:
    shared = shared_model(builder.body["spec"], platform)
    if shared is None:
        raise AssertionError("only models that are downloaded are fetched")
    rows = rows_to_try(sources.first, platform)
    work = Staging(
        shared,
        ConditionType.MODEL_READY,
        FetchResult,
        f"{spec.model.uri} is",
        lambda claim, number: fetch(claim, shared, spec, number, platform, rows),
        rows=rows_label(rows),
    )
    staged = stage(builder, work, sources.store, platform)
    if isinstance(staged, Cause):
        return BaseModel(failure=staged)
    if staged is None:
        return BaseModel()
    uri = f"pvc://{platform.store.claim_name}/{staged.path.strip('/')}"
    return _ready(
        builder, BaseModel(True, staged.commit, uri, digest=staged.digest, shape=staged.shape, license=staged.license)
    )
