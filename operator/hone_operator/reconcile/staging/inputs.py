"""The Datasets of a FineTuneJob: whether all are Ready, and what its first attempt pins."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hone_api.dataset.dataset import Format
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.resolved import Resolved
from hone_api.methods import FORMATS_ANSWERED, FORMATS_BY_LOGITS, FORMATS_MEASURED, METHODS
from hone_api.words.failures import FailureCode
from hone_api.words.states import AnyReason, ConditionType, Reason
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.core.upstream import Wait

Datasets = Mapping[str, Mapping[str, Any]]
"""Datasets by name; missing ones are absent."""
Similar = Mapping[str, str]
"""The name of an existing Dataset for that of a missing one, where two names are alike."""
VALIDATION = "validation"
HEALTHY = frozenset({Reason.DATASET_NOT_READY})
"""Reasons for waiting in a normal start: an Event, but no Warning. A failed Dataset has its own Warning."""


class Purpose(NamedTuple):
    """What rows are used for."""

    name: str
    takes: tuple[Format, ...]


def used(spec: FineTuneJobSpec) -> Iterator[tuple[str, str, Purpose]]:
    """(Dataset, split, purpose) of all rows that the job uses."""
    taken = Purpose(f"method {spec.method}", METHODS[spec.method].formats)
    if spec.distillation and spec.distillation.by_logits:
        taken = Purpose("distillation.level Logits (Sequence needs no answers)", FORMATS_BY_LOGITS)
    for ref in (*spec.datasets, *(spec.evaluation_datasets or ())):
        yield ref.name, ref.split, taken
    for ref in spec.evaluation.retention.datasets if spec.evaluation.retention else ():
        yield ref.name, ref.split, Purpose("evaluation.retention", FORMATS_MEASURED)


def find_problem(spec: FineTuneJobSpec, datasets: Datasets, similar: Similar) -> tuple[AnyReason, str] | None:
    """(reason, message) for the first Dataset that cannot be used now."""
    for name, split, purpose in used(spec):
        if reason_and_message := dataset_problem(name, split, datasets, similar) or _mismatch(datasets[name], purpose):
            return reason_and_message
    return _unanswered(spec, datasets) if spec.evaluation.rewards else None


def hold(spec: FineTuneJobSpec, datasets: Datasets, similar: Similar) -> Wait | None:
    """Why nothing is staged now. A Dataset that is still being read does not block staging: GPUs need both."""
    if spec.suspend:
        return Wait(Reason.SUSPENDED, "spec.suspend is true.")
    missing_dataset = find_problem(spec, datasets, similar)
    if missing_dataset and missing_dataset[0] == Reason.DATASET_NOT_FOUND:
        return Wait(Reason.WAITING_FOR_DATASET, f"Nothing is staged before the Dataset exists: {missing_dataset[1]}")
    return None


def _unanswered(spec: FineTuneJobSpec, datasets: Datasets) -> tuple[AnyReason, str] | None:
    """Why there are no prompts whose answers could be scored."""
    held_out_splits = held_out(spec, datasets)
    if not held_out_splits:
        words = "name evaluationDatasets, or a Dataset with a split validation"
        return Reason.SPLIT_NOT_FOUND, f"spec.evaluation.rewards needs held-out rows: {words}."
    purpose = Purpose("evaluation.rewards", FORMATS_ANSWERED)
    wrong = (_mismatch(datasets[rows.partition("/")[0]], purpose) for rows in held_out_splits)
    return next((problem for problem in wrong if problem), None)


def dataset_problem(
    name: str, split: str | None, datasets: Datasets, similar: Similar | None = None
) -> tuple[AnyReason, str] | None:
    """(reason, message) if the split cannot be read now; split None: any split."""
    if name not in datasets:
        near = f" Did you mean {similar[name]}?" if similar and name in similar else ""
        return Reason.DATASET_NOT_FOUND, f"Dataset {name} does not exist in this namespace: create it.{near}"
    dataset = datasets[name]
    meta, status = dataset["metadata"], dataset.get("status") or {}
    current = status.get("observedGeneration") == meta.get("generation")
    if not (current and is_true(dataset, ConditionType.READY) and status.get("digest")):
        words = next((c for c in status.get("conditions") or () if c["type"] == ConditionType.READY), None)
        why = f": {words['reason']}: {words['message']}" if words and current else ""
        return Reason.DATASET_NOT_READY, f"Dataset {meta['name']} is not Ready{why}"
    if split is not None and split not in splits(dataset):
        return Reason.SPLIT_NOT_FOUND, f"Dataset {meta['name']} has no rows in split {split}; it has {splits(dataset)}."
    return None


def _mismatch(dataset: Mapping[str, Any], purpose: Purpose) -> tuple[AnyReason, str] | None:
    """(reason, message) if the format does not suit the purpose; reported before a pod requests a GPU."""
    actual = str(dataset["status"].get("formatDetected") or "").split(" ")[0]
    if actual not in set(Format) or actual in purpose.takes:
        return None
    name, takes = dataset["metadata"]["name"], ", ".join(purpose.takes)
    message = f"Dataset {name} has the format {actual}; {purpose.name} takes {takes}."
    return FailureCode.DATASET_FORMAT_MISMATCH, message


def digests(spec: FineTuneJobSpec, datasets: Datasets) -> dict[str, str]:
    """The present content of each Dataset."""
    return {name: datasets[name]["status"]["digest"] for name, _, _ in used(spec)}


def licences(spec: FineTuneJobSpec, datasets: Datasets) -> dict[str, str]:
    """Those of the Datasets whose source names one."""
    named = {name: (datasets[name]["status"].get("croissant") or {}).get("license") for name, _, _ in used(spec)}
    return {name: licence for name, licence in named.items() if licence and isinstance(licence, str)}


def are_pinned(spec: FineTuneJobSpec, resolved: Resolved) -> bool:
    """Whether a record of a run's inputs has a digest for all rows that the run uses."""
    named = {name for name, _, _ in used(spec)} | {
        rows.partition("/")[0] for rows in resolved.evaluation_datasets or ()
    }
    return named <= (resolved.dataset_digests or {}).keys()


def held_out(spec: FineTuneJobSpec, datasets: Datasets) -> list[str]:
    """Evaluation splits as <Dataset>/<split>: those in the spec, else the validation split of each Dataset."""
    if spec.evaluation_datasets is not None:
        return [f"{ref.name}/{ref.split}" for ref in spec.evaluation_datasets]
    trained = {(ref.name, ref.split) for ref in spec.datasets}
    named = dict.fromkeys(ref.name for ref in spec.datasets)
    with_validation = [
        name for name in named if VALIDATION in splits(datasets[name]) and (name, VALIDATION) not in trained
    ]
    return [f"{name}/{VALIDATION}" for name in with_validation]


def splits(dataset: Mapping[str, Any]) -> list[str]:
    """Names of the splits that have rows."""
    return sorted(s["name"] for s in (dataset.get("status") or {}).get("splits") or () if s["rows"])
