"""The self-check before training: a reward that rejects right answers would train wrong ones."""

from __future__ import annotations

from collections.abc import Sequence

from hone_api.base.wording import counted
from hone_api.blocks.rewards import VERIFIERS
from hone_api.words.failures import FailureCode
from hone_trainer.encoding.prompts import Prompt
from hone_trainer.errors import TrainerError
from hone_trainer.rewards.base import Masked, Sample, Scored
from hone_trainer.rewards.combined import Combined, WeightedReward

ROWS = 32
"""Number of rows checked, spread over the data."""
_NAMED = 5


def check(rewards: Combined, types: Sequence[str], rows: Sequence[Prompt], where: str = "") -> list[str]:
    """Score the rows' own answers.

    Args:
        types: the rewards' types, in the order of their parts.
        where: prefix of sentences and messages, to distinguish splits.

    Returns:
        A sentence for each reward about what was checked.

    Raises:
        TrainerError: VerifierRejectsGold; RewardFailed for a function that returns no number, with the row numbers;
            SandboxFailed.
    """
    step = max(1, len(rows) // ROWS)
    sample = [rows[index] for index in range(0, len(rows), step)[:ROWS]]
    parts = zip(rewards.parts, types, strict=True)
    return [f"{where}{_check(part, type_ in VERIFIERS, sample, where)}" for part, type_ in parts]


def _check(part: WeightedReward, verifies: bool, rows: Sequence[Prompt], where: str) -> str:
    golds = [(row, text) for row in rows if (text := part.reward.gold(row.record)) is not None]
    if not golds:
        return f"reward {part.name}: no row has a right answer to check it with"
    scores = part.reward([Sample(text, row.record, len(text.split())) for row, text in golds])
    wrong = [(row, score) for (row, _), score in zip(golds, scores, strict=True) if _is_wrong(score, verifies)]
    if all(isinstance(score, Masked) for score in scores):
        wrong = [(row, score) for (row, _), score in zip(golds, scores, strict=True)]
    if not wrong:
        return f"reward {part.name}: {'1' if verifies else 'a number'} for the answers of {counted(len(golds), 'row')}"
    lines = ", ".join(str(row.number) for row, _ in wrong[:_NAMED])
    what = f"{_words(wrong[0][1], verifies)} for the row's own answer"
    raise TrainerError(
        _code(wrong[0][1], verifies),
        f"{where}reward {part.name}: {what} in {len(wrong)} of {len(golds)} rows checked: line {lines}",
    )


def _is_wrong(score: Scored, verifies: bool) -> bool:
    if isinstance(score, Masked):
        return not score.meant
    return verifies and score != 1


def _code(score: Scored, verifies: bool) -> FailureCode:
    if isinstance(score, Masked) and score.broken:
        return FailureCode.SANDBOX_FAILED
    return FailureCode.VERIFIER_REJECTS_GOLD if verifies else FailureCode.REWARD_FAILED


def _words(score: Scored, verifies: bool) -> str:
    if isinstance(score, Masked):
        return f"no score ({score.reason[:300]})"
    return f"{score:g} and not 1" if verifies else f"{score:g}"
