"""The Job that measures a ModelVersion on rows again, as its run did, next to another version where one is named."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone_api.blocks.evaluation import VersionEvaluation
from hone_api.kinds.modelversion import ModelVersionSpec
from hone_api.kinds.resolved import PinnedModel
from hone_api.plan import DatasetInput, MeasurePlan
from hone_operator.desired.core import modelref, names
from hone_operator.desired.core.job import JobName, job_with_plan
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Mount, Work, read_only_folders
from hone_operator.desired.core.quantity import threads

COMPONENT = "measure"


@dataclass(frozen=True)
class MeasuringTask:
    """What an entry of spec.evaluations means now."""

    entry: VersionEvaluation
    digest: str
    """Of the content of the Dataset."""
    model: PinnedModel
    other: PinnedModel | None = None
    """The version to compare with; None: there is none."""

    @property
    def key(self) -> str:
        """Equal for equal work."""
        other = self.other.name if self.other else None
        return names.digest("measure", self.entry.to_json(), self.digest, other, length=16)


def measure(
    owner: Mapping[str, Any], spec: ModelVersionSpec, measured: MeasuringTask, number: int, platform: Platform
) -> list[dict[str, Any]]:
    """ConfigMap and Job of attempt `number`. The pod only reads: the rows, the models, and what they are based on."""
    meta, entry = owner["metadata"], measured.entry
    base = _base(spec, measured.model, platform)
    models = [model for model in (measured.model, base, measured.other) if model]
    folder = names.STORE / "datasets" / measured.digest.removeprefix("sha256:")
    rows = DatasetInput(
        name=entry.dataset, split=entry.split, path=str(folder / f"{entry.split}.jsonl"), digest=measured.digest
    )
    plan = MeasurePlan(
        name=meta["name"],
        model=modelref.model_input(measured.model, platform),
        base_path=str(modelref.Place.of(base.uri, platform).path) if base else None,
        rows=rows,
        max_rows=entry.max_rows,
        against=modelref.model_input(measured.other, platform) if measured.other else None,
    )
    folders = dict.fromkeys(["datasets", *modelref.store_folders(models, platform)])
    store = read_only_folders(platform, *folders) or (Mount.claim("store", names.STORE, platform.store.claim_name),)
    work = Work(
        component=COMPONENT,
        verb="measure",
        plan=plan,
        cpu=entry.cpu,
        memory=entry.memory,
        mounts=(*store, *modelref.places(models, platform)),
        env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads(entry.cpu, 1))},
    )
    labels = names.labels(COMPONENT, owner, **{names.STAGING_ATTEMPT: str(number), names.CONTENT: measured.key})
    uris = [uri for model in models for uri in (model.uri, model.adapter_uri) if uri]
    reads = {"uris": uris, "datasetDigests": {entry.dataset: measured.digest}}  # a sweep spares them meanwhile
    annotations = {names.RESOLVED: json.dumps(reads, sort_keys=True)}
    name = names.measure(meta["name"], meta["uid"], measured.key, number)
    return job_with_plan(owner, JobName(name, labels, annotations), work, platform)


def _base(spec: ModelVersionSpec, model: PinnedModel, platform: Platform) -> PinnedModel | None:
    """The base of a merged or full model, where the store has it; that of an adapter is a part of `model`."""
    location = spec.lineage.base_model.location or ""
    if model.adapter_uri or not location.startswith(f"pvc://{platform.store.claim_name}/"):
        return None
    return PinnedModel(name=model.name, uri=location)
