"""The models a job reads: on a volume, another job's result, or staged by a fetch Job before any GPU is asked for."""

from dataclasses import dataclass, field, replace

from hone_api.estimate.shape import ModelShape
from hone_api.finetunejob import FineTuneJobSpec
from hone_api.finetunejob_status import PinnedModel, Resolved
from hone_api.modelversion import Ancestor
from hone_api.report import FetchResult
from hone_api.states import ConditionType, Reason
from hone_operator.desired import modelref, names
from hone_operator.desired.fetch import fetch
from hone_operator.desired.platform import Platform
from hone_operator.desired.shared import base_model as shared_model
from hone_operator.reconcile import upstream
from hone_operator.reconcile.draft import Draft
from hone_operator.reconcile.failures import Cause
from hone_operator.reconcile.staging import RECHECK_SECONDS, Stage, Staging, stage
from hone_operator.reconcile.upstream import Found, Upstream, Wait


@dataclass(frozen=True)
class Sources:
    """What is known of where the models come from."""

    store: Stage
    claim_exists: bool | None
    upstream: Upstream
    pinned: Resolved | None
    """What the first attempt began with. From then on nothing else matters: what is upstream may go."""


@dataclass(frozen=True)
class BaseModel:
    """Where the models are, or why the job cannot go on."""

    ready: bool = False
    commit: str | None = None
    uri: str | None = None
    digest: str | None = None
    """Of the manifest of what was fetched; a ModelVersion has its own."""
    failure: Cause | None = None
    """Final: trying again cannot help."""
    version: PinnedModel | None = None
    shape: ModelShape | None = None
    """Its sizes, where they are known: a volume of the user's is not looked into."""
    ancestors: list[Ancestor] = field(default_factory=list)
    others: tuple[PinnedModel, ...] = ()
    """ModelVersions that the method reads beside the base."""
    teacher: ModelShape | None = None
    """Sizes of the one of them that is a teacher, where they are known."""


def base_model(draft: Draft, spec: FineTuneJobSpec, sources: Sources, platform: Platform) -> BaseModel:
    """Sets condition ModelReady, and asks for a fetch Job where one is due."""
    if pinned := sources.pinned:
        return _ready(draft, BaseModel(True, pinned.model_commit, pinned.model_uri, version=pinned.model_version))
    if spec.model.uri is None:
        model = _chained(draft, upstream.base(draft.body["spec"], sources.upstream))
    elif spec.model.uri.startswith("pvc://"):
        model = _on_volume(draft, spec, sources.claim_exists)
    else:
        model = _fetched(draft, spec, sources, platform)
    return _with_others(draft, model, sources.upstream) if model.ready else model


def _chained(draft: Draft, found: Found | Wait | Cause) -> BaseModel:
    """The base is a ModelVersion."""
    if not isinstance(found, Found):
        return _not_found(draft, found)
    pin = found.model
    digest = pin.adapter_digest or pin.digest
    made = BaseModel(True, digest, pin.uri, version=pin, shape=found.shape, ancestors=found.ancestors)
    return _ready(draft, made)


def _with_others(draft: Draft, model: BaseModel, objects: Upstream) -> BaseModel:
    """The reward models and the teacher, too."""
    spec, others, teacher = draft.body["spec"], list[PinnedModel](), None
    for name in modelref.references(spec):
        teaches = name == modelref.teacher(spec)
        found = upstream.version(name, objects, reward=not teaches)
        if not isinstance(found, Found):
            return _not_found(draft, found)
        others.append(found.model)
        teacher = found.shape if teaches else teacher
    return replace(model, others=tuple(others), teacher=teacher)


def _not_found(draft: Draft, why: Wait | Cause) -> BaseModel:
    if isinstance(why, Cause):
        draft.conditions.set(ConditionType.MODEL_READY, False, why.code, why.message)
        return BaseModel(failure=why)
    draft.conditions.set(ConditionType.MODEL_READY, False, why.reason, why.message)
    return BaseModel()


def _on_volume(draft: Draft, spec: FineTuneJobSpec, exists: bool | None) -> BaseModel:
    if exists:
        return _ready(draft, BaseModel(True, None, spec.model.uri))
    claim = names.split_uri(spec.model.uri or "")[1]
    message = f"PersistentVolumeClaim {claim} of spec.model.uri does not exist in this namespace: create it."
    draft.conditions.set(ConditionType.MODEL_READY, False, Reason.PVC_NOT_FOUND, message)
    draft.check_in(RECHECK_SECONDS)
    return BaseModel()


def _ready(draft: Draft, model: BaseModel) -> BaseModel:
    if model.version:
        what = f"ModelVersion {model.version.name}, {model.commit}"
    else:
        what = f"{model.uri} at commit {model.commit}" if model.commit else f"{model.uri}"
    draft.conditions.set(ConditionType.MODEL_READY, True, Reason.AVAILABLE, what)
    return model


def _fetched(draft: Draft, spec: FineTuneJobSpec, sources: Sources, platform: Platform) -> BaseModel:
    shared = shared_model(draft.body["spec"], platform)
    if shared is None:
        raise AssertionError("only what is downloaded comes here")
    wanted = Staging(
        shared,
        ConditionType.MODEL_READY,
        FetchResult,
        f"{spec.model.uri} is",
        lambda claim, number: fetch(claim, shared, spec, number, platform),
    )
    found = stage(draft, wanted, sources.store, platform)
    if isinstance(found, Cause):
        return BaseModel(failure=found)
    if found is None:
        return BaseModel()
    uri = f"pvc://{platform.store_claim}/{found.path.strip('/')}"
    return _ready(draft, BaseModel(True, found.commit, uri, digest=found.digest, shape=found.shape))
