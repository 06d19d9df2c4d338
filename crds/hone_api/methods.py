"""The methods of fine-tuning, each with the block of its options in a FineTuneJob."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.dataset import Format
from hone_api.meta import ApiModel, Decimal, HttpUrl, Name, Rule, between, uri_rules
from hone_api.rewards import VERIFIERS, Reward
from hone_api.training import Adapter, AdapterType, Evaluation, EvaluationMetric, Training


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
    """Proximal policy optimisation (Schulman et al. 2017) with a reward model, as in RLHF (Ouyang et al. 2022)."""

    rules = (
        between("temperature", "above 0 and at most 10", "> 0.0", "<= 10.0", "1"),
        between("gamma", "above 0 and at most 1", "> 0.0", "<= 1.0", "1"),
        between("gaeLambda", "at least 0 and at most 1", ">= 0.0", "<= 1.0", "0.95"),
        between("epsilon", "above 0 and below 1", "> 0.0", "< 1.0", "0.2"),
    )
    reward_model_version: Name = Field(description="Name of the ModelVersion of the reward model.")
    kl: Decimal = Field(default="0.05", description="KL coefficient against the reference, e.g. 0.05.")
    target_kl: Decimal | None = Field(
        default=None,
        description="KL per answer, nats, that the coefficient is adapted to (Ziegler et al. 2019), e.g. 6; default: "
        "the coefficient stays.",
    )
    max_kl: Decimal = Field(
        default="100", description="KL per answer, nats, above which the run is given up as diverged; default 100."
    )
    iterations: int = Field(default=4, ge=1, le=16, description="Optimiser steps on the same samples; default 4.")
    epsilon: Decimal = Field(
        default="0.2", description="How far ratio and value may move from the sampling model's, e.g. 0.2."
    )
    value_weight: Decimal = Field(default="0.1", description="Weight of the value loss, e.g. 0.1.")
    gamma: Decimal = Field(default="1", description="Discount of later rewards; default 1: none.")
    gae_lambda: Decimal = Field(
        default="0.95", description="Lambda of the generalised advantage estimation (Schulman et al. 2015), e.g. 0.95."
    )
    temperature: Decimal = Field(default="1", description="Temperature of sampling, e.g. 0.9; default 1.")
    max_completion_length: int = Field(
        default=128, ge=1, le=131_072, description="Most tokens of a sample; longer ones are cut. Default 128."
    )
    missing_end_penalty: Decimal = Field(
        default="1", description="Taken from the reward of a sample that does not end by itself; default 1."
    )


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
        between("gpuMemoryUtilization", "above 0 and below 1", "> 0.0", "< 1.0", "0.3"),
        *uri_rules("endpoint"),
    )
    engine: Literal["Auto", "Transformers", "VLLM"] = Field(
        default="Auto",
        description="Transformers: in batches by the model in training, on CPU and GPU; VLLM: by vLLM on GPU (not "
        "supported yet). Auto: Transformers.",
    )
    endpoint: HttpUrl | None = Field(
        default=None,
        description="Base URL of a server started with `trl vllm-serve`, e.g. http://vllm:8000; default: vLLM shares "
        "the GPUs of this job.",
    )
    gpu_memory_utilization: Decimal | None = Field(
        default=None, description="Share of GPU memory for vLLM when it shares the GPUs, e.g. 0.3."
    )


class GrpoMethod(ApiModel):
    """Group-relative policy optimisation (Shao et al. 2024) with rewards that are computed, and its relatives."""

    rules = (
        Rule(
            "self.advantage != 'LeaveOneOut' || !has(self.loss) && !has(self.scaleRewards)",
            "loss and scaleRewards are for advantage Group: remove them, or the advantage LeaveOneOut",
        ),
        Rule(
            "!has(self.epsilonHigh) || double(self.epsilonHigh) >= double(self.epsilon)",
            "epsilonHigh must be at least epsilon, e.g. '0.28'",
            field_path=".epsilonHigh",
        ),
        between("temperature", "above 0 and at most 10", "> 0.0", "<= 10.0", "1"),
        between("topP", "above 0 and at most 1", "> 0.0", "<= 1.0", "1"),
    )
    rewards: Annotated[list[Reward], Field(min_length=1, max_length=8)] = Field(
        description="What an answer is judged by; the reward is their weighted sum."
    )
    advantage: Literal["Group", "LeaveOneOut"] = Field(
        default="Group",
        description="Group: reward less the mean of its prompt's samples (GRPO); LeaveOneOut: less the mean of the "
        "others (RLOO, Ahmadian et al. 2024). Default Group.",
    )
    generations: int = Field(
        default=8, ge=2, le=256, description="Samples per prompt; training.batchSize counts samples. Default 8."
    )
    beta: Decimal = Field(default="0", description="KL coefficient against the reference, e.g. 0.04; default 0: none.")
    loss: Literal["DAPO", "DrGRPO", "BNPO", "GRPO"] | None = Field(
        default=None,
        description="How tokens are averaged: DAPO over all tokens of the step; DrGRPO by a constant (Liu et al. "
        "2025); BNPO over those of the micro batch; GRPO within each answer, then over answers. Default DAPO.",
    )
    scale_rewards: Literal["Group", "Batch", "None"] | None = Field(
        default=None, description="By whose standard deviation advantages are divided; None: not. Default Group."
    )
    iterations: int = Field(
        default=1, ge=1, le=16, description="Optimiser steps on the same samples; clipping acts above 1. Default 1."
    )
    epsilon: Decimal = Field(default="0.2", description="How far the ratio to the sampling model may move, e.g. 0.2.")
    epsilon_high: Decimal | None = Field(
        default=None, description="The same upwards, e.g. 0.28 (clip-higher of DAPO, Yu et al. 2025); default: epsilon."
    )
    temperature: Decimal = Field(default="1", description="Temperature of sampling, e.g. 0.9; default 1.")
    top_p: Decimal = Field(default="1", description="Share of probability that is sampled from, e.g. 0.95; default 1.")
    max_completion_length: int = Field(
        default=256, ge=1, le=131_072, description="Most tokens of a sample; longer ones are cut. Default 256."
    )
    mask_truncated_completions: bool = Field(
        default=False, description="Whether cut samples are left out of the loss (DAPO); default false."
    )
    constant_steps: int = Field(
        default=20,
        ge=1,
        le=100_000,
        description="Steps from the start after which a run is given up in which no prompt's samples ever differed in "
        "reward: there is nothing to learn from. Default 20.",
    )
    generation: Generation = Field(default_factory=Generation, description="What generates the samples.")


class TeacherEndpoint(ApiModel):
    """A teacher behind an OpenAI-compatible API."""

    rules = uri_rules("endpoint")

    endpoint: HttpUrl = Field(description="Base URL, e.g. http://teacher.models.svc/v1.")
    model: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = Field(
        default=None, description="Its name there; default: the first that is served."
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
            "an API answers and shows no whole distribution: use level Sequence, or teacherModelVersion",
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
        description="Sequence: the teacher answers every prompt before training, and its answers are learned (Kim and "
        "Rush 2016); Logits: its distribution over each token of the rows' own answers is (Hinton et al. 2015), which "
        "needs the same vocabulary. Default Sequence.",
    )
    max_completion_length: int | None = Field(
        default=None,
        ge=1,
        le=131_072,
        description="Most tokens of the teacher's answer, for level Sequence; a row whose answer is longer is left "
        "out. Default 256.",
    )
    temperature: Decimal | None = Field(
        default=None,
        description="By what the logits of both are divided, for level Logits; the loss is multiplied by its square. "
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
_PAIRS_METRICS = {"accuracy", "margin"}
"""Of methods on pairs reward_accuracy and reward_margin are metrics of their own."""
_REFERENCED = (Method.DPO, Method.KTO, Method.ORPO, Method.REWARD, Method.PPO)


def problems(
    method: Method | str,
    training: Training,
    adapter: Adapter,
    world_size: int,
    grpo: GrpoMethod | None = None,
    ppo: PpoMethod | None = None,
) -> list[str]:
    """What a method cannot be combined with, each with the way out. Operator and trainer both ask."""
    out = []
    if training.packing and method != Method.SFT:
        way_out = "DAPT packs by dapt.pack" if method == Method.DAPT else f"{method} looks at whole answers"
        out.append(f"training.packing is for method SFT ({way_out}): remove it")
    if method in _REFERENCED and float(adapter.dropout or 0):
        out.append(f"adapter.dropout: method {method} trains without dropout, which blurs what it compares: remove it")
    rows = training.micro_batch_size or training.batch_size // world_size
    if method == Method.KTO and rows < 2:
        out.append("training: KTO compares the answers of a forward pass, at least 2 on each rank: raise batchSize")
    if method == Method.PPO and ppo is not None:
        out += _room_for_answers("ppo", ppo, training)
    if method == Method.GRPO and grpo is not None:
        out += _grpo_problems(grpo, training)
    return out


def start_problems(training: Training, adapter: Adapter, *, sharded: bool) -> list[str]:
    """Why weights cannot be held at their start, each with the way out. Operator and trainer both ask."""
    if training.l2_to_start is None:
        return []
    out = []
    if adapter.type != AdapterType.NONE:
        out.append(
            "training.l2ToStart is for adapter None: an adapter's update begins at zero, where training.weightDecay "
            "pulls it: use that"
        )
    if sharded:
        out.append("training.l2ToStart needs whole weights on each rank: remove it, or deepspeed")
    return out


def evaluation_problems(
    method: Method | str,
    evaluation: Evaluation,
    adapter: Adapter,
    *,
    sharded: bool,
    grpo: GrpoMethod | None = None,
) -> list[str]:
    """What of `evaluation` a run cannot measure, each with the way out. Operator and trainer both ask."""
    out, retention = [], evaluation.retention
    if method == Method.REWARD and (evaluation.metrics or evaluation.rewards or retention or evaluation.harness):
        out.append("evaluation.metrics, rewards, retention and harness: a reward model answers nothing: remove them")
    elif evaluation.metrics and method in (Method.PPO, Method.GRPO):
        out.append(f"evaluation.metrics: {method} has prompts alone: measure answers by evaluation.rewards")
    elif (
        EvaluationMetric.MULTIPLE_CHOICE in evaluation.metrics
        and Format.PREFERENCE not in FORMATS_TAKEN[Method(method)]
    ):
        out.append(
            f"evaluation.metrics MultipleChoice needs chosen and rejected answers, which rows of {method} do not have: "
            "measure it by evaluation.retention"
        )
    if retention and retention.interpolate and adapter.type == AdapterType.DORA:
        out.append("evaluation.retention.interpolate: DoRA's update has no factor to scale: use adapter type LoRA")
    if retention and retention.interpolate and adapter.type == AdapterType.NONE and sharded:
        out.append("evaluation.retention.interpolate needs whole weights on each rank: remove it, or deepspeed")
    if evaluation.harness and (twice := _twice(evaluation.harness.tasks)):
        out.append(f"evaluation.harness.tasks names {twice} twice: remove one")
    return [*out, *_scoring_problems(method, evaluation.rewards, grpo), *_pass_at_problems(evaluation)]


def _pass_at_problems(evaluation: Evaluation) -> list[str]:
    """What the API server refuses; a plan without a cluster has none."""
    options, out = evaluation.pass_at, []
    if options and not any(reward.type in VERIFIERS for reward in evaluation.rewards):
        out.append(f"evaluation.passAt needs a reward of type {', '.join(VERIFIERS)} in evaluation.rewards")
    if options and max(options.k) > options.generations:
        out.append(f"evaluation.passAt.k: {max(options.k)} is more than generations {options.generations}")
    return out


def _scoring_problems(method: Method | str, rewards: list[Reward], grpo: GrpoMethod | None) -> list[str]:
    out = []
    if rewards and method == Method.DAPT:
        out.append("evaluation.rewards: the rows of DAPT are texts, which hold no prompt to answer: remove them")
    titles = [reward.title for reward in rewards]
    if twice := _twice(titles):
        out.append(f"evaluation.rewards: more than one is called {twice}: give them names")
    if taken := sorted(_PAIRS_METRICS.intersection(titles)):
        out.append(f"evaluation.rewards: {', '.join(taken)}: methods have metrics of this name: give it another")
    if weighted := [reward.title for reward in rewards if float(reward.weight) != 1]:
        out.append(f"evaluation.rewards: each is reported by itself: remove the weight of {', '.join(weighted)}")
    trained = {reward.title: reward for reward in grpo.rewards} if grpo else {}
    other = [r.title for r in rewards if r.title in trained and not _alike(r, trained[r.title])]
    if other:
        out.append(f"evaluation.rewards: grpo.rewards has another one called {', '.join(other)}: give it a name")
    return out


def _alike(one: Reward, other: Reward) -> bool:
    """But for the weight."""
    return one == other.model_copy(update={"weight": one.weight})


def _twice(names: list[str]) -> str:
    return ", ".join(sorted({name for name in names if names.count(name) > 1}))


def all_rewards(grpo: GrpoMethod | None, evaluation: Evaluation) -> list[Reward]:
    """Those that are trained on, and those that only evaluation has; their titles differ."""
    trained = list(grpo.rewards) if grpo else []
    titles = {reward.title for reward in trained}
    return [*trained, *(reward for reward in evaluation.rewards if reward.title not in titles)]


def _grpo_problems(grpo: GrpoMethod, training: Training) -> list[str]:
    out = []
    if training.batch_size % grpo.generations:
        out.append(
            f"training.batchSize {training.batch_size} counts samples: it must be a multiple of "
            f"grpo.generations {grpo.generations}"
        )
    out += _room_for_answers("grpo", grpo, training)
    if twice := _twice([reward.title for reward in grpo.rewards]):
        out.append(f"grpo.rewards: more than one is called {twice}: give them names")
    return out


def _room_for_answers(block: str, options: PpoMethod | GrpoMethod, training: Training) -> list[str]:
    longest = options.max_completion_length
    if not training.max_length or training.max_length > longest:
        return []
    return [
        f"training.maxLength {training.max_length} counts prompt and answer: it must be above "
        f"{block}.maxCompletionLength {longest}"
    ]
