"""Builds the ModelVersion of a finished run, and the ledger that allocates version numbers."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from hone_api import API_VERSION
from hone_api.base.meta import DeletionPolicy
from hone_api.blocks.delivery import Delivery
from hone_api.blocks.shape import ModelShape
from hone_api.contract.report import TrainingResult
from hone_api.kinds.modelversion import (
    MAX_VERSION,
    Ancestor,
    Approval,
    Artifact,
    BaseModelLineage,
    DatasetLineage,
    JobLineage,
    Lineage,
    ModelEvaluation,
    ModelVersionSpec,
)
from hone_api.kinds.plan_record import PLACES, PlanRecord, StageSettings
from hone_api.kinds.resolved import Resolved
from hone_api.plan import TrainingPlan
from hone_api.words.states import ApprovalState
from hone_operator.desired.core import names

REMEMBERED = 64
"""Runs of a model whose number the ledger remembers: more than can be between allocation and creation at one time."""


class _Entry(BaseModel):
    """What the ledger has of one model, as JSON; anybody who may edit ConfigMaps can have written it."""

    last: int = Field(default=0, ge=0, lt=MAX_VERSION)
    runs: dict[str, Annotated[int, Field(gt=0, le=MAX_VERSION)]] = {}


@dataclass(frozen=True)
class Version:
    """A version number, and the ledger that must be written before the number is used."""

    number: int
    ledger: dict[str, Any] | None
    """None: the run already had this number."""


def allocate(
    owner: Mapping[str, Any],
    model: str,
    ledger: Mapping[str, Any] | None,
    existing: Iterable[Mapping[str, Any]],
    imported: str | None = None,
    last: int = 0,
) -> Version:
    """The version number for this run's model: the run's existing one, or one that was never used.

    `ledger` is the namespace's ConfigMap as read (its resourceVersion guards the write), `existing` the
    ModelVersions of the namespace, `last` the last number in the status of the Model: any of the three may have been
    lost. Of an import, `owner` is its Job and `imported` the key of its entry.
    """
    uid = owner["metadata"]["uid"]
    data: dict[str, str] = dict((ledger or {}).get("data") or {})
    recorded, runs = _remembered(data.get(model, ""))
    taken = {v["spec"]["version"]: maker(v) for v in existing if v["spec"]["modelName"] == model}
    own = [number for number, made_by in taken.items() if made_by == (imported or uid)]
    if own:
        return Version(own[0], None)
    if uid in runs and runs[uid] not in taken:
        return Version(runs[uid], None)
    # The largest number leaves none after it: whoever makes a ModelVersion with it would end all later runs.
    number = max(recorded, *(number for number in (last, *taken) if number < MAX_VERSION), 0) + 1
    runs = dict([*((u, n) for u, n in runs.items() if u != uid), (uid, number)][-REMEMBERED:])
    data[model] = json.dumps({"last": number, "runs": runs})
    metadata = {
        "name": names.LEDGER,
        "namespace": owner["metadata"]["namespace"],
        "labels": {"app.kubernetes.io/managed-by": names.FIELD_MANAGER},
    }
    if ledger is not None:
        metadata["resourceVersion"] = ledger["metadata"]["resourceVersion"]
        metadata["uid"] = ledger["metadata"]["uid"]
    return Version(number, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def last_of(model: Mapping[str, Any] | None) -> int:
    """The last number of a Model's versions, by its status, which only the operator writes."""
    return int(((model or {}).get("status") or {}).get("lastVersion") or 0)


def maker(version: Mapping[str, Any]) -> str | None:
    """uid of the job that made a ModelVersion, or the key of the entry that imported it."""
    lineage = version["spec"].get("lineage") or {}
    key: str | None = (lineage.get("job") or {}).get("uid") or (lineage.get("imported") or {}).get("key")
    return key


def _remembered(entry: str) -> tuple[int, dict[str, int]]:
    """The last number of a model, and those of its latest runs by uid; none if the entry is not the operator's."""
    try:
        remembered = _Entry.model_validate_json(entry)
    except ValidationError:
        return 0, {}
    return remembered.last, remembered.runs


