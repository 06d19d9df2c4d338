"""What a model scores on held-out rows, row by row, and the numbers that come of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hone_api.modelversion import EvaluationNumber

Best = Literal["Lowest", "Highest"]
"""Which end of a metric is the good one."""
DERIVED = {"perplexity": ("loss", math.exp)}
"""Metrics that are a function of another one's value."""


@dataclass(frozen=True)
class Mean:
    """A metric by rows: its value is the sum of the totals over the sum of the weights.

    Of a loss per token the weights are the rows' counted tokens, of a share of rows they are 1.
    """

    totals: list[float]
    weights: list[float]

    @property
    def value(self) -> float:
        """The mean; not a number when nothing counted."""
        weight = sum(self.weights)
        return sum(self.totals) / weight if weight else math.nan

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.totals + other.totals, self.weights + other.weights)


@dataclass(frozen=True)
class Score:
    """Metrics of one model on the same rows, in the rows' order."""

    means: Mapping[str, Mean]
    tokens: int
    """Tokens that counted."""

    @property
    def rows(self) -> int:
        """Rows that were scored."""
        return len(next(iter(self.means.values())).totals)

    def value(self, name: str) -> float:
        """The value of a metric, measured or derived.

        Raises:
            KeyError: a metric that this score does not have.
        """
        if name in DERIVED:
            source, function = DERIVED[name]
            return function(self.means[source].value)
        return self.means[name].value

    def __add__(self, other: Score) -> Score:
        return Score({n: mean + other.means[n] for n, mean in self.means.items()}, self.tokens + other.tokens)

    @classmethod
    def from_json(cls, body: Mapping[str, object]) -> Score:
        """The score that `dataclasses.asdict` wrote."""
        means: Mapping[str, Mapping[str, list[float]]] = body["means"]  # type: ignore[assignment]
        return cls({name: Mean(**mean) for name, mean in means.items()}, int(str(body["tokens"])))


def numbers(
    splits: Sequence[str], metrics: Iterable[str], base: Sequence[Score] | None, tuned: Sequence[Score]
) -> list[EvaluationNumber]:
    """Each metric on each split, before and after.

    Args:
        splits: names of the splits, as <dataset>/<split>, in the order of the scores.
    """
    names = list(metrics)
    return [
        EvaluationNumber(
            name=name,
            dataset=split,
            base=f"{base[index].value(name):.6f}" if base else None,
            tuned=f"{after.value(name):.6f}",
            rows=after.rows,
            tokens=after.tokens,
        )
        for index, (split, after) in enumerate(zip(splits, tuned, strict=True))
        for name in names
    ]
