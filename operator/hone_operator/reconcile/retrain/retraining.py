"""spec.retrain of a Model: a job is repeated when `retrain_due` says so, and the status says what it waits for. Pure.

What changed is counted in the status from one content of a Dataset to the next; everything else follows from the
objects that exist. The name of the job follows from its template and the content, so a decision that is made twice
creates one job.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hone_api.base.meta import MAX_COUNT
from hone_api.blocks.retrain import RETRAIN_REQUESTED, Retrain
from hone_api.contract.status_json import RetrainDatasetJson, RetrainStatusJson
from hone_api.words.failures import FailureCode
from hone_api.words.states import ConditionType, Reason
from hone_operator.desired.model import retrain as desired
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.core.outcome import Refusal
from hone_operator.reconcile.core.outcome_builder import ModelBuilder
from hone_operator.reconcile.dataset.refresh import schedule_problems
from hone_operator.reconcile.retrain import retrain_base
from hone_operator.reconcile.retrain.retrain_base import ObservedForBase
from hone_operator.reconcile.retrain.retrain_budget import gpu_seconds, hours_left, next_month
from hone_operator.reconcile.retrain.retrain_due import (
    Delay,
    RetrainState,
    describe_news,
    mark_started,
    mark_trained,
    pending,
    why_not_now,
)
from hone_operator.reconcile.retrain.retrain_evidence import Evidence, dataset_digests, trainings
from hone_operator.reconcile.retrain.retrain_history import surplus
from hone_operator.times import read_time

Body = Mapping[str, Any]
UP_TO_DATE = ConditionType.UP_TO_DATE
REFUSED_SECONDS = 300.0
"""Until a job that the API server refused is created again."""


@dataclass(frozen=True)
class ObservedForRetraining:
    """What spec.retrain depends on."""

    template: Body | None = None
    """The FineTuneJob that is repeated."""
    datasets: Mapping[str, Body] = field(default_factory=dict)
    """The existing ones of those that it names."""
    jobs: Sequence[Body] = ()
    """FineTuneJobs that make a model of this name, the template among them."""
    parents: frozenset[str] = frozenset()
    """Names of FineTuneJobs from whose models unfinished ones start, or ones that a Model repeats."""
    versions: Sequence[Body] = ()
    """ModelVersions of this name."""
    base: ObservedForBase = field(default_factory=ObservedForBase)
    refusals: Sequence[Refusal] = ()
    """Of the job that was to be created a moment ago."""

    def after(self, refusals: Sequence[Refusal]) -> "ObservedForRetraining":
        """The same, with what the API server refused a moment ago."""
        return replace(self, base=replace(self.base, refusals=refusals), refusals=refusals)


def problems(retrain: Retrain) -> list[str]:
    """Problems of spec.retrain that the CRD's rules cannot detect."""
    times = schedule_problems("spec.retrain.times", retrain.times) if retrain.times else []
    return [*times, *(retrain_base.problems(retrain.base) if retrain.base else ())]


def _request_problems(model: Body) -> list[str]:
    text = _request(model)
    if text is None or read_time(text):
        return []
    words = f"{text[:64]!r} is not a time, e.g. 2026-11-28T07:00:00Z"
    return [f"metadata.annotations[{RETRAIN_REQUESTED}] {words}: hone retrain {_name(model)} sets it"]


def _request(model: Body) -> str | None:
    """The time of the request, as somebody wrote it."""
    text = (model["metadata"].get("annotations") or {}).get(RETRAIN_REQUESTED)
    return str(text) if text is not None else None


def dataset_names(template: Body) -> list[str]:
    """Datasets that the job trains on, each once."""
    listed = (template.get("spec") or {}).get("datasets") or ()
    return list(dict.fromkeys(str(entry.get("name", "")) for entry in listed))


def made_model(job: Body) -> str | None:
    """Name of the model that a FineTuneJob makes."""
    name = ((job.get("spec") or {}).get("output") or {}).get("modelName")
    return name if isinstance(name, str) else None