@dataclass(frozen=True)
class FinishedRun:
    """A successful run, with everything that the record of its model needs."""

    owner: Mapping[str, Any]
    plan: TrainingPlan
    resolved: Resolved
    result: TrainingResult
    attempts: int
    finished_at: str
    store_claim: str
    ancestors: list[Ancestor] = field(default_factory=list)
    spec_digest: str | None = None
    deliveries: list[Delivery] | None = None
    deletion_policy: DeletionPolicy | None = None
    attempt_nodes: list[int] | None = None
    """Nodes of each attempt, where they can differ."""


def model_version(run: FinishedRun, number: int) -> dict[str, Any]:
    """The record, by value. It has no owner reference, because deleting the job must not delete its model."""
    meta, result = run.owner["metadata"], run.result
    root = f"pvc://{run.store_claim}/models/{meta['uid']}"
    spec = ModelVersionSpec(
        model_name=run.plan.output.model_name,
        version=number,
        artifacts=[
            Artifact(
                format=a.format,
                uri=f"{root}/{a.uri.strip('/')}".rstrip("/."),
                digest=a.digest,
                size_bytes=a.size_bytes,
            )
            for a in result.artifacts
        ],
        lineage=_lineage(run),
        evaluation=ModelEvaluation(numbers=result.numbers, samples=result.samples, against=run.resolved.compared_with),
        approval=_approval(result),
        deliveries=run.deliveries,
        deletion_policy=run.deletion_policy or "Retain",
    )
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelVersion",
        "metadata": {
            "name": names.model_version(run.plan.output.model_name, number),
            "namespace": meta["namespace"],
            "labels": names.labels("model", run.owner),
        },
        "spec": spec.to_json(),
    }


def _lineage(run: FinishedRun) -> Lineage:
    """What the model was made from, and how."""
    meta, plan = run.owner["metadata"], run.plan
    values = _values(plan, run.result)
    return Lineage(
        base_model=BaseModelLineage(
            uri=plan.model_uri,
            commit=run.resolved.model_commit,
            model_version=plan.model_version,
            location=run.resolved.model_uri,
            digest=run.plan.model_digest,
            shape=_shape(run),
            license=run.resolved.model_license,
        ),
        tracking=run.result.tracking,
        ancestors=run.ancestors,
        datasets=_data(plan, run.result, run.resolved.dataset_licenses or {}),
        job=JobLineage(
            name=meta["name"],
            uid=meta["uid"],
            generation=meta.get("generation"),
            submitted_by=run.owner["spec"].get("submittedBy"),
            spec_digest=run.spec_digest,
        ),
        method=plan.method,
        settings=StageSettings.of(values),
        plan=PlanRecord.of(values),
        seed=plan.training.seed,
        image=run.resolved.image,
        attempts=run.attempts,
        attempt_nodes=run.attempt_nodes,
        steps=run.result.steps,
        finished_at=run.finished_at,
    )


def _shape(run: FinishedRun) -> ModelShape | None:
    """That of the base, with the context that the run gave it: a later stage reads so many tokens."""
    shape = run.resolved.model_shape
    if shape is None or shape.context is None:
        return shape
    return shape.model_copy(update={"context": run.plan.training.context_of(shape.context)})


def _approval(result: TrainingResult) -> Approval:
    """A model that failed its gate is kept and rejected; a person can still approve it."""
    if not result.rejected:
        return Approval()
    # The message begins with the field whose gate failed.
    return Approval(state=ApprovalState.REJECTED, by=result.rejected.partition(":")[0][:253], comment=result.rejected)


def _data(plan: TrainingPlan, result: TrainingResult, licences: Mapping[str, str]) -> list[DatasetLineage]:
    """The Datasets, and what each contributed if the termination message had room for it."""
    used = {(use.name, use.split): use for use in result.datasets}
    lineages = []
    for data in plan.datasets:
        use = used.get((data.name, data.split))
        counts = {"rows": use.rows, "tokens": use.tokens} if use else {}
        licence = licences.get(data.name)
        lineages.append(DatasetLineage(name=data.name, split=data.split, digest=data.digest, license=licence, **counts))
    return lineages


def _values(plan: TrainingPlan, result: TrainingResult) -> dict[str, Any]:
    """The plan without its paths, and the values that the trainer chose where the plan left them open."""
    values = {k: v for k, v in plan.to_json().items() if k not in PLACES}
    return {**values, "resolved": dict(result.resolved)} if result.resolved else values
