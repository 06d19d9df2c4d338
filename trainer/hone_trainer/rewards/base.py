"""The protocol of rewards, and what they score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hone_api.blocks.rewards import AnswerReward
from hone_trainer.encoding import harmony
from hone_trainer.endpoints.client import Access
from hone_trainer.models.network import Tokenizer
from hone_trainer.rewards import answers

if TYPE_CHECKING:
    from hone_api.blocks.rewards import Reward as RewardSpec
    from hone_trainer.encoding.prompts import Prompt
    from hone_trainer.sandbox import SandboxWorkers


@dataclass(frozen=True)
class Sample:
    """One answer of the model."""

    completion: str
    """Without special tokens; see `harmony.decoded`."""
    record: Mapping[str, Any]
    """See `prompts.checked_record`."""
    tokens: int
    """Tokens of the answer, including the end-of-turn token."""

    @property
    def prompt(self) -> str:
        """The question as text; for a conversation, its last user turn."""
        prompt = self.record["prompt"]
        if isinstance(prompt, str):
            return prompt
        return next((str(turn["content"]) for turn in reversed(prompt) if turn["role"] == "user"), "")


def as_samples(tokenizer: Tokenizer, rows: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> list[Sample]:
    """Samples from prompts and their answers, which are token ids including the end-of-turn token."""
    pairs = zip(rows, answers, strict=True)
    return [Sample(harmony.decoded(tokenizer, row.prompt_ids, ids), row.record, len(ids)) for row, ids in pairs]


@dataclass(frozen=True)
class Masked:
    """No score: nothing is known about the sample, so it is excluded. It does not count as 0."""

    reason: str
    broken: bool = False
    """Whether the sandbox failed, not the reward."""
    unreachable: bool = False
    """Whether a server was unreachable; it may answer later."""
    meant: bool = False
    """Whether the reward excluded the sample on purpose."""


Scored = float | Masked


class RewardFunction(Protocol):
    """Scores samples."""

    def __call__(self, samples: Sequence[Sample]) -> list[Scored]:
        """One score for each sample, in their order."""

    def gold(self, record: Mapping[str, Any]) -> str | None:
        """A completion that is right for this record; None if there is none."""


@dataclass(frozen=True)
class Context:
    """What a reward is built from."""

    spec: RewardSpec
    workers: SandboxWorkers
    path: Path | None = None
    """What the reward needs besides its options: a program, a key, a model."""
    access: Access = field(default_factory=Access)
    """Which addresses a judge may have."""


class FinalAnswer:
    """Mix-in for rewards that compare the final answer with the row's."""

    def __init__(self, context: Context) -> None:
        self._options = context.spec.final or AnswerReward()

    def gold(self, record: Mapping[str, Any]) -> str | None:
        """The row's answer, with the marker if the options require it."""
        answer = str(record.get("answer", ""))
        return answer if not self._options.marked or answers.marked(answer) else f"#### {answer}"


class WithoutGold:
    """Mix-in for rewards that need no reference answer."""

    def gold(self, record: Mapping[str, Any]) -> str | None:
        """None: any answer can be right."""
        return None
