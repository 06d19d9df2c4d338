"""Measurements that the plan asks for in addition to the method's metrics, on held-out rows and on retention rows.

Rows, prompts and greedy decoding are the same before and after training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone_api.blocks.evaluation import EvaluationMetric
from hone_api.kinds.modelversion import EvaluationNumber, Purpose
from hone_api.plan import DatasetInput, TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.plain_text import as_text
from hone_trainer.encoding.preferences import Judged, JudgedEncoder, Pair, PairEncoder, labels
from hone_trainer.encoding.split_file import RecordEncoder, Row, encode_split, records
from hone_trainer.errors import TrainerError
from hone_trainer.models.base_model import Base
from hone_trainer.scoring import heldout, scores
from hone_trainer.scoring.in_training import MeasuredTrainer
from hone_trainer.scoring.row_measure import Poll
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
"""Names in reports, in the style of the methods' metrics."""
GENERATION_BATCH = 8
"""Prompts that are answered in one batch."""


def best(name: str) -> Best:
    """Whether lower or higher is better."""
    return "Lowest" if name in ("perplexity", "loss") else "Highest"


@dataclass(frozen=True)
class Probe:
    """One split and the metrics to measure on it."""

    name: str
    """<dataset>/<split>."""
    purpose: Purpose
    metrics: tuple[str, ...]
    """Metrics by their names in the API."""
    rows: Sequence[Row]
    """Answers for the generated metrics."""
    pairs: Sequence[Pair] = ()
    references: Sequence[str] = field(default=())
    """Text of each row's answer."""

    @property
    def names(self) -> list[str]:
        return [NAMES[m] for m in self.metrics]


def probes(plan: TrainingPlan, base: Base) -> list[Probe]:
    """All probes of the plan, encoded.

    Raises:
        TrainerError: DatasetFormatMismatch, if a split's rows do not support a metric; NoTrainableRows.
    """
    requested: list[tuple[DatasetInput, Purpose, Sequence[str]]] = []
    if plan.evaluation.metrics:
        requested += [(s, "HeldOut", plan.evaluation.metrics) for s in plan.evaluation_datasets]
    if plan.evaluation.retention:
        requested += [(s, "Retention", plan.evaluation.retention.metrics) for s in plan.retention_datasets]
    return [_probe(plan, base, source, purpose, tuple(map(str, metrics))) for source, purpose, metrics in requested]


def _probe(plan: TrainingPlan, base: Base, source: DatasetInput, purpose: Purpose, metrics: tuple[str, ...]) -> Probe:
    limit, name = plan.evaluation.max_rows, f"{source.name}/{source.split}"
    texts = dict(records(Path(source.path)))
    first = next(iter(texts.values()), {})
    if "chosen" not in first and EvaluationMetric.MULTIPLE_CHOICE in metrics:
        message = f"{name}: metric MultipleChoice needs rows with chosen and rejected answers (format Preference)"
        raise TrainerError(FailureCode.DATASET_FORMAT_MISMATCH, message)
    if "text" in first and (generated := [m for m in metrics if m in TEXT_METRICS]):
        message = f"{name}: {', '.join(generated)}: rows of format Text have no prompt to answer"
        raise TrainerError(FailureCode.DATASET_FORMAT_MISMATCH, message)
    length = min(plan.training.max_length or base.context, base.context)
    examples = _answered(source, _encoder(base, first), length, name)[:limit]
    rows, pairs = list(map(_as_row, examples)), [row for row in examples if isinstance(row, Pair)]
    references = [_reference(texts[row.number]) for row in rows]
    return Probe(name, purpose, metrics, rows, pairs, references)


def _encoder(base: Base, first: Mapping[str, Any]) -> Encoder | PairEncoder | JudgedEncoder:
    """An encoder for rows like the first one."""
    if "chosen" in first:
        return PairEncoder(base.tokenizer)
    return JudgedEncoder(base.tokenizer) if "label" in first else Encoder(base.tokenizer, "LastAssistant")


def _answered(
    source: DatasetInput, encoder: RecordEncoder[Any], length: int, name: str
) -> list[Row] | list[Pair] | list[Judged]:
    """The rows with an answer that a model should give; KTO's bad answers do not count."""
    rows = encode_split(source.path, encoder, max_length=length, truncation="Drop").rows
    good = [row for row in rows if not isinstance(row, Judged) or row.label]
    if not good:
        raise TrainerError(FailureCode.NO_TRAINABLE_ROWS, f"{name}: all {len(rows)} answers have the label false")
    return good


def _as_row(example: Row | Pair | Judged) -> Row:
    """The conversation with the good answer."""
    if isinstance(example, Row):
        return example
    answer = example.chosen_ids if isinstance(example, Pair) else example.completion_ids
    return Row(example.sequences[0], labels(example.prompt_ids, answer, example.masks[0]), example.number)


def _other(pair: Pair) -> Row:
    return Row(pair.sequences[1], labels(pair.prompt_ids, pair.rejected_ids, pair.masks[1]), pair.number)


def _reference(record: Mapping[str, Any]) -> str:
    """The last assistant turn, which answers the row's `prompt_ids`."""
    answer = record.get("chosen", record.get("completion"))
    return as_text({"messages": answer} if isinstance(answer, list) else dict(record))[1] or ""


