"""Compares the rewards for the answers of base and tuned model, row by row. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from hone_api.kinds.modelversion import PARITY, EvaluationNumber
from hone_trainer.scoring import scores
from hone_trainer.scoring.scores import Mean, Score, common

REWARD, WIN_RATE = "reward_", "win_rate_"
"""Prefixes of metric names, before the name of the reward."""


def numbers(splits: Sequence[str], base: Sequence[Score] | None, tuned: Sequence[Score]) -> list[EvaluationNumber]:
    """Each metric on each split before and after, and how often the tuned model's answer has the higher reward.

    Args:
        splits: names of the splits, in the order of the scores.
    """
    befores: Sequence[Score | None] = base or [None] * len(tuned)
    by_split = zip(splits, befores, tuned, strict=True)
    return [number for split, before, after in by_split for number in _numbers(split, before, after)]


def parity(splits: Sequence[str], recorded: Sequence[Score], tuned: Sequence[Score]) -> list[EvaluationNumber]:
    """Each reward of the tuned model's answers next to that of the recorded ones, as of another version.

    Args:
        recorded: in the order of `tuned`; rows without a recorded answer have the weight 0.
    """
    out = []
    for split, theirs, ours in zip(splits, recorded, tuned, strict=False):
        for name, mean in theirs.means.items():
            old, new = common(mean, ours.means[name])
            label = PARITY + name.removeprefix(REWARD)
            if new.totals:
                scored = [Score({label: new}, 0)], [Score({label: old}, 0)]
                out += scores.numbers([split], [label], None, scored[0], other=scored[1])
    return [number.model_copy(update={"tokens": None}) for number in out]


def _numbers(split: str, before: Score | None, after: Score) -> Iterator[EvaluationNumber]:
    for name, mean in after.means.items():
        old, new = common(before.means[name] if before else mean, mean)
        compared = before is not None and bool(new.totals)
        if not compared:  # separate values are better than none
            _, new = common(mean, mean)
        past = [Score({name: old}, after.tokens)] if compared else None
        (number,) = scores.numbers([split], [name], past, [Score({name: new}, after.tokens)])
        rewarded = name.startswith(REWARD)
        yield (
            number if rewarded else number.model_copy(update={"tokens": None})
        )  # the tokens are those of greedy answers
        if compared and rewarded:
            rate = WIN_RATE + name.removeprefix(REWARD)
            yield from scores.numbers([split], [rate], None, [Score({rate: wins(old, new)}, after.tokens)])


def wins(base: Mean, tuned: Mean) -> Mean:
    """For each row, 1 if the tuned model's answer scores higher than the base's, 0.5 if both score the same, else 0.
    All rows count."""
    pairs = zip(base.totals, tuned.totals, strict=True)
    return Mean([(new > old) + 0.5 * (new == old) for old, new in pairs], [1.0] * len(base.totals))


def pass_name(k: int, reward: str) -> str:
    """The name of pass@k for a reward."""
    return f"pass_at_{k}_{reward}"


def pass_at(k: int, samples: Sequence[float], right: Sequence[float]) -> Mean:
    """For each row, the fraction of draws of k of its samples that contain a right one: the unbiased estimate of pass@k
    (Chen et al. 2021, arXiv 2107.03374, eq. 1). Rows with fewer than k samples do not count.

    Args:
        samples: for each row, the number of answers with a score.
        right: the number of right answers among them.
    """
    pairs = [(int(n), int(c)) for n, c in zip(samples, right, strict=True)]
    totals = [1 - math.comb(n - c, k) / math.comb(n, k) if n >= k else 0.0 for n, c in pairs]
    return Mean(totals, [float(n >= k) for n, _ in pairs])