def decide_retraining(builder: ModelBuilder, retrain: Retrain | None, seen: ObservedForRetraining) -> None:
    """Set condition UpToDate, record what changed, and create a job if one is due."""
    if retrain is None:
        retrain_base.stop_looking(builder, seen.base)
        builder.put(retrain=None)
        return
    template = seen.template
    if wrong := [*problems(retrain), *_request_problems(builder.body)]:
        _report(builder, Delay(FailureCode.INVALID_VALUE, "; ".join(wrong)))
        return
    if problem := _unrepeatable(builder, retrain, template):
        retrain_base.stop_looking(builder, seen.base)
        _report(builder, problem)
        return
    assert template is not None
    entries = _entries(builder, template, seen)
    if isinstance(entries, Delay):
        _report(builder, entries)
        return
    state = _state(builder, retrain, template, seen, entries)
    wait = why_not_now(builder.body, retrain, state, builder.now)
    refused = next((r for r in seen.refusals if r.kind == "FineTuneJob"), None)
    if wait is None and refused:
        wait = Delay(refused.reason, f"FineTuneJob {refused.name} is not created: {refused.message}", REFUSED_SECONDS)
    state = state.after(wait, builder.time)
    if wait is None:
        builder.create.append(desired.job(builder.body, state.job_name, template, state.hours_left))
        wait = Delay(Reason.RETRAINING, f"FineTuneJob {state.job_name} trains, since {describe_news(state)}.")
        state = state.begun(builder.time)
    _forget_old(
        builder, retrain, state.own, seen.parents | {retrain.fine_tune_job, state.job_name, state.last_job or ""}
    )
    builder.put(retrain=state.to_json())
    _report(builder, wait)


def _state(
    builder: ModelBuilder,
    retrain: Retrain,
    template: Body,
    seen: ObservedForRetraining,
    entries: Sequence[RetrainDatasetJson],
) -> RetrainState:
    """What there is: the rows, the base, the jobs so far."""
    old = builder.old.get("retrain") or {}
    idle = not retrain.suspend and all(is_true(job, ConditionType.FINISHED) for job in seen.jobs)
    base = retrain_base.decide_base(builder, retrain.base, template, _newest(seen.jobs, old), seen.base, idle)
    digests = {entry["name"]: entry["digest"] for entry in entries}
    present = retrain_base.present_base(base)
    name = desired.name(builder.body["metadata"]["name"], template, digests, present)
    own = [job for job in seen.jobs if _is_ours(builder.body, job)]
    by_name = {_name(job): job for job in own}
    current = by_name.get(name)
    same_rows = [each for each in trainings(seen.jobs, seen.versions) if digests.items() <= each.rows.items()]
    same = [each for each in same_rows if present is None or present in each.bases]
    if current or same_rows:
        entries = mark_trained(entries)
    if current or same:
        base = mark_started(base)
    last_start = max(filter(None, [old.get("lastStart"), *map(_created, seen.jobs)]), default=None)
    state = RetrainState(
        job_name=name,
        entries=entries,
        base=base,
        rows=sum(int((seen.datasets[name].get("status") or {}).get("rows") or 0) for name in digests),
        jobs=seen.jobs,
        own=own,
        current=current,
        last_job=_name(current) if current else old.get("lastJob"),
        last_start=last_start,
        requested=pending(read_time(_request(builder.body)), read_time(last_start)),
        gpu_seconds=sum(gpu_seconds(job, builder.now) for job in own),
        hours_left=hours_left(template, own, builder.now),
        due_since=old.get("dueSince"),
    )
    if not (current or state.is_new):  # a job that was created before the base was known has another name
        state = replace(state, current=by_name.get(state.last_job or ""))
    failed = next((each.failed for each in same if each.failed), None)
    return replace(state, succeeded=_succeeded(old, state, same), failed=failed)


def _newest(jobs: Sequence[Body], old: RetrainStatusJson) -> Body | None:
    """The newest job, unless a later one was deleted: what that one started from is in the status."""
    newest = max(jobs, key=_created, default=None)
    if newest and _name(newest) != old.get("lastJob") and _created(newest) < old.get("lastStart", ""):
        return None
    return newest


def _succeeded(old: RetrainStatusJson, state: RetrainState, same: Collection[Evidence]) -> bool | None:
    """Whether a job on the rows and base that count as trained made a model; None: nobody knows.

    Args:
        same: what was made of the present rows and base.
    """
    if any(each.succeeded for each in same) or (state.current and is_true(state.current, ConditionType.SUCCEEDED)):
        return True
    if any(each.failed for each in same) or (state.current and is_true(state.current, ConditionType.FAILED)):
        return False
    if _marks(old) != _marks(state.to_json()):
        return None
    lost = state.last_job is not None and state.last_job not in {_name(job) for job in state.own}
    return old.get("succeeded", False if lost and not state.is_new else None)


