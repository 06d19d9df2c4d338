"""A Dataset whose generated rows wait for people.

The pod reads rows and decisions. The operator only sees the mark that reviewers leave on the Dataset after decisions
(the annotation `hone.dev/review`), and starts the pod again if it differs from the mark of the last result.
"""

from collections.abc import Mapping
from typing import Any

from hone_api.contract.report import DatasetResult
from hone_api.dataset.dataset import DatasetSpec
from hone_api.dataset.synthesis import SyntheticRows
from hone_api.words.states import ConditionType, DatasetPhase, Reason
from hone_operator.desired.dataset.synthesis import review_mark
from hone_operator.reconcile.core.outcome import Outcome
from hone_operator.reconcile.core.outcome_builder import DatasetBuilder


def has_all_decisions(dataset: Mapping[str, Any]) -> bool:
    """Whether the last result includes all decisions. True if nothing is generated."""
    if not dataset["spec"].get("synthesis"):
        return True
    synthetic = (dataset.get("status") or {}).get("synthetic") or {}
    return synthetic.get("review") == review_mark(dataset)


def news(dataset: Mapping[str, Any], spec: DatasetSpec, result: DatasetResult) -> bool:
    """Whether reviewers have decided more since this result."""
    seen_mark = result.synthetic.review if result.synthetic else None
    return spec.synthesis is not None and seen_mark != review_mark(dataset)


def set_condition(builder: DatasetBuilder, spec: DatasetSpec) -> None:
    """Set ReviewPending once rows were generated, from the newest result, even while another attempt is under way."""
    if spec.synthesis is None or not (synthetic := builder.status.get("synthetic")):
        return
    rows = SyntheticRows.model_validate(synthetic)
    waits = not rows.complete
    builder.conditions.set(
        ConditionType.REVIEW_PENDING,
        waits,
        Reason.AWAITING_REVIEW if waits else Reason.REVIEWED,
        sentence(builder, rows),
    )


def wait(builder: DatasetBuilder, rows: SyntheticRows, number: int) -> Outcome:
    """Not Ready until reviewers have decided. There is no time limit."""
    builder.put(phase=DatasetPhase.AWAITING_REVIEW, tries=number, failure=None)
    builder.ready(False, Reason.AWAITING_REVIEW, sentence(builder, rows), reconciling=True)
    builder.add_event_if_changed(ConditionType.READY)
    return builder.outcome()


def sentence(builder: DatasetBuilder, rows: SyntheticRows) -> str:
    """The decisions so far, and the command to continue."""
    wanted = f" of {rows.wanted} wanted" if rows.wanted else ""
    decided = f"{rows.accepted}{wanted} generated rows are accepted, {rows.rejected} rejected"
    decided += f", {rows.conflicts} of them in conflict" if rows.conflicts else ""
    if rows.complete:
        return f"{decided}. {rows.sample or ''}".rstrip()
    if not rows.pending:
        return f"{decided}, none is left: raise spec.synthesis.rows, or change its seed or instructions."
    meta = builder.body["metadata"]
    command = f"hone dataset review {meta['name']} --namespace {meta['namespace']}"
    return " ".join(filter(None, (f"{decided}, {rows.pending} wait for a person: {command}.", rows.sample)))
