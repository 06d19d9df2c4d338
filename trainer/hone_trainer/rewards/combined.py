"""Several rewards as one: their weighted sum. A sample is masked if any of them masks it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from hone_trainer.rewards.base import Masked, RewardFunction, Sample, Scored


@dataclass(frozen=True)
class WeightedReward:
    """One reward and its weight."""

    name: str
    weight: float
    reward: RewardFunction


@dataclass(frozen=True)
class CombinedScores:
    """Scores of some samples."""

    totals: list[float | None]
    """Weighted sums; None for a masked sample."""
    parts: dict[str, list[Scored]]
    """Unweighted scores, by the reward's name."""

    def masks(self) -> list[Masked]:
        """The masked scores of all rewards."""
        return [score for scores in self.parts.values() for score in scores if isinstance(score, Masked)]

    def failed(self) -> int:
        """Samples without a score, not counting those that a reward excluded on purpose."""
        columns = list(zip(*self.parts.values(), strict=True))
        return sum(
            total is None and not any(isinstance(score, Masked) and score.meant for score in scores)
            for total, scores in zip(self.totals, columns, strict=True)
        )

    def masked(self) -> Counter[str]:
        """Excluded samples by reward and reason."""
        return Counter(
            f"{name}: {score.reason[:200]}"
            for name, scores in self.parts.items()
            for score in scores
            if isinstance(score, Masked)
        )


@dataclass(frozen=True)
class Combined:
    """The rewards of a run."""

    parts: list[WeightedReward]
    counts: Counter[str] = field(default_factory=Counter)
    """Samples excluded so far, by reward and reason."""

    def __call__(self, samples: Sequence[Sample]) -> CombinedScores:
        """Score the samples."""
        by_reward = {part.name: part.reward(samples) for part in self.parts}
        weights = {part.name: part.weight for part in self.parts}
        scores = CombinedScores([_total(weights, by_reward, i) for i in range(len(samples))], by_reward)
        self.counts.update(scores.masked())
        return scores


def _total(weights: dict[str, float], by_reward: dict[str, list[Scored]], index: int) -> float | None:
    total = 0.0
    for name, weight in weights.items():
        score = by_reward[name][index]
        if isinstance(score, Masked):
            return None
        total += weight * score
    return total if math.isfinite(total) else None  # a weighted sum of finite scores can exceed the largest float
