"""What Hone knows about a method apart from its options: one record, which all code that distinguishes methods
reads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from hone_api.dataset.dataset import Format


class Method(StrEnum):
    """How the model is tuned."""

    SFT = "SFT"
    DAPT = "DAPT"
    DPO = "DPO"
    KTO = "KTO"
    ORPO = "ORPO"
    REWARD = "Reward"
    PPO = "PPO"
    GRPO = "GRPO"
    DISTILLATION = "Distillation"


@dataclass(frozen=True)
class Rates:
    """Learning rates of a method if the user sets none.

    Adapters need about ten times the rate of full fine-tuning ("LoRA without regret", Thinking Machines, 2025).
    """

    adapter: float
    full: float


Encodes = Literal["Conversations", "Documents", "Pairs", "Judged", "Prompts"]
"""What rows become as tokens. Methods that encode alike can read the same encoded rows."""


@dataclass(frozen=True)
class MethodInfo:
    """One method."""

    name: Method
    formats: tuple[Format, ...]
    """Formats of the Datasets that it can train on."""
    rates: Rates
    encodes: Encodes = "Conversations"
    """What its rows become as tokens."""
    needs: str | None = None
    """What its block must have, in words, if the method requires the block."""
    paired: bool = False
    """Whether a row has two sequences. KTO's second one, for its KL estimate, has no gradient, so nothing is kept for
    it."""
    samples: bool = False
    """Whether the model in training generates its training data."""
    row_by_row: bool = False
    """Whether the loss is a mean over rows or tokens of the step, so that how many share a micro batch changes nothing.
    ORPO's likelihood is a mean over the tokens of a micro batch; KTO and the methods that sample compare its rows."""
    by_tokens: bool = False
    """Whether each token of a sequence is predicted once, so that a micro batch can be counted in tokens."""
    compares: bool = False
    """Whether the loss compares probabilities of answers or of two models, which dropout would blur."""

    @property
    def block(self) -> str:
        """Name of its options in a spec and in a plan."""
        return self.name.lower()


ANSWERS = (Format.CHAT, Format.SHAREGPT, Format.ALPACA, Format.PROMPT_COMPLETION, Format.RAFT)
"""Formats of rows with answers."""
