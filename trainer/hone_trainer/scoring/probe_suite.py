"""What the plan wants measured beside the method's own metrics, of held-out rows and of rows not to be forgotten.

The same rows, prompts and greedy decoding before and after training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone_api.modelversion import EvaluationNumber, Purpose
from hone_api.plan import DatasetInput, TrainingPlan
from hone_api.training import EvaluationMetric
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.plain_text import as_text
from hone_trainer.encoding.preferences import Judged, JudgedEncoder, Pair, PairEncoder, labels
from hone_trainer.encoding.split_file import RecordEncoder, Row, encode_split, records
from hone_trainer.errors import TrainerError
from hone_trainer.models.base_model import Base
from hone_trainer.scoring import heldout, scores
from hone_trainer.scoring.scores import Best, Mean, Score
from hone_trainer.scoring.text_metrics import TEXT_METRICS

NAMES: dict[str, str] = {
    EvaluationMetric.PERPLEXITY: "perplexity",
    EvaluationMetric.TOKEN_ACCURACY: "token_accuracy",
    EvaluationMetric.EXACT_MATCH: "exact_match",
    EvaluationMetric.F1: "f1",
    EvaluationMetric.ROUGE_L: "rouge_l",
    EvaluationMetric.MULTIPLE_CHOICE: "multiple_choice",
}
"""Names in reports, as those of the methods' metrics."""
GENERATION_BATCH = 8
"""Prompts that are answered together."""


def best(name: str) -> Best:
    """Which end of a metric is the good one."""
    return "Lowest" if name in ("perplexity", "loss") else "Highest"


@dataclass(frozen=True)
class Probe:
    """One split and what is measured on it."""

    name: str
    """<dataset>/<split>."""
    purpose: Purpose
    metrics: tuple[str, ...]
    """By their names in the API."""
    rows: Sequence[Row]
    """Answers as they were given."""
    pairs: Sequence[Pair] = ()
    references: Sequence[str] = field(default=())
    """Text of each row's answer."""

    @property
    def names(self) -> list[str]:
        return [NAMES[m] for m in self.metrics]


def probes(plan: TrainingPlan, base: Base) -> list[Probe]:
    """Everything that is measured, encoded.

    Raises:
        TrainerError: DatasetFormatMismatch, when a metric cannot be had of a split's rows; NoTrainableRows.
    """
    wanted: list[tuple[DatasetInput, Purpose, Sequence[str]]] = []
    if plan.evaluation.metrics:
        wanted += [(s, "HeldOut", plan.evaluation.metrics) for s in plan.evaluation_datasets]
    if plan.evaluation.retention:
        wanted += [(s, "Retention", plan.evaluation.retention.metrics) for s in plan.retention_datasets]
    return [_probe(plan, base, source, purpose, tuple(map(str, metrics))) for source, purpose, metrics in wanted]


def _probe(plan: TrainingPlan, base: Base, source: DatasetInput, purpose: Purpose, metrics: tuple[str, ...]) -> Probe:
    limit, name = plan.evaluation.max_rows, f"{source.name}/{source.split}"
    texts = dict(records(Path(source.path)))
    first = next(iter(texts.values()), {})
    if "chosen" not in first and EvaluationMetric.MULTIPLE_CHOICE in metrics:
        message = f"{name}: metric MultipleChoice needs rows with chosen and rejected answers (format Preference)"
        raise TrainerError("DatasetFormatMismatch", message)
    if "text" in first and (generated := [m for m in metrics if m in TEXT_METRICS]):
        message = f"{name}: {', '.join(generated)}: rows of format Text have no prompt to answer"
        raise TrainerError("DatasetFormatMismatch", message)
    length = min(plan.training.max_length or base.context, base.context)
    found = _answered(source, _encoder(base, first), length, name)[:limit]
    rows, pairs = list(map(_as_row, found)), [row for row in found if isinstance(row, Pair)]
    references = [_reference(texts[row.number]) for row in rows]
    return Probe(name, purpose, metrics, rows, pairs, references)


def _encoder(base: Base, first: Mapping[str, Any]) -> Encoder | PairEncoder | JudgedEncoder:
    """Of rows like the first one."""
    if "chosen" in first:
        return PairEncoder(base.tokenizer)
    return JudgedEncoder(base.tokenizer) if "label" in first else Encoder(base.tokenizer, "LastAssistant")


def _answered(
    source: DatasetInput, encoder: RecordEncoder[Any], length: int, name: str
) -> list[Row] | list[Pair] | list[Judged]:
    """The rows with an answer that a model should give; what KTO calls a bad one is none."""
    found = encode_split(source.path, encoder, max_length=length, truncation="Drop").rows
    good = [row for row in found if not isinstance(row, Judged) or row.label]
    if not good:
        raise TrainerError("NoTrainableRows", f"{name}: all {len(found)} answers have the label false")
    return good


def _as_row(found: Row | Pair | Judged) -> Row:
    """The conversation with the good answer."""
    if isinstance(found, Row):
        return found
    answer = found.chosen_ids if isinstance(found, Pair) else found.completion_ids
    return Row(found.sequences[0], labels(found.prompt_ids, answer, found.masks[0]), found.number)


def _other(pair: Pair) -> Row:
    return Row(pair.sequences[1], labels(pair.prompt_ids, pair.rejected_ids, pair.masks[1]), pair.number)


def _reference(record: Mapping[str, Any]) -> str:
    """The last assistant turn: what a row's `prompt_ids` ask for."""
    answer = record.get("chosen", record.get("completion"))
    return as_text({"messages": answer} if isinstance(answer, list) else dict(record))[1] or ""


