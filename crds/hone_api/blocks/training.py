"""How a FineTuneJob trains: adapter, optimisation, checkpoints, sharding."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, WithJsonSchema

from hone_api.base.meta import NUMBER, ApiModel, Decimal, between
from hone_api.base.rule import Rule

DEFAULT_RANK = 16
AUTO, MAX_MICRO_BATCH, LARGEST_BATCH = "Auto", 4096, 65536
MicroBatchSize = Annotated[
    Annotated[int, Field(ge=1, le=MAX_MICRO_BATCH)] | Literal["Auto"],
    WithJsonSchema({NUMBER: True, "minimum": 1, "maximum": MAX_MICRO_BATCH, "pattern": f"^{AUTO}$", "maxLength": 4}),
]
"""Rows, or Auto for as many as the trainer measures to fit."""


class AdapterType(StrEnum):
    """What is trainable."""

    NONE = "None"
    LORA = "LoRA"
    QLORA = "QLoRA"
    DORA = "DoRA"


class Optimizer(StrEnum):
    """AdamW, by what its state takes of a GPU."""

    ADAMW = "AdamW"
    PAGED_ADAMW = "PagedAdamW"
    ADAMW_8BIT = "AdamW8bit"
    PAGED_ADAMW_8BIT = "PagedAdamW8bit"

    @property
    def is_paged(self) -> bool:
        """Whether the state moves to the host while memory peaks."""
        return self in (Optimizer.PAGED_ADAMW, Optimizer.PAGED_ADAMW_8BIT)

    @property
    def in_8_bits(self) -> bool:
        """Whether each weight has two bytes of state and no longer eight."""
        return self in (Optimizer.ADAMW_8BIT, Optimizer.PAGED_ADAMW_8BIT)


class Recompute(StrEnum):
    """Layers whose activations are computed again in the backward pass, the fastest first."""

    NONE = "None"
    SELECTIVE = "Selective"
    FULL = "Full"
    OFFLOADED = "Offloaded"


class Adapter(ApiModel):
    """Parameter-efficient tuning; type None trains all weights.

    LoRA: Hu et al. 2021, arXiv 2106.09685. QLoRA: Dettmers et al. 2023, arXiv 2305.14314. DoRA: Liu et al. 2024, arXiv
    2402.09353. rsLoRA: Kalajdzievski 2023, arXiv 2312.03732.
    """

    rules = (
        Rule(
            "self.type != 'None' || !has(self.rank) && !has(self.alpha) && !has(self.dropout) && !has(self.targets)"
            " && !(has(self.rankStabilized) && self.rankStabilized)",
            "type None trains all weights: remove rank, alpha, dropout, targets, rankStabilized, or set type to LoRA",
        ),
        between("dropout", "at least 0 and below 1", ">= 0.0", "< 1.0", "0.05"),
    )
    type: AdapterType = Field(default=AdapterType.LORA, description="None, LoRA, QLoRA or DoRA; default LoRA.")
    rank: int | None = Field(default=None, ge=1, le=1024, description="Rank of the update; default 16.")
    alpha: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="The scale is alpha/rank, or alpha/sqrt(rank) if rank-stabilised; by default it is 2.",
    )
    dropout: Decimal | None = Field(default=None, description="Dropout on adapter input, e.g. '0.05'; default 0.")
    rank_stabilized: bool = Field(
        default=False,
        description="rsLoRA: scale by alpha/sqrt(rank), so that ranks above 32 still learn; default false.",
    )
    targets: (
        Annotated[
            list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]+$", max_length=128)]],
            Field(max_length=64),
        ]
        | None
    ) = Field(
        default=None,
        description="Names of linear modules, e.g. q_proj; default: all linear layers except the head.",
    )


class RopeScaling(ApiModel):
    """A longer context than the model has, by other frequencies of its rotary positions (RoPE).

    YaRN: Peng et al. 2023, arXiv 2309.00071.
    """

    rules = (between("factor", "above 1 and at most 64", "> 1.0", "<= 64.0", "4"),)
    type: Literal["YaRN"] = Field(default="YaRN", description="How the positions are scaled: YaRN, the default.")
    factor: Decimal = Field(
        description="The new context, in multiples of max_position_embeddings of the config.json, e.g. 4 or '2.5'."
    )


class Training(ApiModel):
    """Optimisation. Batch sizes are in rows, lengths in tokens."""

    rules = (
        Rule(
            "!(has(self.epochs) && has(self.maxSteps))",
            "set epochs or maxSteps, not both: remove one of them",
        ),
        Rule(
            "!has(self.microBatchSize) || type(self.microBatchSize) == string"
            " || self.batchSize % int(self.microBatchSize) == 0",
            "batchSize must be a multiple of microBatchSize: change one of them, e.g. 8 and 4",
        ),
        Rule(
            "!has(self.activationCheckpointing) || !self.gradientCheckpointing",
            "activationCheckpointing says what gradientCheckpointing does: remove gradientCheckpointing",
            field_path=".activationCheckpointing",
        ),
        between("epochs", "above 0 and at most 1000", "> 0.0", "<= 1000.0", "3"),
        between("learningRate", "above 0 and at most 1", "> 0.0", "<= 1.0", "2e-4"),
        between("warmupRatio", "at least 0 and at most 1", ">= 0.0", "<= 1.0", "0.03"),
        between("weightDecay", "at least 0 and at most 1", ">= 0.0", "<= 1.0", "0.01"),
        between("l2ToStart", "above 0 and at most 1000", "> 0.0", "<= 1000.0", "0.1"),
        between("maxGradNorm", "above 0 and at most 1000000", "> 0.0", "<= 1000000.0", "1.0"),
    )
    epochs: Decimal | None = Field(default=None, description="Passes over the rows, e.g. 3 or '0.5'; default 1.")
    max_steps: int | None = Field(default=None, ge=1, le=10_000_000, description="Optimiser steps, instead of epochs.")
    learning_rate: Decimal | None = Field(
        default=None,
        description="Peak learning rate, e.g. '2e-4'; default: the method's, e.g. of SFT 2e-4 for adapters and 2e-5 "
        "for full tuning. `status.resolved` has the one that is used.",
    )
    scheduler: Literal["Linear", "Cosine", "Constant"] = Field(
        default="Linear", description="Learning-rate schedule after warm-up; default Linear (decays to 0)."
    )
    warmup_ratio: Decimal = Field(
        default="0.03", description="Share of the steps during which the rate rises, e.g. '0.03'."
    )
    weight_decay: Decimal = Field(default="0", description="AdamW weight decay, e.g. '0.01'; default 0.")
    l2_to_start: Decimal | None = Field(
        default=None,
        description="Strength of a penalty on the distance to the initial weights, which reduces forgetting in full "
        "fine-tuning (L2-SP, Li et al. 2018), e.g. '0.1'; default: none.",
    )
    max_grad_norm: Decimal = Field(
        default="1.0", description="The gradient norm is clipped to this value; default '1.0'."
    )
    batch_size: int = Field(
        default=8,
        ge=1,
        le=LARGEST_BATCH,
        description="Rows per optimiser step over all ranks; default 8. With packing: packed sequences of maxLength "
        "tokens, each of several rows; the condition Advised reports how many rows that is.",
    )
    micro_batch_size: MicroBatchSize | None = Field(
        default=None,
        description="Rows per rank and forward pass, 1 to 4096, or Auto: the largest divisor of the rank's rows that "
        "fits into the memory by measurement, with steps of growing size before the first one (SFT, DAPT, DPO, Reward, "
        "Distillation, and GRPO without loss BNPO; without deepspeed). Default: the largest divisor of the rank's rows "
        "up to 8 (SFT, DAPT and Distillation on a CPU: up to 1024 tokens; packed sequences on a GPU of unknown memory, "
        "or of a model that may need masks: 1) that, according to the estimate, fits into resources.memory, on GPUs "
        "into the smallest of resources.gpuProducts. For ORPO, KTO, PPO and GRPO with loss BNPO memory is not "
        "considered.",
    )
    max_length: int | None = Field(
        default=None,
        ge=8,
        le=1_048_576,
        description="Tokens per row; default: the longest row of the data, but at most the model's context.",
    )
    rope_scaling: RopeScaling | None = Field(
        default=None,
        description="A longer context, with adapter None, for rows that are longer than the model reads. The positions "
        "of all rows change, so the model must be trained with them, and may get worse on short rows: compare it by "
        "evaluation.against with a version without the scaling. The exported config.json has it. Default: none.",
    )
    truncation: Literal["Drop", "Truncate", "Refuse"] = Field(
        default="Drop",
        description="Rows over maxLength: Drop them, Truncate their end, or Refuse the run; they are always counted. "
        "Default Drop.",
    )
    thinking: Literal["Auto", "Enabled", "Disabled"] = Field(
        default="Auto",
        description="Prompts of models whose chat template has a switch for reasoning (enable_thinking or thinking), "
        "in training, sampling and evaluation: Auto is the prompt that a server makes by default, Enabled and Disabled "
        "set the switch. A model trained with one of them is served with it: `hone serve` sets it. Default Auto.",
    )
    packing: bool = Field(
        default=False,
        description="Pack several rows into one sequence, without attention across rows; default false. batchSize then "
        "counts sequences: lower it if rows are short, otherwise an epoch has few steps.",
    )
    sequence_parallel: int | None = Field(
        default=None,
        ge=2,
        le=64,
        description="GPUs of a node that compute each row together, for rows whose activations do not fit into one: "
        "each has a part of the tokens, and in attention a part of the heads (Ulysses, Jacobs et al. 2023, arXiv "
        "2309.14509). Of gpusPerNode, and of the model's attention heads, it must be a divisor. SFT and DAPT. Default: "
        "each GPU has rows of its own.",
    )
    precision: Literal["Auto", "Float32", "BFloat16"] = Field(
        default="Auto",
        description="Auto is BFloat16 on GPUs that support it (Ampere and newer), otherwise Float32, so that results "
        "on CPUs are the same on all machines. A CPU with AMX or AVX512-BF16 also supports BFloat16.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute activations: less memory, about 30 % more time; default false. The same as "
        "activationCheckpointing Full.",
    )
    activation_checkpointing: Literal["Auto", "None", "Selective", "Full", "Offloaded"] | None = Field(
        default=None,
        description="Layers whose activations are computed again in the backward pass, with the same result: None; "
        "Selective, every second one; Full, all; Offloaded, all, with their inputs in the host's memory (on a CPU the "
        "same as Full). Auto: the first of these with which the run fits by estimate, and status.resolved has it. "
        "Default None.",
    )
    optimizer: Optimizer | None = Field(
        default=None,
        description="AdamW, fused on a GPU. AdamW8bit: two bytes of state for a weight, no longer eight, embeddings "
        "excepted (Dettmers et al. 2021, arXiv 2110.02861); what is learned differs a little. PagedAdamW and "
        "PagedAdamW8bit: the state moves to the host's memory while that of the GPU peaks; on a CPU nothing is paged. "
        "Default AdamW, for QLoRA on a GPU without deepspeed PagedAdamW.",
    )
    seed: int = Field(
        default=42, ge=0, le=2_147_483_647, description="Seed of data order and initialisation; default 42."
    )

    def context_of(self, tokens: int) -> int:
        """Tokens that a model of a context of `tokens` reads in a run with these settings."""
        return int(tokens * float(self.rope_scaling.factor)) if self.rope_scaling else tokens

    @property
    def fixed_micro_batch(self) -> int | None:
        """Rows of a micro batch as written; None where the trainer chooses them."""
        return None if isinstance(self.micro_batch_size, str) else self.micro_batch_size

    @property
    def ranks_of_row(self) -> int:
        """Ranks that compute a row together."""
        return self.sequence_parallel or 1

    @property
    def recompute(self) -> Recompute | None:
        """What is recomputed; None where memory decides it."""
        if self.activation_checkpointing == AUTO:
            return None
        return Recompute(self.activation_checkpointing or ("Full" if self.gradient_checkpointing else "None"))

    @property
    def has_auto_micro_batch(self) -> bool:
        """Whether the trainer measures how many rows of a micro batch fit."""
        return self.micro_batch_size == AUTO


def thinking_switches(thinking: str) -> dict[str, bool]:
    """Variables of chat templates that `training.thinking` sets; a template reads one of them or none.

    The first is that of Qwen, GLM, Nemotron and Gemma, the second that of DeepSeek, Granite and Kimi.
    """
    states = {"Enabled": True, "Disabled": False}
    return dict.fromkeys(("enable_thinking", "thinking"), states[thinking]) if thinking in states else {}


class EarlyStopping(ApiModel):
    """Stop when the held-out loss no longer improves; the best checkpoint is exported."""

    patience: int = Field(default=3, ge=1, le=1000, description="Evaluations without improvement; default 3.")
    min_delta: Decimal = Field(
        default="0", description="Minimum decrease of the loss that counts as an improvement, e.g. '0.01'; default 0."
    )


class Checkpoints(ApiModel):
    """Checkpoints for resuming."""

    rules = (
        Rule(
            "!has(self.everySteps) || self.cadence != 'Auto'",
            "cadence Auto chooses the interval: remove everySteps, or set cadence to Fixed",
            field_path=".cadence",
        ),
    )
    cadence: Literal["Fixed", "Auto"] = Field(
        default="Fixed",
        description="Fixed: every everySteps steps. Auto: the interval that costs the least time, from the measured "
        "time of a checkpoint and of a step, and from how often attempts of this run ended without notice (Young and "
        "Daly), between 1 minute and 1 hour. Default Fixed.",
    )
    every_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Steps between checkpoints; default: a tenth of the run.",
    )
    keep: int = Field(
        default=2,
        ge=2,
        le=100,
        description="Number of newest checkpoints that are kept in addition to the best; default 2.",
    )
    retain: Literal["UntilDeleted", "UntilSucceeded"] = Field(
        default="UntilDeleted",
        description="How long checkpoints stay in the store: until the FineTuneJob is deleted, or until its run has "
        "succeeded. They are removed some time later (store.keepUnusedSeconds of the chart). Default UntilDeleted.",
    )


class DeepSpeed(ApiModel):
    """Sharding by DeepSpeed ZeRO (Rajbhandari et al. 2020)."""

    rules = (
        Rule(
            "self.offload != 'OptimizerAndParameters' || self.zeroStage == 3",
            "offload OptimizerAndParameters needs zeroStage 3, which alone shards the weights: set it, or use offload "
            "Optimizer",
            field_path=".offload",
        ),
    )

    zero_stage: int = Field(
        default=2,
        ge=1,
        le=3,
        description="1 shards the optimiser state, 2 also the gradients, 3 also the weights; default 2.",
    )
    offload: Literal["None", "Optimizer", "OptimizerAndParameters", "NVMe"] = Field(
        default="None",
        description="What moves from the GPU to the host's memory, which resources.memory limits: Optimizer, so that "
        "the CPU runs the optimizer, or OptimizerAndParameters with zeroStage 3. Slower. NVMe is not "
        "supported yet: such a run cannot be resumed. Default None.",
    )
