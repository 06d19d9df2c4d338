"""The base model of a job: on a volume already, or staged by a fetch Job before any GPU is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from hone_api.failures import Retry
from hone_api.finetunejob import FineTuneJobSpec
from hone_api.report import FetchResult
from hone_operator.desired import names
from hone_operator.desired.fetch import fetch
from hone_operator.desired.platform import Platform
from hone_operator.reconcile.draft import Draft
from hone_operator.reconcile.failures import Cause
from hone_operator.reconcile.pods import ObservedJob
from hone_operator.reconcile.tries import Tries, observe_tries, timed_out

RECHECK_SECONDS = 15.0


@dataclass(frozen=True)
class BaseModel:
    """Where the base model is, or why the job cannot go on."""

    ready: bool = False
    commit: str | None = None
    uri: str | None = None
    failure: Cause | None = None
    """Final: trying again cannot help."""


def base_model(
    draft: Draft,
    spec: FineTuneJobSpec,
    jobs: Sequence[ObservedJob],
    claim_exists: bool | None,
    platform: Platform,
) -> BaseModel:
    """Sets condition ModelReady, and asks for a fetch Job where one is due."""
    scheme, claim, _ = names.split_uri(spec.model.uri or "")
    if scheme == "pvc":
        return _on_volume(draft, spec, claim, claim_exists)
    pinned = draft.old.get("resolved") or {}
    if pinned.get("modelUri"):
        return _ready(draft, BaseModel(True, pinned.get("modelCommit"), pinned["modelUri"]))
    return _fetched(draft, spec, observe_tries(jobs), platform)


def _on_volume(draft: Draft, spec: FineTuneJobSpec, claim: str, exists: bool | None) -> BaseModel:
    if exists:
        return _ready(draft, BaseModel(True, None, spec.model.uri))
    message = f"PersistentVolumeClaim {claim} of spec.model.uri does not exist in this namespace: create it."
    draft.conditions.set("ModelReady", False, "PVCNotFound", message)
    draft.check_in(RECHECK_SECONDS)
    return BaseModel()


def _ready(draft: Draft, model: BaseModel) -> BaseModel:
    at = f" at commit {model.commit}" if model.commit else ""
    draft.conditions.set("ModelReady", True, "Available", f"{model.uri}{at}")
    return model


def _fetched(draft: Draft, spec: FineTuneJobSpec, tries: Tries, platform: Platform) -> BaseModel:
    if tries.ending and isinstance(tries.ending.result, FetchResult):
        result = tries.ending.result
        uri = f"pvc://{platform.store_claim}/{result.path.strip('/')}"
        return _ready(draft, BaseModel(True, result.commit, uri))
    cause = tries.cause or timed_out(tries, draft.now, platform.start_timeout_seconds)
    if cause and (cause.retry is Retry.NEVER or tries.cause is None):
        draft.conditions.set("ModelReady", False, cause.code, cause.message)
        return BaseModel(failure=cause)
    if tries.active and tries.job:
        draft.await_start(tries.job)
    start = tries.next_start()
    due = tries.number == 0 or (start is not None and start <= draft.now)
    if due and not spec.suspend:
        draft.create += fetch(draft.body, spec, tries.number + 1, platform)
        draft.delete += [j for j in (*tries.older, *([tries.job.body] if tries.job else []))]
    elif start:
        draft.check_in(draft.until(start))
    if cause:
        draft.conditions.set("ModelReady", False, cause.code, f"{cause.advice} It is tried again.")
    elif tries.obstacle:
        draft.conditions.set("ModelReady", False, tries.obstacle.reason, tries.obstacle.message)
        draft.check_in(RECHECK_SECONDS)
    elif tries.number > 1 and draft.conditions.failed_before("ModelReady"):
        draft.conditions.keep("ModelReady", "")
    else:
        draft.conditions.set("ModelReady", False, "Fetching", f"{spec.model.uri} is being staged in the store.")
    return BaseModel()
