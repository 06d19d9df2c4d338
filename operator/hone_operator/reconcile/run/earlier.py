"""A run whose ModelVersion exists has finished, whatever happened to its status and its Job. Pure.

The status is lost if an object is restored from a backup, or edited. The ModelVersion is the record: it names the job
that made it, and is immutable. So no attempt begins if there is one, and the status is restored from it. The record of
a
failed run is a ConfigMap.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from hone_api.base.wording import counted
from hone_api.contract.status_json import AttemptJson, JobProgressJson, ResolvedJson
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.words.failures import FailureCode
from hone_api.words.states import ApprovalState, AttemptOutcome, ConditionType, Reason
from hone_operator.desired.core.names import RESTORED, VELERO
from hone_operator.desired.run.attempt import spec_digest, spec_digest_before
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.outcome_builder import JobBuilder
from hone_operator.reconcile.run.progress import without_stage
from hone_operator.reconcile.run.terminal import reject, succeed

Body = Mapping[str, Any]
REASON = Reason.RESTORED_FROM_MODEL_VERSION
FAILED = Reason.RESTORED_FROM_RECORD


def is_restored(job: Body) -> bool:
    """Whether this object was restored from a backup: it has a new uid but is the same run."""
    meta = job["metadata"]
    marked = (meta.get("annotations") or {}).get(RESTORED)
    return marked != "false" if marked is not None else VELERO in (meta.get("labels") or {})


def version_of_run(job: Body, versions: Iterable[Body]) -> Body | None:
    """The ModelVersion that this run made; the newest of several, None if there is none.

    Args:
        versions: ModelVersions of the job's namespace whose lineage refers to the job, by uid or by name.
    """
    meta = job["metadata"]
    by_uid, by_name = [], []
    for version in versions:
        maker = _maker(version)
        if maker.get("uid") == meta["uid"]:
            by_uid.append(version)
        elif maker.get("name") == meta["name"] and is_restored(job) and _of_this_spec(job, version):
            by_name.append(version)
    return max(by_uid or by_name, key=lambda v: v["spec"].get("version", 0), default=None)


def _maker(version: Body) -> Body:
    maker: Body = (version["spec"].get("lineage") or {}).get("job") or {}
    return maker


def _of_this_spec(job: Body, version: Body) -> bool:
    """Whether the spec is the same. Older operators recorded no digest: then the model's name decides."""
    if (job["spec"].get("output") or {}).get("modelName") != version["spec"].get("modelName"):
        return False
    recorded = _maker(version).get("specDigest")
    try:
        spec = FineTuneJobSpec.model_validate(job["spec"])
    except ValidationError:
        return False
    return recorded in (None, spec_digest(spec), spec_digest_before(spec))


def differs(job: Body, versions: Iterable[Body]) -> str | None:
    """Why a restored object does not start: a job of its name has made a model by another spec. None: it may start."""
    meta, versions = job["metadata"], list(versions)
    models = [v["metadata"]["name"] for v in versions if _maker(v).get("name") == meta["name"]]
    if not models or not is_restored(job) or version_of_run(job, versions) is not None:
        return None
    return (
        f"This object is marked as restored, and a job of its name has made ModelVersion {models[-1]} by another spec. "
        f"If it is to train: kubectl annotate ftj {meta['name']} -n {meta['namespace']} {RESTORED}=false --overwrite; "
        "otherwise delete it"
    )


def restore(builder: JobBuilder, version: Body, unfinished: Iterable[Body]) -> Outcome:
    """Restore the end of the run from its ModelVersion; Jobs that still run are deleted.

    Curves and records of attempts were only in the status, and are lost.
    """
    name, lineage = version["metadata"]["name"], version["spec"].get("lineage") or {}
    ended_at, steps = lineage.get("finishedAt") or builder.time, lineage.get("steps")
    words = "The status was lost, and is restored from the ModelVersion: the run does not start again."
    _conditions(builder, REASON, words)
    builder.put(
        attempts=_closed(builder, ended_at, lineage.get("attempts")) or None,
        modelVersionName=name,
        progress=_progress(builder, steps),
        resolved=builder.old.get("resolved") or _resolved(lineage),
        tracking=lineage.get("tracking"),
    )
    builder.add_event(REASON, f"{words} It made ModelVersion {name}.", warning=True)
    builder.delete += unfinished
    gate = version["spec"].get("approval") or {}
    if gate.get("state") == ApprovalState.REJECTED and (gate.get("comment") or "").startswith(f"{gate.get('by')}:"):
        kept = f"{gate['comment']} ModelVersion {name} is kept as rejected."
        return reject(builder, Cause(FailureCode.RETENTION_GATE_FAILED, kept), ended_at)
    sentence = f"ModelVersion {name} was made" + (f" in {counted(steps, 'step')}." if steps is not None else ".")
    return succeed(builder, REASON, f"{sentence} {words}", ended_at)


def restore_failure(builder: JobBuilder, cause: Cause, ended_at: str, unfinished: Iterable[Body]) -> Outcome:
    """Restore the end of a failed run from its record (see `terminal.record`); Jobs that still run are deleted."""
    words = "The status was lost, and is restored from the record of the run's end: it does not start again."
    _conditions(builder, FAILED, words)
    builder.put(attempts=_closed(builder, ended_at, None) or None)
    builder.add_event(FAILED, words, warning=True)
    builder.create.clear()
    builder.delete += unfinished
    return reject(builder, cause, ended_at)


def _conditions(builder: JobBuilder, reason: Reason, words: str) -> None:
    """Set the conditions of the earlier stages, about which nothing is known any more."""
    harness = [t for t in (ConditionType.TASKS_READY,) if (builder.body["spec"].get("evaluation") or {}).get("harness")]
    builder.conditions.set(ConditionType.ACCEPTED, True, Reason.ACCEPTED, "")
    for type_ in (ConditionType.DATASET_READY, ConditionType.MODEL_READY, *harness, ConditionType.ADMITTED):
        builder.conditions.keep(type_, reason)
    builder.conditions.set(ConditionType.RUNNING, False, reason, words)
    builder.conditions.set(ConditionType.SUSPENDED, False, Reason.NOT_SUSPENDED, "")
    builder.conditions.keep(ConditionType.ADVISED, reason)


def _closed(builder: JobBuilder, ended_at: str, made_by_attempt: int | None) -> list[AttemptJson]:
    """The attempts that the status still has; open ones are closed."""
    records: list[AttemptJson] = [{**r} for r in builder.old.get("attempts") or ()]
    for record in records:
        if "endTime" not in record:
            record["endTime"] = ended_at
            if record["number"] == made_by_attempt:
                record["outcome"] = AttemptOutcome.SUCCEEDED
            else:
                record |= {"outcome": AttemptOutcome.PREEMPTED, "reason": REASON}
    return records


def _progress(builder: JobBuilder, steps: int | None) -> JobProgressJson | None:
    progress = without_stage(builder.old.get("progress") or {})
    if steps is not None:
        progress |= {"step": steps, "totalSteps": steps, "percent": 100, "summary": f"{steps}/{steps} 100%"}
    return progress or None


def _resolved(lineage: Body) -> ResolvedJson | None:
    base, resolved = lineage.get("baseModel") or {}, ResolvedJson()
    if commit := base.get("commit"):
        resolved["modelCommit"] = commit
    if location := base.get("location"):
        resolved["modelUri"] = location
    if digests := {d["name"]: d["digest"] for d in lineage.get("datasets") or ()}:
        resolved["datasetDigests"] = digests
    if image := lineage.get("image"):
        resolved["image"] = image
    return resolved or None
