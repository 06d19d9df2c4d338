"""Length: the answer is neither too short nor too long."""

from __future__ import annotations

from collections.abc import Sequence

from hone_trainer.rewards.base import Context, Sample, Scored, WithoutGold


class LengthScorer(WithoutGold):
    """1 within the bounds. Outside, it falls to 0 over `slope` tokens, as DAPO's overlong penalty does (Yu et al. 2025,
    arXiv 2503.14476, eq. 13, plus 1)."""

    def __init__(self, context: Context) -> None:
        assert context.spec.length is not None
        self._options = context.spec.length

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        return [self._score(sample.tokens) for sample in samples]

    def _score(self, tokens: int) -> float:
        options = self._options
        over = max(tokens - options.max if options.max is not None else 0, 0)
        under = max(options.min - tokens if options.min is not None else 0, 0)
        outside = max(over, under)
        if not outside or not options.slope:
            return float(not outside)
        return max(0.0, 1 - outside / options.slope)
