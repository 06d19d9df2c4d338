"""Proximal policy optimisation (PPO): its options, and what is known of it."""

from __future__ import annotations

from pydantic import Field

from hone_api.base.meta import ApiModel, Decimal, Name, between
from hone_api.dataset.dataset import Format
from hone_api.methods.info import ANSWERS, Method, MethodInfo, Rates


class PpoMethod(ApiModel):
    """Proximal policy optimisation (Schulman et al. 2017) with a reward model, as in RLHF (Ouyang et al. 2022)."""

    rules = (
        between("temperature", "above 0 and at most 10", "> 0.0", "<= 10.0", "1"),
        between("gamma", "above 0 and at most 1", "> 0.0", "<= 1.0", "1"),
        between("gaeLambda", "at least 0 and at most 1", ">= 0.0", "<= 1.0", "0.95"),
        between("epsilon", "above 0 and below 1", "> 0.0", "< 1.0", "0.2"),
    )
    reward_model_version: Name = Field(description="Name of the ModelVersion of the reward model.")
    kl: Decimal = Field(default="0.05", description="KL coefficient against the reference, e.g. '0.05'.")
    target_kl: Decimal | None = Field(
        default=None,
        description="KL per answer, in nats, that the coefficient is adapted to (Ziegler et al. 2019), e.g. '6.0'; "
        "default: the coefficient is constant.",
    )
    max_kl: Decimal = Field(
        default="100",
        description="KL per answer, in nats, above which the run ends as Diverged, e.g. '7.5'; default 100.",
    )
    iterations: int = Field(default=4, ge=1, le=16, description="Optimiser steps on the same samples; default 4.")
    epsilon: Decimal = Field(
        default="0.2", description="How far ratio and value may move from those of the sampling model, e.g. '0.2'."
    )
    value_weight: Decimal = Field(default="0.1", description="Weight of the value loss, e.g. '0.1'.")
    gamma: Decimal = Field(default="1", description="Discount factor of later rewards, e.g. '0.99'; default 1.")
    gae_lambda: Decimal = Field(
        default="0.95",
        description="Lambda of the generalised advantage estimation (Schulman et al. 2015), e.g. '0.95'.",
    )
    temperature: Decimal = Field(default="1", description="Temperature of sampling, e.g. '0.9'; default 1.")
    max_completion_length: int = Field(
        default=128,
        ge=1,
        le=131_072,
        description="Longest sample, in tokens; longer samples are truncated. Default 128.",
    )
    missing_end_penalty: Decimal = Field(
        default="1",
        description="Subtracted from the reward of a sample that has no end-of-turn token, e.g. '0.5'; default 1.",
    )


class InSpec(ApiModel):
    """Its block in the spec of a FineTuneJob."""

    ppo: PpoMethod | None = Field(default=None, description="Options of method PPO.")


class InPlan(ApiModel):
    """Its block in a plan."""

    ppo: PpoMethod | None = Field(default=None, description="Needed by method PPO.")


INFO = MethodInfo(
    Method.PPO,
    (*ANSWERS, Format.VERIFIABLE),
    Rates(adapter=1e-5, full=1e-6),
    encodes="Prompts",
    needs="rewardModelVersion",
    samples=True,
    compares=True,
)
