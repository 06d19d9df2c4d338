"""The size of a micro batch that fits, for the run and its estimates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from hone_api.blocks.shape import ModelShape
from hone_api.blocks.training import DEFAULT_RANK, AdapterType, Optimizer, Recompute
from hone_api.combinations.batches import LARGEST_MICRO_BATCH, at_most, divisors
from hone_api.estimate.memory import APART, Setup, estimate
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.methods import METHODS, GrpoMethod, Method, PpoMethod
from hone_api.plan import TrainingPlan

CPU_TOKENS = 1024
"""Tokens of a micro batch on a CPU: memory grows with them, and short rows need some. Measured on rows
of three lengths (docs/guides/methods/sft.md)."""
FILLED = 0.9
"""Fraction of the memory that a micro batch may need by estimate; the rest covers the error of the estimate."""

Plan = TrainingPlan | FineTuneJobSpec


def setup(
    plan: Plan,
    shape: ModelShape,
    *,
    ranks: int,
    gpu: bool,
    bf16: bool,
    longest: int,
    memory: int | None = None,
    teacher: ModelShape | None = None,
    row_tokens: int = 0,
) -> Setup:
    """The setup of a plan or a spec.

    Args:
        bf16: whether the ranks compute in bfloat16, unless the plan forbids it.
        longest: tokens of the longest sequence.
        memory: bytes of a rank; None: unknown.
        teacher: sizes of the teacher; used if its distribution is learned.
        row_tokens: tokens of all training rows; 0: unknown.
    """
    training, adapter = plan.training, plan.adapter
    result = Setup(
        shape=shape,
        method=str(plan.method),
        adapter=str(adapter.type),
        rank=adapter.rank or DEFAULT_RANK,
        targets=frozenset(adapter.targets) if adapter.targets else None,
        dropout=bool(float(adapter.dropout or 0)),
        bf16=bf16 and training.precision != "Float32",
        gpu=gpu,
        max_length=longest,
        micro_batch=1,
        checkpointing=False,
        zero_stage=plan.deepspeed.zero_stage if plan.deepspeed else 0,
        offload=plan.deepspeed.offload if plan.deepspeed else "None",
        ranks=ranks,
        keeps_start=training.l2_to_start is not None,
        teacher=teacher if plan.distillation and plan.distillation.by_logits else None,
        padded=plan.sft is not None and bool(plan.sft.neftune_alpha),
        packed=packs(plan),
        row_tokens=row_tokens,
        in_8_bits=Optimizer(training.optimizer or Optimizer.ADAMW).in_8_bits,
        ranks_of_row=training.ranks_of_row,
        may_share_rows=_may_share_rows(plan, ranks) if gpu else 1,
        **_further_models(plan, ranks),
    )
    return fitted(result, plan, memory)


def _may_share_rows(plan: Plan, ranks: int) -> int:
    """See the rules of training.sequenceParallel in `RUN_RULES`."""
    noise = plan.sft is not None and plan.sft.neftune_alpha
    if plan.method not in (Method.SFT, Method.DAPT) or plan.training.micro_batch_size == "Auto" or noise:
        return 1
    return ranks // (plan.nodes if isinstance(plan, TrainingPlan) else plan.resources.nodes)


def fitted(s: Setup, plan: Plan, memory: int | None) -> Setup:
    """The setup with as many rows in a micro batch as fit into `memory` bytes a rank; None: with the maximum. Where
    memory decides which layers are recomputed: the fewest with which a micro batch fits."""

    def fits(s: Setup, rows: int) -> bool:
        return not memory or estimate(replace(s, micro_batch=rows)).training <= FILLED * memory

    apart = memory is not None and s.shape.model_type in APART
    kinds = [plan.training.recompute] if plan.training.recompute else _recomputed(plan, gpu=s.gpu)
    for kind in kinds:
        s = s.with_recompute(kind)
        rows = micro_batch(plan, ranks=s.ranks, gpu=s.gpu, longest=s.max_length, apart=apart, fits=partial(fits, s))
        if fits(s, rows):
            break
    return replace(s, micro_batch=rows)


def _recomputed(plan: Plan, *, gpu: bool) -> list[Recompute]:
    """What Auto may choose, the fastest first."""
    if plan.grpo and plan.grpo.generation.is_vllm:  # see RUN_RULES
        return [Recompute.NONE, Recompute.FULL]
    return [kind for kind in Recompute if gpu or kind != Recompute.OFFLOADED]


def micro_batch(
    plan: Plan,
    *,
    ranks: int,
    gpu: bool,
    longest: int,
    apart: bool = False,
    fits: Callable[[int], bool] = lambda rows: True,
) -> int:
    """Rows of the micro batch of a rank, or of ranks that share rows: the plan's number, or the largest divisor of its
    rows in a step that fits.

    Args:
        longest: tokens of the longest sequence.
        apart: whether packed rows are known to need no mask, and the memory is known.
        fits: whether this many rows fit.
    """
    most = plan.micro_batch_limit if isinstance(plan, TrainingPlan) else None
    together = plan.training.ranks_of_row
    mine = plan.training.batch_size * together // ranks
    if fixed := plan.training.fixed_micro_batch:
        return at_most(fixed, mine, most)
    limit = LARGEST_MICRO_BATCH
    if gpu and packs(plan) and not apart:
        limit = 1  # a packed sequence is full, and memory is quadratic in their number under one mask
    if not gpu and METHODS[plan.method].by_tokens:
        limit = CPU_TOKENS * together // longest
    several = [rows for rows in divisors(mine) if 1 < rows <= limit]
    return at_most(next((rows for rows in several if not row_by_row(plan) or fits(rows)), 1), mine, most)


def row_by_row(plan: Plan) -> bool:
    """Whether the loss is the same however many rows share a micro batch."""
    return METHODS[plan.method].row_by_row or (plan.grpo is not None and plan.grpo.loss != "BNPO")


def packs(plan: Plan) -> bool:
    """Whether short rows are packed into sequences of one length."""
    if plan.method == Method.DAPT:
        return plan.dapt is None or plan.dapt.pack
    return plan.training.packing


def longest_sequence(plan: Plan, row: int) -> int:
    """Expected tokens of the longest sequence if the longest row, or document, has `row` tokens."""
    sampling, most = _sampling(plan), plan.training.max_length
    if most and (plan.method == Method.DAPT or packs(plan)):
        return most
    longest = row + sampling.max_completion_length if sampling else row
    return min(longest, most or longest)


def _sampling(plan: Plan) -> PpoMethod | GrpoMethod | None:
    return {Method.PPO: plan.ppo, Method.GRPO: plan.grpo}.get(plan.method)


def _further_models(plan: Plan, ranks: int) -> dict[str, Any]:
    """Additional memory of methods that sample."""
    full, grpo = plan.adapter.type == AdapterType.NONE, plan.grpo
    if plan.method == Method.PPO:
        return {"reference": full}
    if plan.method != Method.GRPO or grpo is None:
        return {}
    models = {reward.reward_model.model_version for reward in grpo.rewards if reward.reward_model}
    return {
        "generated": 0 if grpo.generation.is_vllm else plan.training.batch_size // ranks,
        "reference": full and float(grpo.beta) > 0,
        "reward_models": len(models),
    }
