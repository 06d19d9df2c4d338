"""The rows of a run as tokens: encoded by a CPU Job before any GPU is requested, pinned by the first attempt.

A small Dataset is encoded by the run itself: starting a pod would take longer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone_api.base.quantity import value
from hone_api.base.wording import counted
from hone_api.contract import encoding
from hone_api.contract.report import EncodeResult
from hone_api.kinds.finetunejob_status import Encoding, JobProgress
from hone_api.kinds.resolved import EncodedRows, Resolved
from hone_api.words.states import ConditionType, Reason
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.shared import Shared
from hone_operator.desired.run.attempt import AttemptInputs
from hone_operator.desired.run.training import pull_secrets
from hone_operator.desired.staging.encode import encode, encode_plan, encoded, pods_for
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome_builder import JobBuilder, as_json
from hone_operator.reconcile.staging import inputs
from hone_operator.reconcile.staging.staging import RECHECK_SECONDS, Staging, StoreState, stage

CONDITION = ConditionType.ROWS_ENCODED


@dataclass(frozen=True)
class Rows:
    """Whether the run can start as far as its rows are concerned, or why it cannot."""

    ready: bool = False
    encoded: EncodedRows | None = None
    """None: the run encodes its rows itself, or they are not ready."""
    failure: Cause | None = None
    """Final: another try cannot help."""
    look: Shared | None = None
    """What must be observed before this can be decided."""


@dataclass(frozen=True)
class ObservedEncoding:
    """What is seen of the shared Job that encodes the rows."""

    stage: StoreState
    report: Latest | None = None
    """Its pod's newest report."""


def prepare_rows(
    builder: JobBuilder,
    attempt: AttemptInputs,
    datasets: inputs.Datasets,
    seen: ObservedEncoding | None,
    platform: Platform,
) -> Rows:
    """Sets the condition RowsEncoded where a Job encodes the rows, and asks for that Job when one is due.

    Args:
        attempt: the first one, as it would start now.
        seen: None: nothing was observed yet; `Rows.look` says what to observe.
    """
    plan, size = encode_plan(attempt, platform), _size(attempt, datasets)
    keys = encoding.keys(plan)
    if not keys or size < value(platform.encoding.from_size):
        builder.put(encoding=None)
        return Rows(ready=True)
    pods = pods_for(size, platform)
    shared = encoded(plan, platform, pods, pull_secrets(attempt.spec))
    state = Encoding(work=shared.key, keys=keys)
    if seen is None:
        builder.conditions.set(CONDITION, None, Reason.ENCODING, "")
        return Rows(look=shared)
    wanted = Staging(
        shared,
        CONDITION,
        EncodeResult,
        "The rows are",
        lambda claim, number: encode(claim, shared, attempt, number, platform, pods),
        Reason.ENCODING,
    )
    staged = stage(builder, wanted, seen.stage, platform)
    if isinstance(staged, EncodeResult):
        builder.put(encoding=as_json(_done(state, staged)))
        return ready(builder, EncodedRows(keys=keys, digest=staged.digest), _words(staged))
    if isinstance(staged, Cause):
        builder.put(encoding=as_json(state))
        return Rows(failure=staged)
    builder.put(encoding=as_json(state))
    if seen.report:
        _show_progress(builder, seen.report.progress)
    builder.check_in(RECHECK_SECONDS)
    return Rows()


def ready(builder: JobBuilder, encoded: EncodedRows, words: str = "") -> Rows:
    """The rows are in the store."""
    builder.conditions.set(CONDITION, True, Reason.ENCODED, words)
    return Rows(ready=True, encoded=encoded)


def pinned_rows(builder: JobBuilder, resolved: Resolved) -> Rows:
    """What the first attempt started with; from then on nothing else matters."""
    if resolved.encoded_rows is None:
        return Rows(ready=True)
    return ready(builder, resolved.encoded_rows, builder.conditions.before(CONDITION).get("message", ""))


def _size(attempt: AttemptInputs, datasets: inputs.Datasets) -> int:
    """Bytes of the Datasets that the run is trained and evaluated on."""
    named = {d.name for d in attempt.spec.datasets}
    named |= {rows.partition("/")[0] for rows in attempt.resolved.evaluation_datasets or ()}
    return sum(_bytes(datasets.get(name) or {}) for name in named)


def _bytes(dataset: Mapping[str, Any]) -> int:
    return (dataset.get("status") or {}).get("sizeBytes") or 0


def _done(state: Encoding, result: EncodeResult) -> Encoding:
    done = {"rows": result.rows, "tokens": result.tokens, "tokens_per_second": result.tokens_per_second}
    return state.model_copy(update=done)


def _show_progress(builder: JobBuilder, reported: JobProgress) -> None:
    """Copy the report of the pod that encodes: what it counts as steps are rows, and no steps of the run."""
    rows, total = reported.step, reported.total_steps
    summary = reported.summary if total is None else f"rows {rows}/{total} {reported.percent}%"
    shown = reported.model_copy(update={"step": 0, "total_steps": None, "summary": summary})
    builder.put(progress=as_json(shown))
    if total is not None and builder.conditions.get(CONDITION)["reason"] == Reason.ENCODING:
        speed, eta = reported.tokens_per_second, reported.eta
        parts = [f"{rows} of {total}", speed and f"{float(speed):.0f} tokens a second", eta and f"{eta} left"]
        message = f"The rows are being encoded: {', '.join(filter(None, parts))}."
        builder.conditions.set(CONDITION, False, Reason.ENCODING, message)


def _words(result: EncodeResult) -> str:
    """For people: what became of the rows, and what looks wrong."""
    head = f"{counted(result.rows, 'example')}, {counted(result.tokens, 'token')}"
    return "; ".join([head, *result.summary, *result.advice])
