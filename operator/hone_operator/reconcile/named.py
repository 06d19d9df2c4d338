"""What a Dataset's curation is built on: other Datasets that must be Ready, and ModelVersions that score rows."""

from collections.abc import Iterator, Mapping
from typing import Any

from hone_api.curation import Curation, EvaluationSet
from hone_api.plan import DatasetInput
from hone_operator.desired import names
from hone_operator.desired.materialize import Named
from hone_operator.reconcile import inputs, upstream
from hone_operator.reconcile.failures import Cause
from hone_operator.reconcile.upstream import Upstream, Wait

Body = Mapping[str, Any]


def resolve(
    name: str, curation: Curation | None, datasets: inputs.Datasets, versions: Mapping[str, Body]
) -> Named | Wait | Cause:
    """Where all that the curation of Dataset `name` names lies; or why to wait for it, or that it cannot be."""
    if curation is None:
        return Named()
    sets: list[DatasetInput] = []
    for wanted in curation.contamination.datasets if curation.contamination else ():
        if wanted.name == name:
            return Cause("InvalidConfiguration", f"spec.curation.contamination names this Dataset, {name}, itself")
        if problem := inputs.dataset_problem(wanted.name, wanted.split, datasets):
            return Wait(*problem)
        sets += _splits(wanted, datasets[wanted.name])
    models = {}
    for version in dict.fromkeys(s.model_version for s in curation.scores or () if s.model_version):
        found = upstream.version(version, Upstream(versions=versions), reward=True)
        if isinstance(found, Wait | Cause):
            return found
        models[version] = found.model
    return Named(sets, models)


def _splits(wanted: EvaluationSet, dataset: Body) -> Iterator[DatasetInput]:
    digest = dataset["status"]["digest"]
    for split in [wanted.split] if wanted.split else inputs.splits(dataset):
        path = names.STORE / "datasets" / digest.removeprefix("sha256:") / f"{split}.jsonl"
        yield DatasetInput(name=wanted.name, split=split, path=str(path), digest=digest)