def measure(trainer: Any, found: Iterable[Probe], poll: Callable[[], None]) -> list[Score]:
    """One score a probe, of the model as it is. A collective."""
    return [_measure(trainer, probe, poll) for probe in found]


def _measure(trainer: Any, probe: Probe, poll: Callable[[], None]) -> Score:
    found = likely(trainer, probe.rows, poll)
    means: dict[str, Mean] = dict(found.means)
    if EvaluationMetric.MULTIPLE_CHOICE in probe.metrics:
        other = likely(trainer, [_other(p) for p in probe.pairs], poll)
        means["multiple_choice"] = _choices(found.means["loss"], other.means["loss"])
    text = [m for m in probe.metrics if m in TEXT_METRICS]
    if text:
        answers = _answers(trainer, probe.rows, poll)
        for metric in text:
            values = [TEXT_METRICS[metric](a, r) for a, r in zip(answers, probe.references, strict=True)]
            means[NAMES[metric]] = Mean(values, [1.0] * len(values))
    return Score(means, found.tokens)


def likely(trainer: Any, rows: Sequence[Row], poll: Callable[[], None]) -> Score:
    """Loss and right tokens of rows, by the head that the model has. A collective."""
    run = trainer.run
    pad = run.base.tokenizer.pad_token_id
    fused = run.method.score is heldout.score_language_model
    return heldout.score(trainer.scoring_model(), rows, pad_id=pad, bf16=run.settings.bf16, poll=poll, fused=fused)


def _choices(right: Mean, wrong: Mean) -> Mean:
    """Whether the right answer is likelier per token, row by row."""
    pairs = zip(right.totals, right.weights, wrong.totals, wrong.weights, strict=True)
    return Mean([float(r / rw < w / ww) for r, rw, w, ww in pairs], [1.0] * len(right.totals))


def _answers(trainer: Any, rows: Sequence[Row], poll: Callable[[], None]) -> list[str]:
    run, out = trainer.run, []
    for start in range(0, len(rows), GENERATION_BATCH):
        poll()
        found = heldout.answers(
            trainer.model,
            [row.prompt_ids for row in rows[start : start + GENERATION_BATCH]],
            tokenizer=run.base.tokenizer,
            stop_ids=run.stop_ids,
            max_new_tokens=run.plan.evaluation.max_new_tokens,
            sharded=run.plan.shards_weights,
        )
        out += [answer.text for answer in found]
    return out


def numbers(found: Sequence[Probe], base: Sequence[Score] | None, tuned: Sequence[Score]) -> list[EvaluationNumber]:
    """Each metric of each probe, before and after, with intervals."""
    out = []
    for index, probe in enumerate(found):
        before = [base[index]] if base else None
        out += scores.numbers([probe.name], probe.names, before, [tuned[index]], purpose=probe.purpose)
    return out


def regressions(found: Sequence[Probe], base: Sequence[Score], tuned: Sequence[Score]) -> Mapping[str, float]:
    """How much worse each metric of what must be kept became, relative to the base's; below 0: better."""
    out = {}
    for probe, before, after in zip(found, base, tuned, strict=True):
        if probe.purpose != "Retention":
            continue
        for name in probe.names:
            worse = regression(best(name), before.value(name), after.value(name))
            if worse is not None:
                out[title(name, probe.name)] = worse
    return out


def title(metric: str, rows: str) -> str:
    """A metric as sentences name it."""
    return f"{metric} on {rows}"


def regression(good: Best, old: float, new: float) -> float | None:
    """How much worse a metric became, relative to the size of the base's; infinite from 0, of which nothing is a share,
    and where it is no number any more.

    None: the base's is 0, and not worse now: what the base could not do at all, it cannot forget.
    """
    if math.isnan(new):
        return math.inf
    worse = new - old if good == "Lowest" else old - new
    if old:
        return worse / abs(old)
    return math.inf if worse > 0 else None


def share(percent: str | None) -> float | None:
    """E.g. 5% as 0.05."""
    return None if percent is None else float(percent.removesuffix("%")) / 100


def limit(plan: TrainingPlan) -> float | None:
    """The regression that evaluation.retention.maxRegression allows; None: any."""
    return share(plan.evaluation.retention.max_regression) if plan.evaluation.retention else None


def beyond(found: Mapping[str, float], limit: float | None) -> dict[str, float]:
    """Those of `regressions` that are over the limit."""
    return {name: worse for name, worse in found.items() if limit is not None and worse > limit}


def verdict(found: Sequence[Probe], base: Sequence[Score] | None, tuned: Sequence[Score], plan: TrainingPlan) -> str:
    """Why the gate does not open; empty when it does, or there is none."""
    return gate("evaluation.retention", None if base is None else regressions(found, base, tuned), limit(plan))


def gate(field: str, found: Mapping[str, float] | None, allowed: float | None) -> str:
    """Why a field's gate does not open, in a sentence that begins with the field; empty when it does.

    Args:
        found: from `regressions`; None: nothing is known of the base.
        allowed: None: there is no gate.
    """
    if allowed is None:
        return ""
    if found is None:
        return f"{field}: the base model's numbers are lost, so nothing can be compared: train again."
    words = ", ".join(f"{name} {_by(worse)}" for name, worse in beyond(found, allowed).items())
    return f"{field}: worse than the base model beyond {allowed:.1%}: {words}." if words else ""


def _by(worse: float) -> str:
    return f"by {worse:.1%}" if math.isfinite(worse) else "from the base's 0, or to no number"
