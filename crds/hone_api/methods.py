"""The methods of fine-tuning, each with the block of its options in a FineTuneJob."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from hone_api.dataset import Format
from hone_api.meta import (
    ApiModel,
    Decimal,
    Name,
)


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


class SftMethod(ApiModel):
    """Supervised fine-tuning: which tokens count in the loss."""

    train_on: Literal["Assistant", "LastAssistant"] = Field(
        default="Assistant",
        description="Assistant: every assistant turn or completion counts; LastAssistant: only the last turn.",
    )
    neftune_alpha: Decimal | None = Field(
        default=None, description="NEFTune noise on embeddings, e.g. 5; default: none."
    )


class DaptMethod(ApiModel):
    """Domain-adaptive pre-training on plain text; every token counts."""

    pack: bool = Field(default=True, description="Whether documents are packed, with EOS between; default true.")


class DpoMethod(ApiModel):
    """Direct preference optimisation (Rafailov et al. 2023) and its relatives."""

    loss: Literal["Sigmoid", "IPO", "Hinge"] = Field(default="Sigmoid", description="Loss, e.g. Sigmoid.")
    beta: Decimal = Field(default="0.1", description="Strength of the pull to the reference, e.g. 0.1.")


class KtoMethod(ApiModel):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024)."""

    beta: Decimal = Field(default="0.1", description="Strength of the pull to the reference, e.g. 0.1.")


class OrpoMethod(ApiModel):
    """Odds-ratio preference optimisation (Hong et al. 2024)."""

    weight: Decimal = Field(default="0.1", description="Weight of the odds-ratio term, e.g. 0.1.")


class RewardMethod(ApiModel):
    """Reward model training."""

    center_rewards: Decimal | None = Field(
        default=None, description="Coefficient that pulls rewards to mean zero, e.g. 0.01; default: none."
    )


class PpoMethod(ApiModel):
    """Proximal policy optimisation with a reward model."""

    reward_model_version: Name = Field(description="Name of the ModelVersion of the reward model.")
    kl: Decimal = Field(default="0.05", description="KL coefficient against the reference, e.g. 0.05.")


class GrpoMethod(ApiModel):
    """Group-relative policy optimisation with verifiable rewards."""

    generations: int = Field(default=8, ge=2, le=256, description="Samples per prompt, e.g. 8.")
    beta: Decimal = Field(default="0", description="KL coefficient against the reference, e.g. 0.")


METHOD_BLOCKS = tuple(m.value.lower() for m in Method)
_ANSWERS = (Format.CHAT, Format.SHAREGPT, Format.ALPACA, Format.PROMPT_COMPLETION, Format.RAFT)
FORMATS_TAKEN: dict[Method, tuple[Format, ...]] = {
    Method.SFT: (*_ANSWERS, Format.TEXT),
    Method.DAPT: (Format.TEXT,),
    Method.DPO: (Format.PREFERENCE,),
    Method.KTO: (Format.KTO, Format.PREFERENCE),
    Method.ORPO: (Format.PREFERENCE,),
    Method.REWARD: (Format.PREFERENCE,),
    Method.PPO: (*_ANSWERS, Format.VERIFIABLE),
    Method.GRPO: (*_ANSWERS, Format.VERIFIABLE),
}
"""Formats of the Datasets that a method can train on. The last two use the prompts alone, or check answers by them."""
