"""What a Dataset is built on: other Datasets that must be Ready, and ModelVersions that score rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hone_api.dataset.curation import Curation, NamedSplit
from hone_api.dataset.dataset import DatasetSpec, MixturePart
from hone_api.plan import DatasetInput
from hone_api.words.failures import FailureCode
from hone_operator.desired.core import names
from hone_operator.desired.dataset.materialize import ReferencedObjects, named_datasets
from hone_operator.reconcile.core import upstream
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.upstream import Upstream, Wait
from hone_operator.reconcile.staging import inputs

Body = Mapping[str, Any]
MOST_COMPARED = 200
"""Datasets: 50 kB of the plan."""


def resolve(
    name: str, spec: DatasetSpec, datasets: inputs.Datasets, versions: Mapping[str, Body]
) -> ReferencedObjects | Wait | Cause:
    """Resolve everything the Dataset refers to: its inputs, a Wait, or a final Cause."""
    if circle := _circle(name, spec, datasets):
        message = f"Dataset {name} is made of itself, by mixture, contamination or deduplicateAgainst: {circle}"
        return Cause(FailureCode.CIRCULAR_REFERENCE, message)
    parts = spec.mixture or []
    named = _mixture(parts, datasets) if parts else _curation(spec.curation or Curation(), datasets, versions)
    others = _others({name: one for name, one in datasets.items() if name not in {part.name for part in parts}})
    return replace(named, others=others) if isinstance(named, ReferencedObjects) else named


def _circle(name: str, spec: DatasetSpec, datasets: inputs.Datasets) -> str | None:
    """The shortest way from the Dataset by those that it names back to it, for people."""
    ways, seen = [[name, other] for other in sorted(named_datasets(spec.to_json()))], set[str]()
    for way in ways:
        if way[-1] == name:
            return " → ".join(way)
        if way[-1] in datasets and way[-1] not in seen:
            seen.add(way[-1])
            ways += [[*way, other] for other in sorted(named_datasets(datasets[way[-1]]["spec"]))]
    return None


def _others(datasets: inputs.Datasets) -> list[DatasetInput]:
    """Those that have rows; the ones that were read last, if they are many."""
    made = [one for one in datasets.values() if (one.get("status") or {}).get("digest")]
    made.sort(key=lambda one: (one["status"].get("readTime") or "", one["metadata"]["name"]), reverse=True)
    return [_input(one["metadata"]["name"], one, split) for one in made[:MOST_COMPARED] for split in inputs.splits(one)]


def _mixture(parts: Sequence[MixturePart], datasets: inputs.Datasets) -> ReferencedObjects | Wait:
    inputs_of_parts = []
    for part in parts:
        if problem := inputs.dataset_problem(part.name, None, datasets):
            return Wait(*problem)
        dataset = datasets[part.name]
        inputs_of_parts += [_input(part.name, dataset, split, part.weight) for split in inputs.splits(dataset)]
    return ReferencedObjects(parts=inputs_of_parts)


def _curation(
    curation: Curation, datasets: inputs.Datasets, versions: Mapping[str, Body]
) -> ReferencedObjects | Wait | Cause:
    exams = curation.contamination.datasets if curation.contamination else []
    against = curation.deduplicate_against or []
    for reference in (*exams, *against):
        if problem := inputs.dataset_problem(reference.name, reference.split, datasets):
            return Wait(*problem)
    models = {}
    for version in dict.fromkeys(s.model_version for s in curation.scores or () if s.model_version):
        scorer = upstream.version(version, Upstream(versions=versions), reward=True)
        if isinstance(scorer, Wait | Cause):
            return scorer
        models[version] = scorer.model
    return ReferencedObjects(
        evaluation_sets=_splits(exams, datasets), deduplicate_against=_splits(against, datasets), classifiers=models
    )


def _splits(references: Sequence[NamedSplit], datasets: inputs.Datasets) -> list[DatasetInput]:
    return [
        _input(one.name, datasets[one.name], split)
        for one in references
        for split in ([one.split] if one.split else inputs.splits(datasets[one.name]))
    ]


def _input(name: str, dataset: Body, split: str, share: str | None = None) -> DatasetInput:
    digest = dataset["status"]["digest"]
    path = names.STORE / "datasets" / digest.removeprefix("sha256:") / f"{split}.jsonl"
    return DatasetInput(name=name, split=split, path=str(path), digest=digest, share=share)
