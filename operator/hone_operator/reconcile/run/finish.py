"""Records a successful run: a version number, the ModelVersion, the end of the job."""

from collections.abc import Mapping, Sequence
from typing import Any

from hone_api.base.wording import counted
from hone_api.blocks.delivery import ONE_PUSH, Delivery
from hone_api.combinations.rules import broken_rules
from hone_api.contract.report import TrainingResult
from hone_api.contract.status_json import MemoryJson, ResolvedJson
from hone_api.kinds.resolved import Resolved
from hone_api.words.failures import FailureCode
from hone_api.words.states import Quoted, Reason
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.run.attempt import AttemptInputs, spec_digest
from hone_operator.desired.run.training import training_plan
from hone_operator.desired.version.model_version import FinishedRun, allocate, model_version
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.outcome_builder import JobBuilder, as_json
from hone_operator.reconcile.gates import forecast
from hone_operator.reconcile.run import progress as reports
from hone_operator.reconcile.run.terminal import reject, succeed


def record(
    builder: JobBuilder,
    attempt: AttemptInputs,
    result: TrainingResult,
    ledger: Mapping[str, Any] | None,
    versions: Sequence[Mapping[str, Any]],
    last: int,
    platform: Platform,
) -> Outcome:
    """Allocate a number, create the ModelVersion, end the run. Repeating it after a crash gives the same result."""
    if not platform.privacy.rows_in_status:  # from a pod that started before the setting changed
        result = result.model_copy(update={"samples": []})
    attempts = builder.status.get("attempts") or []
    ended_at = attempts[-1]["endTime"]
    version = allocate(builder.body, attempt.spec.output.model_name, ledger, versions, last=last)
    if version.ledger:
        exists = "resourceVersion" in version.ledger["metadata"]
        (builder.apply if exists else builder.create).append(version.ledger)
    run = FinishedRun(
        owner=builder.body,
        plan=training_plan(attempt, platform),
        resolved=attempt.resolved,
        result=result,
        attempts=attempt.number,
        attempt_nodes=[entry["nodes"] for entry in attempts if "nodes" in entry] or None,
        finished_at=ended_at,
        store_claim=platform.store.claim_name,
        ancestors=attempt.ancestors,
        spec_digest=spec_digest(attempt.spec),
        deliveries=_deliveries(builder, attempt.spec.output.push or ()),
        deletion_policy=attempt.spec.output.deletion_policy,
    )
    body = model_version(run, version.number)
    builder.record.append(body)
    builder.put(
        resolved=merge_resolved(attempt.resolved, result),
        progress=reports.finished(builder.status.get("progress") or {}, result),
        modelVersionName=body["metadata"]["name"],
        tracking=as_json(result.tracking) if result.tracking else None,
    )
    memory: MemoryJson = {**(builder.status.get("memory") or {})}
    if result.estimated_memory_bytes:
        memory["estimated"] = result.estimated_memory_bytes
    if result.peak_memory_bytes:
        memory["peak"] = result.peak_memory_bytes
    if memory:
        builder.put(memory=memory)
    if result.advice:
        forecast.add_advice(builder, result.advice)
    if result.rejected:
        kept = f"{result.rejected} ModelVersion {body['metadata']['name']} is kept as rejected."
        return reject(builder, Cause(FailureCode.RETENTION_GATE_FAILED, kept), ended_at)
    message = f"ModelVersion {body['metadata']['name']} was made in {counted(result.steps, 'step')}."
    return succeed(builder, Quoted(result.reason), message, ended_at)


def _deliveries(builder: JobBuilder, push: Sequence[Delivery]) -> list[Delivery] | None:
    """The entries that a ModelVersion may have, with a Warning about each other one.

    A run that began under an earlier definition can have entries that are refused today. Because of one of them, the
    API server would refuse the whole record of the model.
    """
    accepted: dict[str, Delivery] = {}
    for number, delivery in enumerate(push):
        problems = [str(broken.rule.message) for broken in broken_rules(delivery)]
        if delivery.uri in accepted:
            problems.append(ONE_PUSH.message)
        if problems:
            message = f"spec.output.push[{number}] is not delivered: {'; '.join(problems)}."
            builder.add_event(Reason.DELIVERY_LEFT_OUT, message, warning=True)
        else:
            accepted[delivery.uri] = delivery
    return list(accepted.values()) or None


def merge_resolved(resolved: Resolved, result: TrainingResult) -> ResolvedJson:
    """The operator's pinned inputs, and the trainer's choices that are fields of status.resolved."""
    chosen: dict[str, Any] = {}
    for name, info in Resolved.model_fields.items():
        for key in (name, info.alias or name):
            if key in result.resolved:
                value = result.resolved[key]
                wants_text = name in ("learning_rate", "model_commit", "model_uri", "image")
                chosen[info.alias or name] = str(value) if wants_text else value
    if result.datasets:
        chosen["datasets"] = [use.to_json() for use in result.datasets]
    merged: Any = {**chosen, **resolved.to_json()}  # names are those of the model
    typed: ResolvedJson = merged
    return typed
