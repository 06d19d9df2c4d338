"""The methods of fine-tuning, each with the block of its options in a FineTuneJob."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.dataset import Format
from hone_api.meta import ApiModel, Decimal, HttpUrl, Name, Rule, between, uri_rules
from hone_api.rewards import Reward
from hone_api.training import Evaluation


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
    beta: Decimal = Field(default="0.1", description="Strength of the pull towards the reference, e.g. '0.1'.")


class KtoMethod(ApiModel):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024)."""

    beta: Decimal = Field(default="0.1", description="Strength of the pull towards the reference, e.g. '0.1'.")


class OrpoMethod(ApiModel):
    """Odds-ratio preference optimisation (Hong et al. 2024)."""

    weight: Decimal = Field(default="0.1", description="Weight of the odds-ratio term, e.g. '0.1'.")


class RewardMethod(ApiModel):
    """Reward model training."""

    center_rewards: Decimal | None = Field(
        default=None,
        description="Coefficient that pulls the mean of the rewards towards zero, e.g. '0.01'; default: none.",
    )


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
        description="KL per answer, in nats, that the coefficient is adapted to (Ziegler et al. 2019), e.g. 6; "
        "default: the coefficient is constant.",
    )
    max_kl: Decimal = Field(
        default="100", description="KL per answer, in nats, above which the run ends as Diverged; default 100."
    )
    iterations: int = Field(default=4, ge=1, le=16, description="Optimiser steps on the same samples; default 4.")
    epsilon: Decimal = Field(
        default="0.2", description="How far ratio and value may move from those of the sampling model, e.g. '0.2'."
    )
    value_weight: Decimal = Field(default="0.1", description="Weight of the value loss, e.g. '0.1'.")
    gamma: Decimal = Field(default="1", description="Discount factor of later rewards; default 1: no discount.")
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
        default="1", description="Subtracted from the reward of a sample that has no end-of-turn token; default 1."
    )


VLLM_SHARE = 0.3
"""Of a GPU's memory for a vLLM that shares it: its copy of the weights, and the cache of keys and values."""


class Generation(ApiModel):
    """What generates the samples."""

    rules = (
        *(
            Rule(
                f"!has(self.{field}) || self.engine == 'VLLM'",
                f"generation.{field} is for vLLM: set engine to VLLM, or remove it",
                field_path=f".{field}",
            )
            for field in ("endpoint", "gpuMemoryUtilization")
        ),
        Rule(
            "!has(self.endpoint) || !has(self.gpuMemoryUtilization)",
            "generation.gpuMemoryUtilization is for vLLM on the GPUs of this job: remove it, or endpoint",
            field_path=".gpuMemoryUtilization",
        ),
        Rule(
            "!has(self.secretName) || has(self.endpoint)",
            "generation.secretName is for a server: set endpoint, or remove it",
            field_path=".secretName",
        ),
        between("gpuMemoryUtilization", "above 0 and below 1", "> 0.0", "< 1.0", "0.3"),
        *uri_rules("endpoint"),
    )
    engine: Literal["Auto", "Transformers", "VLLM"] = Field(
        default="Auto",
        description="Transformers: in batches with the model in training, on CPU and GPU; VLLM: with vLLM on GPU, "
        "with continuous batching. Auto: Transformers.",
    )
    endpoint: HttpUrl | None = Field(
        default=None,
        description="Base URL of a `vllm serve` that has the base model and loads adapters at run time, e.g. "
        "http://vllm:8000; it reads them from the store, which it must mount at /store. Default: vLLM shares the GPUs "
        "of this job.",
    )
    secret_name: Name | None = Field(default=None, description="Secret with key API_KEY of endpoint; default: none.")
    gpu_memory_utilization: Decimal | None = Field(
        default=None, description="Fraction of each GPU's memory for vLLM if it shares the GPUs; default 0.3."
    )

    @property
    def is_vllm(self) -> bool:
        """Whether vLLM generates."""
        return self.engine == "VLLM"

    @property
    def is_colocated(self) -> bool:
        """Whether vLLM runs in the ranks' own processes; it is a server otherwise."""
        return self.is_vllm and self.endpoint is None

    @property
    def share(self) -> float:
        """Of each GPU's memory, that vLLM takes from training."""
        return float(self.gpu_memory_utilization or VLLM_SHARE) if self.is_colocated else 0.0