def measure(trainer: MeasuredTrainer, suite: Iterable[Probe], poll: Poll) -> list[Score]:
    """One score for each probe, of the model in its current state. A collective."""
    return [_measure(trainer, probe, poll) for probe in suite]


def _measure(trainer: MeasuredTrainer, probe: Probe, poll: Poll) -> Score:
    score = likely(trainer, probe.rows, poll)
    means: dict[str, Mean] = dict(score.means)
    if EvaluationMetric.MULTIPLE_CHOICE in probe.metrics:
        other = likely(trainer, [_other(p) for p in probe.pairs], poll)
        means["multiple_choice"] = _choices(score.means["loss"], other.means["loss"])
    text = [m for m in probe.metrics if m in TEXT_METRICS]
    if text:
        answers = _answers(trainer, probe.rows, poll)
        for metric in text:
            values = [TEXT_METRICS[metric](a, r) for a, r in zip(answers, probe.references, strict=True)]
            means[NAMES[metric]] = Mean(values, [1.0] * len(values))
    return Score(means, score.tokens)


def likely(trainer: MeasuredTrainer, rows: Sequence[Row], poll: Poll) -> Score:
    """Loss and right tokens of rows, computed by the model's own head. A collective."""
    run = trainer.run
    pad = run.base.tokenizer.pad_token_id
    fused = run.method.score is heldout.score_language_model
    return heldout.score(trainer.scoring_model(), rows, pad_id=pad, bf16=run.settings.bf16, poll=poll, fused=fused)


def _choices(right: Mean, wrong: Mean) -> Mean:
    """For each row, whether the right answer is likelier per token."""
    pairs = zip(right.totals, right.weights, wrong.totals, wrong.weights, strict=True)
    return Mean([float(r / rw < w / ww) for r, rw, w, ww in pairs], [1.0] * len(right.totals))


def _answers(trainer: MeasuredTrainer, rows: Sequence[Row], poll: Poll) -> list[str]:
    run, out = trainer.run, []
    poll.count(0, begun=len(rows))
    for start in range(0, len(rows), GENERATION_BATCH):
        poll()
        generated = heldout.answers(
            trainer.model,
            [row.prompt_ids for row in rows[start : start + GENERATION_BATCH]],
            tokenizer=run.base.tokenizer,
            stop_ids=run.stop_ids,
            max_new_tokens=run.plan.evaluation.max_new_tokens,
            sharded=run.plan.shards_weights,
        )
        out += [answer.text for answer in generated]
        poll.count(len(generated))
    return out


def numbers(suite: Sequence[Probe], base: Sequence[Score] | None, tuned: Sequence[Score]) -> list[EvaluationNumber]:
    """Each metric of each probe, before and after, with intervals."""
    out = []
    for index, probe in enumerate(suite):
        before = [base[index]] if base else None
        out += scores.numbers([probe.name], probe.names, before, [tuned[index]], purpose=probe.purpose)
    return out


def regressions(suite: Sequence[Probe], base: Sequence[Score], tuned: Sequence[Score]) -> Mapping[str, float]:
    """How much worse each retention metric became, relative to the base's; negative means better."""
    out = {}
    for probe, before, after in zip(suite, base, tuned, strict=True):
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
    """How much worse a metric became, relative to the size of the base's. Infinite if the base's is 0, where a relative
    change is undefined, or if the new value is not a number.

    None: the base's value is 0 and has not become worse. The base had nothing to lose.
    """
    if math.isnan(new):
        return math.inf
    worse = new - old if good == "Lowest" else old - new
    if old:
        return worse / abs(old)
    return math.inf if worse > 0 else None


def share(percent: str | None) -> float | None:
    """E.g. 0.05 for 5%."""
    return None if percent is None else float(percent.removesuffix("%")) / 100


def most_regression(plan: TrainingPlan) -> float | None:
    """The regression that evaluation.retention.maxRegression allows; None means any."""
    return share(plan.evaluation.retention.max_regression) if plan.evaluation.retention else None


def beyond(changes: Mapping[str, float], limit: float | None) -> dict[str, float]:
    """The metrics whose regression exceeds the limit."""
    return {name: worse for name, worse in changes.items() if limit is not None and worse > limit}


def verdict(suite: Sequence[Probe], base: Sequence[Score] | None, tuned: Sequence[Score], plan: TrainingPlan) -> str:
    """Why the model fails the gate; empty if it passes or there is no gate."""
    return gate(
        "evaluation.retention", None if base is None else regressions(suite, base, tuned), most_regression(plan)
    )


def gate(field: str, changes: Mapping[str, float] | None, allowed: float | None) -> str:
    """Why the model fails a field's gate, as a sentence that begins with the field; empty if it passes.

    Args:
        changes: from `regressions`; None: the base's numbers are unknown.
        allowed: None: there is no gate.
    """
    if allowed is None:
        return ""
    if changes is None:
        return f"{field}: the base model's numbers are lost, so nothing can be compared: train again."
    words = ", ".join(f"{name} {_by(worse)}" for name, worse in beyond(changes, allowed).items())
    return f"{field}: worse than the base model beyond {allowed:.1%}: {words}." if words else ""


def _by(worse: float) -> str:
    return f"by {worse:.1%}" if math.isfinite(worse) else "from the base's 0, or to no number"