def _marks(status: RetrainStatusJson) -> Collection[tuple[str, str | None]]:
    """The rows and the base that count as trained."""
    base = status.get("base")
    rows = {(entry["name"], entry["trained"]) for entry in status.get("datasets") or ()}
    return rows | {("", base.get("trained"))} if base else rows


def _created(job: Body) -> str:
    return str(job["metadata"].get("creationTimestamp") or "")


def _forget_old(builder: ModelBuilder, retrain: Retrain, own: Sequence[Body], needed: Collection[str]) -> None:
    """Delete the finished jobs that the history limits leave no room for."""
    old = surplus(retrain, own, needed, builder.now)
    builder.delete += old.delete
    for job in old.delete:
        builder.add_event(
            Reason.JOB_EXPIRED, f"FineTuneJob {_name(job)} is deleted by the history limits of spec.retrain."
        )
    if old.counted:
        builder.check_in(builder.until(next_month(builder.now)))


def _unrepeatable(builder: ModelBuilder, retrain: Retrain, template: Body | None) -> Delay | None:
    """Why the named job cannot be repeated."""
    name, model = retrain.fine_tune_job, builder.body["metadata"]["name"]
    if template is None or template["metadata"].get("deletionTimestamp"):
        return Delay(Reason.FINE_TUNE_JOB_NOT_FOUND, f"spec.retrain.fineTuneJob: there is no FineTuneJob {name}.")
    output = template["spec"].get("output") or {}
    if output.get("modelName") != model:
        words = f"FineTuneJob {name} makes the model {output.get('modelName')}, not {model}: name a job of this model."
        return Delay(Reason.NOT_REPEATABLE, words)
    if output.get("version") is not None:
        words = f"FineTuneJob {name} asks for version {output['version']}, which exists once: name a job without it."
        return Delay(Reason.NOT_REPEATABLE, words)
    if retrain.base and (words := retrain_base.unwatchable(model, template) or ""):
        return Delay(Reason.NOT_REPEATABLE, words)
    return None


def _entries(builder: ModelBuilder, template: Body, seen: ObservedForRetraining) -> list[RetrainDatasetJson] | Delay:
    """What changed in each Dataset; or what must be there first."""
    before = {entry["name"]: entry for entry in (builder.old.get("retrain") or {}).get("datasets") or ()}
    trained = dataset_digests(template)
    entries: list[RetrainDatasetJson] = []
    for name in dataset_names(template):
        status = (seen.datasets.get(name) or {}).get("status") or {}
        if not (status.get("digest") and is_true(seen.datasets.get(name) or {}, ConditionType.READY)):
            return Delay(Reason.DATASET_NOT_READY, f"Dataset {name} of FineTuneJob {_name(template)} is not Ready.")
        entries.append(_entry(name, status, before.get(name), trained.get(name), builder.time))
    return entries


def _entry(
    name: str, status: Mapping[str, Any], before: RetrainDatasetJson | None, trained: str | None, time: str
) -> RetrainDatasetJson:
    digest = status["digest"]
    if before is None:
        before = {"name": name, "digest": trained or digest, "trained": trained or digest, "changedRows": 0}
    if digest == before["digest"]:
        return before
    if digest == before["trained"]:
        return {**before, "digest": digest, "changedRows": 0, "changedAt": time}
    changes = status.get("changes") or {}
    # Of contents that came and went unseen, at least the last difference is known.
    rows = max(1, int(changes.get("added") or 0) + int(changes.get("removed") or 0))
    return {
        **before,
        "digest": digest,
        "changedRows": min(before["changedRows"] + rows, MAX_COUNT),
        "changedAt": time,
    }


def _is_ours(model: Body, job: Body) -> bool:
    owners = job["metadata"].get("ownerReferences") or ()
    return any(owner.get("kind") == "Model" and owner.get("uid") == model["metadata"]["uid"] for owner in owners)


def _name(body: Body) -> str:
    return str(body["metadata"]["name"])


def _report(builder: ModelBuilder, wait: Delay) -> None:
    builder.conditions.set(UP_TO_DATE, wait.reason == Reason.TRAINED, wait.reason, wait.message)
    trouble = (Reason.FINE_TUNE_JOB_NOT_FOUND, Reason.NOT_REPEATABLE, Reason.RETRAIN_FAILED, Reason.BUDGET_USED_UP)
    builder.add_event_if_changed(UP_TO_DATE, warning=wait.reason in trouble)
    builder.check_in(wait.seconds)