CLIP_RANGES = {"GSPO": (3e-4, 4e-4), "CISPO": (1.0, 4.0)}
"""Losses whose default for epsilon and epsilonHigh is not 0.2. GSPO: section 5.1 of Zheng et al. 2025 (arXiv
2507.18071), since the ratio of an answer is the geometric mean over its tokens. CISPO: a weight of at most 5 (Khatri et
al. 2025, arXiv 2510.13786); MiniMax-M1 (arXiv 2506.13585) names no number."""


class GrpoMethod(ApiModel):
    """Group-relative policy optimisation (Shao et al. 2024) with rewards that are computed, and its relatives."""

    rules = (
        Rule(
            "self.advantage != 'LeaveOneOut' || !has(self.loss) && !has(self.scaleRewards)",
            "loss and scaleRewards are for advantage Group: remove them, or use advantage Group",
        ),
        Rule(
            "!has(self.epsilon) || !has(self.loss) || self.loss != 'CISPO'",
            "loss CISPO has no lower bound for the ratio: remove epsilon; epsilonHigh is its upper bound",
            field_path=".epsilon",
        ),
        Rule(
            "!has(self.epsilonHigh) || double(string(self.epsilonHigh)) >= "
            "(has(self.epsilon) ? double(string(self.epsilon)) : "
            "!has(self.loss) ? 0.2 : self.loss == 'GSPO' ? 0.0003 : self.loss == 'CISPO' ? 0.0 : 0.2)",
            "epsilonHigh must be at least epsilon, e.g. '0.28'",
            field_path=".epsilonHigh",
        ),
        between("epsilon", "above 0 and below 1", "> 0.0", "< 1.0", "0.2"),
        between("temperature", "above 0 and at most 10", "> 0.0", "<= 10.0", "1"),
        between("topP", "above 0 and at most 1", "> 0.0", "<= 1.0", "1"),
    )
    rewards: Annotated[list[Reward], Field(min_length=1, max_length=8)] = Field(
        description="Rewards of an answer; the total is their weighted sum."
    )
    advantage: Literal["Group", "LeaveOneOut"] = Field(
        default="Group",
        description="Group: reward minus the mean of the prompt's samples (GRPO); LeaveOneOut: minus the mean of the "
        "other samples (RLOO, Ahmadian et al. 2024). Default Group.",
    )
    generations: int = Field(
        default=8, ge=2, le=256, description="Samples per prompt; training.batchSize counts samples. Default 8."
    )
    beta: Decimal = Field(
        default="0", description="KL coefficient against the reference, e.g. '0.04'; default 0: none."
    )
    loss: Literal["DAPO", "DrGRPO", "BNPO", "GRPO", "GSPO", "CISPO"] | None = Field(
        default=None,
        description="How the loss is averaged over tokens, and how the ratio to the sampling model is limited. DAPO: "
        "over all tokens of the step; DrGRPO: divided by a constant (Liu et al. 2025); BNPO: over the tokens of the "
        "micro batch; GRPO: within each answer, then over answers; GSPO: like GRPO, with one ratio for each answer "
        "(Zheng et al. 2025); CISPO: like DAPO, with a limited ratio that weights every token and drops none "
        "(MiniMax-M1, 2025). Default DAPO.",
    )
    scale_rewards: Literal["Group", "Batch", "None"] | None = Field(
        default=None,
        description="Standard deviation that advantages are divided by; None: they are not divided. Default Group.",
    )
    iterations: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Optimiser steps on the same samples. In the first of them the ratio to the sampling model is 1, "
        "so epsilon matters only from 2 iterations on. Default 1.",
    )
    epsilon: Decimal | None = Field(
        default=None,
        description="How far the ratio to the sampling model may move, e.g. '0.2'. Default 0.2; for loss GSPO 0.0003; "
        "loss CISPO has no lower bound.",
    )
    epsilon_high: Decimal | None = Field(
        default=None,
        description="How far the ratio may move upwards, e.g. '0.28' (clip-higher of DAPO, Yu et al. 2025). Default: "
        "epsilon; for loss GSPO 0.0004 if epsilon is not set; for loss CISPO 4, i.e. a weight of at most 5.",
    )
    temperature: Decimal = Field(default="1", description="Temperature of sampling, e.g. '0.9'; default 1.")
    top_p: Decimal = Field(
        default="1",
        description="Nucleus sampling: share of the probability that is sampled from, e.g. '0.95'; default 1.",
    )
    max_completion_length: int = Field(
        default=256,
        ge=1,
        le=131_072,
        description="Longest sample, in tokens; longer samples are truncated. Default 256.",
    )
    mask_truncated_completions: bool = Field(
        default=False, description="Whether truncated samples are left out of the loss (DAPO); default false."
    )
    constant_steps: int = Field(
        default=20,
        ge=1,
        le=100_000,
        description="The run ends if no prompt's samples differ in reward in this many first steps, since there is "
        "nothing to learn from. Default 20.",
    )
    generation: Generation = Field(default_factory=Generation, description="What generates the samples.")

    @property
    def clip_range(self) -> tuple[float, float]:
        """How far the ratio to the sampling model may move down and up; CISPO bounds it from above alone."""
        low, high = CLIP_RANGES.get(self.loss or "DAPO", (0.2, 0.2))
        if self.epsilon is not None:
            low = high = float(self.epsilon)
        return low, high if self.epsilon_high is None else float(self.epsilon_high)


