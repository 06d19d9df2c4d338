"""What a job is built on: a ModelVersion by name, or the one that another job makes. Waits, pins, or gives up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from hone_api.estimate.shape import ModelShape
from hone_api.finetunejob_status import PinnedModel
from hone_api.methods import Method
from hone_api.modelversion import Ancestor, ModelVersionSpec
from hone_api.reading import read_known
from hone_operator.desired import modelref
from hone_operator.desired.modelref import UnusableModelError
from hone_operator.reconcile.conditions import condition, is_true
from hone_operator.reconcile.failures import Cause

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Upstream:
    """The objects of the namespace that a job names, directly or through other jobs; absent ones do not exist."""

    jobs: Mapping[str, Body] = field(default_factory=dict)
    versions: Mapping[str, Body] = field(default_factory=dict)


@dataclass(frozen=True)
class Wait:
    """Not yet: reason and message of condition ModelReady."""

    reason: str
    message: str


@dataclass(frozen=True)
class Found:
    """A ModelVersion that can be used now, with the chain that led to it."""

    model: PinnedModel
    ancestors: list[Ancestor]
    shape: ModelShape | None


def cycle(job: Body, upstream: Upstream) -> list[str] | None:
    """Names along spec.model.fineTuneJob from this job until one comes again; None when the chain has a beginning."""
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
    """The ModelVersion that spec.model means."""
    if name := spec["model"].get("modelVersion"):
        return version(name, upstream, reward=False)
    name = spec["model"]["fineTuneJob"]
    job = upstream.jobs.get(name)
    if job is None:
        words = "create it; of a finished job that was deleted, name the ModelVersion in spec.model.modelVersion"
        return Wait("FineTuneJobNotFound", f"FineTuneJob {name} does not exist in this namespace: {words}.")
    status = job.get("status") or {}
    if is_true(job, "Failed"):
        why = condition(job, "Failed")
        return Cause("UpstreamFailed", f"FineTuneJob {name} failed with {why.get('reason')}: {why.get('message')}")
    if not is_true(job, "Succeeded"):
        return Wait("WaitingForJob", f"FineTuneJob {name} has not finished ({status.get('phase', 'Pending')}).")
    return version(status.get("modelVersionName", ""), upstream, reward=False)


def version(name: str, upstream: Upstream, *, reward: bool) -> Found | Wait | Cause:
    """A ModelVersion by name; `reward` says whether it is to score answers, or to be trained on."""
    body = upstream.versions.get(name)
    if body is None:
        return Wait(
            "ModelVersionNotFound",
            f"ModelVersion {name} does not exist in this namespace: check the name, or wait for the "
            "FineTuneJob that makes it.",
        )
    try:
        spec = read_known(ModelVersionSpec, body["spec"])[0]
        pinned = modelref.pin(name, spec)
    except ValidationError:
        return Cause("UnusableModelVersion", f"ModelVersion {name} was written by another version of Hone.")
    except UnusableModelError as error:
        return Cause("UnusableModelVersion", str(error))
    if wrong := _wrong_kind(name, spec, reward):
        return Cause("UnusableModelVersion", wrong)
    if spec.approval.state == "Rejected":
        return Wait("ModelVersionRejected", f"ModelVersion {name} was rejected: spec.approval.comment may say why.")
    why = condition(body, "Ready")
    if is_true(body, "Stalled"):
        return Cause("UpstreamFailed", f"ModelVersion {name}: {why.get('reason')}: {why.get('message')}")
    if why.get("status") != "True":
        return Wait(
            "WaitingForModelVersion", f"ModelVersion {name} is not Ready ({why.get('reason', 'not seen yet')})."
        )
    return Found(pinned, modelref.ancestors(name, spec, pinned), spec.lineage.base_model.shape)


def _wrong_kind(name: str, spec: ModelVersionSpec, reward: bool) -> str | None:
    """A reward model gives a number and no text; a language model gives no number."""
    scores = spec.lineage.method == Method.REWARD
    if reward and not scores:
        return f"ModelVersion {name} was made by {spec.lineage.method}: name one that method Reward made."
    if scores and not reward:
        return (
            f"ModelVersion {name} is a reward model, which cannot be tuned to answer: name the model it was made from."
        )
    return None
