"""Scores of a model on held-out rows, row by row, and the numbers computed from them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hone_api.kinds.modelversion import EvaluationNumber, Purpose

Best = Literal["Lowest", "Highest"]
"""Whether lower or higher is better."""
RESAMPLES = 1000


def _exp(value: float) -> float:
    """As math.exp, but infinite where that raises."""
    return math.inf if value > _LARGEST_EXPONENT else math.exp(value)


_LARGEST_EXPONENT = 709.0
"""Of what a float can hold."""
DERIVED = {
    "perplexity": ("loss", _exp),
    "word_perplexity": ("nats_per_word", _exp),
    "byte_perplexity": ("nats_per_byte", _exp),
}
"""Metrics that are computed from another metric's value."""


@dataclass(frozen=True)
class Mean:
    """A metric by rows: its value is the sum of the totals over the sum of the weights.

    For a loss per token the weights are the rows' counted tokens; for a share of rows they are 1.
    """

    totals: list[float]
    weights: list[float]

    @property
    def value(self) -> float:
        """The mean; NaN if nothing counted."""
        weight = sum(self.weights)
        return sum(self.totals) / weight if weight else math.nan

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.totals + other.totals, self.weights + other.weights)


@dataclass(frozen=True)
class Score:
    """Metrics of one model on the same rows, in the rows' order."""

    means: Mapping[str, Mean]
    tokens: int
    """Number of tokens that counted."""

    @property
    def rows(self) -> int:
        """Number of rows that were scored."""
        return len(next(iter(self.means.values())).totals)

    def value(self, name: str) -> float:
        """The value of a metric, measured or derived.

        Raises:
            KeyError: this score does not have the metric.
        """
        if name in DERIVED:
            source, function = DERIVED[name]
            return function(self.means[source].value)
        return self.means[name].value

    def __add__(self, other: Score) -> Score:
        return Score({n: mean + other.means[n] for n, mean in self.means.items()}, self.tokens + other.tokens)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Score:
        """Parse the score that `dataclasses.asdict` wrote."""
        return cls({name: Mean(**mean) for name, mean in body["means"].items()}, int(body["tokens"]))


def numbers(
    splits: Sequence[str],
    metrics: Iterable[str],
    base: Sequence[Score] | None,
    tuned: Sequence[Score],
    purpose: Purpose = "HeldOut",
    other: Sequence[Score] | None = None,
) -> list[EvaluationNumber]:
    """Each metric on each split, before and after, with 95 % intervals.

    Args:
        splits: names of the splits, as <dataset>/<split>, in the order of the scores.
        other: of another version of the model, on the same rows.
    """
    names = list(metrics)
    return [
        _number(name, base[index] if base else None, after).model_copy(
            update={"dataset": split, "purpose": purpose, **_against(name, other[index] if other else None, after)}
        )
        for index, (split, after) in enumerate(zip(splits, tuned, strict=True))
        for name in names
    ]


def _against(name: str, other: Score | None, after: Score) -> dict[str, str]:
    """The fields that compare with another version, whose interval is paired by row as that of the change."""
    source, _ = DERIVED.get(name, (name, None))
    if other is None or other.rows != after.rows or source not in other.means:
        return {}
    theirs, ours = (
        Score({source: mean}, 0) for mean in common(other.means[source], after.means[source])
    )  # an answer may have no reward
    if not theirs.rows:
        return {}
    low, high = _ends(resampled(name, ours) - resampled(name, theirs))
    return {"against": _text(theirs.value(name)), "against_low": _text(low), "against_high": _text(high)}


def common(one: Mean, other: Mean) -> tuple[Mean, Mean]:
    """Both means, restricted to rows that count in both."""
    rows = [i for i, weights in enumerate(zip(one.weights, other.weights, strict=True)) if all(weights)]
    first, second = (Mean([m.totals[i] for i in rows], [m.weights[i] for i in rows]) for m in (one, other))
    return first, second


def _number(name: str, before: Score | None, after: Score) -> EvaluationNumber:
    drawn = resampled(name, after)
    low, high = _ends(drawn)
    # The same rows are drawn for both models: a row that is hard for one is hard for the other.
    change = _ends(drawn - resampled(name, before)) if before and before.rows == after.rows else None
    return EvaluationNumber(
        name=name,
        base=_text(before.value(name)) if before else None,
        tuned=_text(after.value(name)),
        low=_text(low),
        high=_text(high),
        change_low=_text(change[0]) if change else None,
        change_high=_text(change[1]) if change else None,
        rows=after.rows,
        tokens=after.tokens,
    )


def resampled(name: str, score: Score) -> Any:
    """A metric over RESAMPLES draws of the rows with replacement (the bootstrap, Efron 1979): (RESAMPLES,) float64.

    All metrics over the same number of rows use the same draws.
    """
    source, function = DERIVED.get(name, (name, None))
    totals, weights = (np.array(values) for values in (score.means[source].totals, score.means[source].weights))
    random = np.random.default_rng(0)
    draws = np.full(RESAMPLES, np.nan)
    for draw in range(RESAMPLES):
        rows = random.integers(len(totals), size=len(totals))
        if weight := weights[rows].sum():
            draws[draw] = totals[rows].sum() / weight
    return np.array([function(value) for value in draws]) if function else draws


def _ends(values: Any) -> tuple[float, float]:
    if np.isnan(values).all():
        return math.nan, math.nan
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _text(value: float) -> str:
    return f"{value:.6f}"