class TeacherEndpoint(ApiModel):
    """A teacher behind an OpenAI-compatible API."""

    rules = uri_rules("endpoint")

    endpoint: HttpUrl = Field(description="Base URL, e.g. http://teacher.models.svc/v1.")
    model: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = Field(
        default=None, description="Name of the model there; default: the first that is served."
    )
    secret_name: Name | None = Field(default=None, description="Secret with key API_KEY; default: none.")


class DistillationMethod(ApiModel):
    """Distillation: a small model learns from a larger one, the teacher."""

    rules = (
        Rule(
            "has(self.teacherModelVersion) != has(self.teacherEndpoint)",
            "set exactly one of teacherModelVersion and teacherEndpoint",
        ),
        Rule(
            "!has(self.teacherEndpoint) || self.level == 'Sequence'",
            "an API does not return whole distributions: use level Sequence, or teacherModelVersion",
            field_path=".teacherEndpoint",
        ),
        Rule(
            "!has(self.maxCompletionLength) || self.level == 'Sequence'",
            "maxCompletionLength is for level Sequence, whose teacher answers: remove it",
            field_path=".maxCompletionLength",
        ),
        Rule(
            "!has(self.temperature) || self.level == 'Logits'",
            "temperature is for level Logits, the answers of level Sequence are greedy: remove it",
            field_path=".temperature",
        ),
        between("temperature", "above 0 and at most 10", "> 0.0", "<= 10.0", "2"),
    )
    teacher_model_version: Name | None = Field(default=None, description="Name of the ModelVersion of the teacher.")
    teacher_endpoint: TeacherEndpoint | None = Field(
        default=None, description="A teacher behind an OpenAI-compatible API instead, for level Sequence."
    )
    level: Literal["Sequence", "Logits"] = Field(
        default="Sequence",
        description="Sequence: the teacher answers every prompt before training, and the student learns its answers "
        "(Kim and Rush 2016); Logits: the student learns the teacher's distribution over each token of the rows' own "
        "answers (Hinton et al. 2015), which needs the same vocabulary. Default Sequence.",
    )
    max_completion_length: int | None = Field(
        default=None,
        ge=1,
        le=131_072,
        description="Longest answer of the teacher in tokens, for level Sequence; rows with a longer answer are left "
        "out. Default 256.",
    )
    temperature: Decimal | None = Field(
        default=None,
        description="Divisor of the logits of both models, for level Logits; the loss is multiplied by its square. "
        "Default 1.",
    )

    @property
    def by_logits(self) -> bool:
        """Whether the teacher's distribution is learned, and not answers that it gives beforehand."""
        return self.level == "Logits"


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
    Method.DISTILLATION: (*_ANSWERS, Format.VERIFIABLE),
}
"""Formats of the Datasets that a method can train on. The last three use prompts alone, or check answers."""
FORMATS_BY_LOGITS = _ANSWERS
"""The same of Distillation at level Logits, which learns on the rows' own answers."""
FORMATS_MEASURED = (*_ANSWERS, Format.TEXT, Format.PREFERENCE)
"""Formats of the Datasets that evaluation.retention can measure."""
FORMATS_ANSWERED = (*_ANSWERS, Format.PREFERENCE, Format.KTO, Format.VERIFIABLE)
"""Formats with prompts, whose answers evaluation.rewards can score."""


def all_rewards(grpo: GrpoMethod | None, evaluation: Evaluation) -> list[Reward]:
    """Those that are trained on, and those that only evaluation has; their titles differ."""
    trained = list(grpo.rewards) if grpo else []
    titles = {reward.title for reward in trained}
    return [*trained, *(reward for reward in evaluation.rewards if reward.title not in titles)]
