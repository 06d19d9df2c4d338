"""What a Dataset is built on: other Datasets that must be Ready, and ModelVersions that score rows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hone_api.dataset.curation import Curation, EvaluationSet
from hone_api.dataset.dataset import DatasetSpec, MixturePart
from hone_api.plan import DatasetInput
from hone_api.words.failures import FailureCode
from hone_operator.desired.core import names
from hone_operator.desired.dataset.materialize import ReferencedObjects
from hone_operator.reconcile.core import upstream
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.upstream import Upstream, Wait
from hone_operator.reconcile.staging import inputs

Body = Mapping[str, Any]


def resolve(
    name: str, spec: DatasetSpec, datasets: inputs.Datasets, versions: Mapping[str, Body]
) -> ReferencedObjects | Wait | Cause:
    """Resolve everything the Dataset refers to: its inputs, a Wait, or a final Cause."""
    if spec.mixture:
        return _mixture(name, spec.mixture, datasets)
    if spec.curation is None:
        return ReferencedObjects()
    return _curation(name, spec.curation, datasets, versions)


def _mixture(name: str, parts: Sequence[MixturePart], datasets: inputs.Datasets) -> ReferencedObjects | Wait | Cause:
    inputs_of_parts = []
    for part in parts:
        if part.name == name:
            return Cause(FailureCode.CIRCULAR_REFERENCE, f"spec.mixture names this Dataset, {name}, itself")
        if problem := inputs.dataset_problem(part.name, None, datasets):
            return Wait(*problem)
        dataset = datasets[part.name]
        inputs_of_parts += [_input(part.name, dataset, split, part.weight) for split in inputs.splits(dataset)]
    return ReferencedObjects(parts=inputs_of_parts)


def _curation(
    name: str, curation: Curation, datasets: inputs.Datasets, versions: Mapping[str, Body]
) -> ReferencedObjects | Wait | Cause:
    sets: list[DatasetInput] = []
    for reference in curation.contamination.datasets if curation.contamination else ():
        if reference.name == name:
            return Cause(
                FailureCode.CIRCULAR_REFERENCE, f"spec.curation.contamination names this Dataset, {name}, itself"
            )
        if problem := inputs.dataset_problem(reference.name, reference.split, datasets):
            return Wait(*problem)
        sets += _splits(reference, datasets[reference.name])
    models = {}
    for version in dict.fromkeys(s.model_version for s in curation.scores or () if s.model_version):
        scorer = upstream.version(version, Upstream(versions=versions), reward=True)
        if isinstance(scorer, Wait | Cause):
            return scorer
        models[version] = scorer.model
    return ReferencedObjects(evaluation_sets=sets, classifiers=models)


def _splits(reference: EvaluationSet, dataset: Body) -> Iterator[DatasetInput]:
    for split in [reference.split] if reference.split else inputs.splits(dataset):
        yield _input(reference.name, dataset, split)


def _input(name: str, dataset: Body, split: str, share: str | None = None) -> DatasetInput:
    digest = dataset["status"]["digest"]
    path = names.STORE / "datasets" / digest.removeprefix("sha256:") / f"{split}.jsonl"
    return DatasetInput(name=name, split=split, path=str(path), digest=digest, share=share)
