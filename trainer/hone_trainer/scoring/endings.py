"""How a generated answer ended: by an end-of-turn token, in a loop, or cut at the token limit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.kinds.modelversion import Ending

REPETITIONS = 3
"""Consecutive repetitions of the same tokens at the end of an answer that loops."""
FEWEST = 16
"""Least tokens in a loop: the rule of a table or a row of zeros is an answer."""


@dataclass(frozen=True)
class Answer:
    """A model's answer."""

    text: str
    ending: Ending | None = None
    """None: it ended with an end-of-turn token, or was not checked."""

    @classmethod
    def from_json(cls, body: Any) -> Answer:
        """The answer that `dataclasses.asdict` wrote, or only its text, as earlier versions wrote it."""
        return cls(body) if isinstance(body, str) else cls(**body)


def ending_of(ids: Sequence[int], stop_ids: frozenset[int], longest: int) -> Ending | None:
    """How an answer ended.

    Args:
        ids: the answer's tokens, including the one that ended it.
        longest: tokens after which it was cut.
    """
    ended = bool(ids) and ids[-1] in stop_ids
    if loops(ids[:-1] if ended else ids):
        return "Repeats"
    return "Cut" if not ended and len(ids) >= longest else None


def loops(ids: Sequence[int]) -> bool:
    """Whether the answer repeats the same tokens until its end: at least REPETITIONS times and FEWEST tokens."""
    for period in range(1, len(ids) // REPETITIONS + 1):
        covered = period
        while covered < len(ids) and ids[-covered - 1] == ids[period - covered - 1]:
            covered += 1
        if covered >= max(REPETITIONS * period, FEWEST):
            return True
    return False


def sentences(tuned: Sequence[Answer], base: Sequence[Answer] | None, own: Sequence[int], longest: int) -> list[str]:
    """Warnings; empty if every answer ended as it should.

    A cut answer is only a warning if the row's own answer is shorter: otherwise the model may be right.

    Args:
        tuned: answers of the trained model.
        base: answers of the base model to the same prompts, if known.
        own: tokens of each row's own answer; 0 if it has none.
        longest: tokens after which answers are cut.
    """
    looping = [i for i, answer in enumerate(tuned, 1) if answer.ending == "Repeats"]
    endless = [i for i, answer in enumerate(tuned, 1) if answer.ending == "Cut" and 0 < own[i - 1] < longest]
    warnings = []
    if looping:
        before = sum(answer.ending == "Repeats" for answer in base or ())
        compared = f"; of the base model {before}" if base else ""
        warnings.append(
            f"{len(looping)} of {len(tuned)} sample answers loop (in the report: {_listed(looping)}{compared}): the "
            "trained model repeats the same words to the end. Use more or better rows, a lower learningRate or fewer "
            "epochs, or a larger base model."
        )
    if endless:
        warnings.append(
            f"{len(endless)} of {len(tuned)} sample answers do not end within {longest} tokens, where the row's own "
            f"answer does (in the report: {_listed(endless)}): train longer, and check that the end-of-turn token is "
            "trained (the first row in the report shows it)."
        )
    return warnings


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
