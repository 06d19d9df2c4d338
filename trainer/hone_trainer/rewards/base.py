"""What a reward is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hone_trainer.encoding import harmony
from hone_trainer.endpoints.client import Access

if TYPE_CHECKING:
    from hone_api.rewards import Reward as RewardSpec
    from hone_trainer.encoding.prompts import Prompt
    from hone_trainer.sandbox import Workers


@dataclass(frozen=True)
class Sample:
    """One answer of the model."""

    completion: str
    """Without special tokens; see `harmony.decoded`."""
    record: Mapping[str, Any]
    """See `prompts.checked_record`."""
    tokens: int
    """Of the answer, the end mark included."""

    @property
    def prompt(self) -> str:
        """The question as text; of a conversation, its last user turn."""
        prompt = self.record["prompt"]
        if isinstance(prompt, str):
            return prompt
        return next((str(turn["content"]) for turn in reversed(prompt) if turn["role"] == "user"), "")


def as_samples(tokenizer: Any, rows: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> list[Sample]:
    """Answers to prompts, given as token ids with their end mark."""
    pairs = zip(rows, answers, strict=True)
    return [Sample(harmony.decoded(tokenizer, ids), row.record, len(ids)) for row, ids in pairs]


@dataclass(frozen=True)
class Masked:
    """No score: nothing is known about the sample, so it is left out. It is not a 0."""

    reason: str
    broken: bool = False
    """Whether the sandbox is to blame, and not the reward."""
    away: bool = False
    """Whether a server is to blame that could not be reached: it may be back later."""
    meant: bool = False
    """Whether the reward left it out on purpose."""


Scored = float | Masked


class Reward(Protocol):
    """Scores samples."""

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        """One score a sample, in their order."""

    def gold(self, record: Mapping[str, Any]) -> str | None:
        """A completion that is right for this record; None when there is none to know."""


@dataclass(frozen=True)
class Context:
    """What a reward is made from."""

    spec: RewardSpec
    workers: Workers
    path: Path | None = None
    """What the reward brings along: a program, a key, a model."""
    access: Access = field(default_factory=Access)
    """Which addresses a judge may have."""


class WithoutGold:
    """Mix-in for rewards that compare with nothing."""

    def gold(self, record: Mapping[str, Any]) -> str | None:
        """None: any answer can be right."""
        return None
