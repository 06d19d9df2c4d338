"""Several rewards in one: their weighted sum, a sample masked when one of them is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from hone_trainer.rewards.base import Masked, Reward, Sample, Scored


@dataclass(frozen=True)
class Part:
    """One of them."""

    name: str
    weight: float
    reward: Reward


@dataclass(frozen=True)
class Scores:
    """Scores of some samples."""

    totals: list[float | None]
    """Weighted sums; None for a masked sample."""
    parts: dict[str, list[Scored]]
    """By the reward's name, not weighted."""

    def masks(self) -> list[Masked]:
        """Of all rewards."""
        return [score for scores in self.parts.values() for score in scores if isinstance(score, Masked)]

    def failed(self) -> int:
        """Samples without a score that no reward left out on purpose."""
        columns = list(zip(*self.parts.values(), strict=True))
        return sum(
            total is None and not any(isinstance(score, Masked) and score.meant for score in scores)
            for total, scores in zip(self.totals, columns, strict=True)
        )

    def masked(self) -> Counter[str]:
        """Samples left out by reward and reason."""
        return Counter(
            f"{name}: {score.reason[:200]}"
            for name, scores in self.parts.items()
            for score in scores
            if isinstance(score, Masked)
        )


@dataclass(frozen=True)
class Combined:
    """The rewards of a run."""

    parts: list[Part]
    counts: Counter[str] = field(default_factory=Counter)
    """Samples left out so far, by reward and reason."""

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        """Score samples."""
        found = {part.name: part.reward(samples) for part in self.parts}
        weights = {part.name: part.weight for part in self.parts}
        scores = Scores([_total(weights, found, i) for i in range(len(samples))], found)
        self.counts.update(scores.masked())
        return scores


def _total(weights: dict[str, float], found: dict[str, list[Scored]], index: int) -> float | None:
    total = 0.0
    for name, weight in weights.items():
        score = found[name][index]
        if isinstance(score, Masked):
            return None
        total += weight * score
    return total if math.isfinite(total) else None  # weights can take finite scores beyond the largest float
