"""Group-relative policy optimisation (GRPO) and RLOO: its options, and what is known of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hone_api.base.meta import ApiModel, Decimal, HttpUrl, Name, between, keyed_by, uri_rules
from hone_api.base.rule import Rule
from hone_api.blocks.rewards import Reward
from hone_api.dataset.dataset import Format
from hone_api.methods.info import ANSWERS, Method, MethodInfo, Rates

VLLM_FRACTION = 0.3
"""Fraction of a GPU's memory for a vLLM that shares it: its copy of the weights, and the key-value cache."""


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
            "!has(self.overlap) || !self.overlap || has(self.endpoint)",
            "generation.overlap needs GPUs that are not training's: set endpoint, or remove overlap",
            field_path=".overlap",
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
        default=None, description="Fraction of each GPU's memory for vLLM if it shares the GPUs; default '0.3'."
    )

    overlap: bool = Field(
        default=False,
        description="Whether the server generates the samples of the next step while the job trains on those of the "
        "present one. They are then one step older than the model that learns from them, or grpo.iterations steps, "
        "and their loss is weighted for it. Default false.",
    )

    @property
    def is_vllm(self) -> bool:
        """Whether vLLM generates."""
        return self.engine == "VLLM"

    @property
    def is_colocated(self) -> bool:
        """Whether vLLM runs in the ranks' own processes; otherwise it is a server."""
        return self.is_vllm and self.endpoint is None

    @property
    def gpu_fraction(self) -> float:
        """Fraction of each GPU's memory that vLLM takes from training."""
        return float(self.gpu_memory_utilization or VLLM_FRACTION) if self.is_colocated else 0.0


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
            "!has(self.epsilonHigh) || double(string(self.epsilonHigh)) >= 0.2 && !has(self.epsilon) || "
            "has(self.epsilon) && double(string(self.epsilonHigh)) >= double(string(self.epsilon)) || "
            "!has(self.epsilon) && has(self.loss) && (self.loss == 'CISPO' || "
            f"self.loss == 'GSPO' && double(string(self.epsilonHigh)) >= {CLIP_RANGES['GSPO'][0]})",
            "epsilonHigh must be at least epsilon, e.g. '0.28'",
            field_path=".epsilonHigh",
        ),
        Rule(
            "self.advantage != 'LeaveOneOut' || !has(self.generation) || !has(self.generation.overlap) || "
            "!self.generation.overlap",
            "advantage LeaveOneOut weights no samples of an older model: remove generation.overlap, or use advantage "
            "Group",
            field_path=".generation",
        ),
        between("epsilon", "above 0 and below 1", "> 0.0", "< 1.0", "0.2"),
        between("temperature", "above 0 and at most 10", "> 0.0", "<= 10.0", "1"),
        between("topP", "above 0 and at most 1", "> 0.0", "<= 1.0", "1"),
    )
    rewards: Annotated[list[Reward], keyed_by("type", "name", min_length=1, max_length=8)] = Field(
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
        """How far the ratio to the sampling model may move down and up; CISPO limits it only upwards."""
        low, high = CLIP_RANGES.get(self.loss or "DAPO", (0.2, 0.2))
        if self.epsilon is not None:
            low = high = float(self.epsilon)
        return low, high if self.epsilon_high is None else float(self.epsilon_high)


class InSpec(ApiModel):
    """Its block in the spec of a FineTuneJob."""

    grpo: GrpoMethod | None = Field(default=None, description="Options of method GRPO.")


class InPlan(ApiModel):
    """Its block in a plan."""

    grpo: GrpoMethod | None = Field(default=None, description="Needed by method GRPO.")


INFO = MethodInfo(
    Method.GRPO,
    (*ANSWERS, Format.VERIFIABLE),
    Rates(adapter=1e-5, full=1e-6),
    encodes="Prompts",
    needs="rewards",
    samples=True,
)
