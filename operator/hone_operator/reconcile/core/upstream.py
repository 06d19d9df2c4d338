"""What a job is built on: a ModelVersion by name, or the one that another job makes. Waits, pins, or fails."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from hone_api.base.reading import read_known
from hone_api.blocks.shape import ModelShape
from hone_api.kinds.modelversion import Ancestor, ModelVersionSpec
from hone_api.kinds.resolved import PinnedModel
from hone_api.methods import Method
from hone_api.words.failures import FailureCode
from hone_api.words.states import AnyReason, ApprovalState, ConditionType, JobPhase, Reason
from hone_operator.desired.core import modelref
from hone_operator.desired.core.modelref import UnusableModelError
from hone_operator.reconcile.core.conditions import condition, is_true
from hone_operator.reconcile.core.failures import Cause

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Upstream:
    """The objects of the namespace that a job refers to, directly or through other jobs; missing ones are absent."""

    jobs: Mapping[str, Body] = field(default_factory=dict)
    versions: Mapping[str, Body] = field(default_factory=dict)
    models: Mapping[str, Body] = field(default_factory=dict)
    """Models whose aliases the job names."""


@dataclass(frozen=True)
class Wait:
    """Not yet: reason and message of condition ModelReady."""

    reason: AnyReason
    message: str


@dataclass(frozen=True)
class Found:
    """A ModelVersion that can be used now, with the chain that led to it."""

    model: PinnedModel
    ancestors: list[Ancestor]
    shape: ModelShape | None
    license: str | None = None
    """Licence of the base model that the chain began with."""


def cycle(job: Body, upstream: Upstream) -> list[str] | None:
    """Names along spec.model.fineTuneJob from this job until one repeats; None if the chain has a beginning."""
    names, here = [job["metadata"]["name"]], job
    while (name := here["spec"]["model"].get("fineTuneJob")) is not None:
        names.append(name)
        if name in names[:-1]:
            return names
        if name not in upstream.jobs:
            return None
        here = upstream.jobs[name]
    return None


def base(spec: Body, upstream: Upstream) -> Found | Wait | Cause:
    """The ModelVersion that spec.model refers to."""
    if name := spec["model"].get("modelVersion"):
        return version(name, upstream, reward=False)
    name = spec["model"]["fineTuneJob"]
    job = upstream.jobs.get(name)
    if job is None:
        words = "create it; of a finished job that was deleted, name the ModelVersion in spec.model.modelVersion"
        return Wait(Reason.FINE_TUNE_JOB_NOT_FOUND, f"FineTuneJob {name} does not exist in this namespace: {words}.")
    status = job.get("status") or {}
    if is_true(job, ConditionType.FAILED):
        why = condition(job, ConditionType.FAILED)
        return Cause(
            FailureCode.UPSTREAM_FAILED, f"FineTuneJob {name} failed with {why.get('reason')}: {why.get('message')}"
        )
    if not is_true(job, ConditionType.SUCCEEDED):
        return Wait(
            Reason.WAITING_FOR_JOB, f"FineTuneJob {name} has not finished ({status.get('phase', JobPhase.PENDING)})."
        )
    return version(status.get("modelVersionName", ""), upstream, reward=False)


def resolve_alias(alias: tuple[str, str], upstream: Upstream) -> str | Wait:
    """Name of the ModelVersion to which an alias points now, once the operator has seen what people want of it."""
    model, name = alias
    body = upstream.models.get(model)
    if body is None:
        words = f"Model {model} does not exist in this namespace: create it with the alias {name}"
        return Wait(Reason.MODEL_MISSING, f"{words}, or name a ModelVersion in spec.model.modelVersion.")
    if not is_seen(body):
        return Wait(Reason.MODEL_MISSING, f"Model {model} has changed, and the operator has not seen it yet.")
    if version_name := target(alias, upstream):
        return version_name
    words = f"Model {model} has no alias {name}, or it points to nothing: kubectl get models.hone.dev {model} -o yaml"
    return Wait(Reason.ALIAS_NOT_FOUND, f"{words}.")


def comparison_version(alias: tuple[str, str], upstream: Upstream, *, reward: bool) -> Found | Wait | Cause | None:
    """The ModelVersion that a new model is compared with; None: there is none yet.

    Args:
        reward: whether the new model is a reward model, which is compared with another one.
    """
    body = upstream.models.get(alias[0])
    if body is not None and not is_seen(body):
        return Wait(Reason.MODEL_MISSING, f"Model {alias[0]} has changed, and the operator has not seen it yet.")
    name = target(alias, upstream)
    champion = version(name, upstream, reward=reward) if name else None
    if isinstance(champion, Cause):
        words = (
            f"spec.evaluation.against: {champion.message} Point the alias {alias[1]} of Model {alias[0]} to another."
        )
        return Wait(Reason.WAITING_FOR_MODEL_VERSION, words)
    return champion


def target(alias: tuple[str, str], upstream: Upstream) -> str | None:
    """Name of the ModelVersion to which an alias points; None: to none, or there is no such Model or alias."""
    model, name = alias
    entries = (upstream.models.get(model, {}).get("status") or {}).get("aliases") or ()
    return next((entry["modelVersion"] for entry in entries if entry["name"] == name), None)


def is_seen(model: Body) -> bool:
    """Whether the status of a Model is about its present spec."""
    return bool((model.get("status") or {}).get("observedGeneration") == model["metadata"].get("generation"))


def version(name: str, upstream: Upstream, *, reward: bool) -> Found | Wait | Cause:
    """A ModelVersion by name; `reward`: whether a reward model is wanted, and not a model that answers."""
    body = upstream.versions.get(name)
    if body is None:
        return Wait(
            Reason.MODEL_VERSION_NOT_FOUND,
            f"ModelVersion {name} does not exist in this namespace: check the name, or wait for the "
            "FineTuneJob that makes it.",
        )
    try:
        spec = read_known(ModelVersionSpec, body["spec"])[0]
        pinned = modelref.pin(name, spec)
    except ValidationError:
        return Cause(FailureCode.UNUSABLE_MODEL_VERSION, f"ModelVersion {name} was written by another version of Hone.")
    except UnusableModelError as error:
        return Cause(FailureCode.UNUSABLE_MODEL_VERSION, str(error))
    if wrong := _wrong_kind(name, spec, reward):
        return Cause(FailureCode.UNUSABLE_MODEL_VERSION, wrong)
    if spec.approval.state == ApprovalState.REJECTED:
        return Wait(
            Reason.MODEL_VERSION_REJECTED, f"ModelVersion {name} was rejected: spec.approval.comment may say why."
        )
    why = condition(body, ConditionType.READY)
    if is_true(body, ConditionType.STALLED):
        return Cause(FailureCode.UPSTREAM_FAILED, f"ModelVersion {name}: {why.get('reason')}: {why.get('message')}")
    if why.get("status") != "True":
        return Wait(
            Reason.WAITING_FOR_MODEL_VERSION, f"ModelVersion {name} is not Ready ({why.get('reason', 'not seen yet')})."
        )
    base_model = spec.lineage.base_model
    return Found(pinned, modelref.ancestors(name, spec, pinned), base_model.shape, base_model.license)


def _wrong_kind(name: str, spec: ModelVersionSpec, reward: bool) -> str | None:
    """A reward model returns a number and no text; a language model returns text."""
    scores = spec.lineage.method == Method.REWARD
    if reward and not scores:
        return f"ModelVersion {name} was made by {spec.lineage.method}: name one that method Reward made."
    if scores and not reward:
        return (
            f"ModelVersion {name} is a reward model, which cannot be tuned to answer: name the model it was made from."
        )
    return None
