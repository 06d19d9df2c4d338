"""How large a forward pass of a plan is, so that it fits: the run and its estimates agree on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hone_api.estimate import Setup, estimate
from hone_api.finetunejob import FineTuneJobSpec
from hone_api.methods import Method
from hone_api.plan import TrainingPlan
from hone_api.shape import ModelShape
from hone_api.training import DEFAULT_RANK

LARGEST_MICRO_BATCH = 8
"""Rows: more rarely help, and memory grows with them."""
CPU_TOKENS = 1024
"""Tokens of a pass on a CPU: memory grows with them, and short rows want some (`bench/trainer_defaults.py`)."""
BY_TOKENS = frozenset({Method.SFT, Method.DAPT, Method.DISTILLATION})
"""Methods whose passes a CPU bounds by tokens."""
TOGETHER = frozenset({Method.KTO, Method.PPO, Method.GRPO})
"""Methods whose rows of a pass are compared, or sampled together: memory does not decide how many they are."""
FILLED = 0.9
"""Share of the memory that a pass may be estimated to need: the rest is for the error of the estimate."""

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
) -> Setup:
    """Of a plan or a spec.

    Args:
        bf16: whether the ranks compute in bfloat16, where the plan does not forbid it.
        longest: tokens of the longest sequence.
        memory: bytes that a rank has; None: not known.
        teacher: sizes of the teacher; it counts where its distribution is learned.
    """
    training, adapter = plan.training, plan.adapter
    made = Setup(
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
        checkpointing=training.gradient_checkpointing,
        zero_stage=plan.deepspeed.zero_stage if plan.deepspeed else 0,
        offload=plan.deepspeed.offload if plan.deepspeed else "None",
        ranks=ranks,
        keeps_start=training.l2_to_start is not None,
        teacher=teacher if plan.distillation and plan.distillation.by_logits else None,
    )

    return fitted(made, plan, memory)


def fitted(s: Setup, plan: Plan, memory: int | None) -> Setup:
    """With the rows of a pass that go into so many bytes a rank; None: with the most that there may be."""

    def fits(rows: int) -> bool:
        return not memory or estimate(replace(s, micro_batch=rows)).total <= FILLED * memory

    rows = micro_batch(plan, ranks=s.ranks, gpu=s.gpu, longest=s.max_length, fits=fits)
    return replace(s, micro_batch=rows)


def micro_batch(
    plan: Plan, *, ranks: int, gpu: bool, longest: int, fits: Callable[[int], bool] = lambda rows: True
) -> int:
    """Rows of a rank's forward pass: those that the plan names, or the largest divisor of its rows of a step that fits.

    Args:
        longest: tokens of the longest sequence.
        fits: whether so many rows do.
    """
    if plan.training.micro_batch_size:
        return plan.training.micro_batch_size
    per_rank, limit = max(1, plan.training.batch_size // ranks), LARGEST_MICRO_BATCH
    if not gpu and plan.method in BY_TOKENS:
        limit = min(limit, CPU_TOKENS // longest)
    divisors = [d for d in range(min(per_rank, limit), 1, -1) if per_rank % d == 0]
    return next((d for d in divisors if plan.method in TOGETHER or fits(d)), 1)


def longest_sequence(plan: Plan, row: int) -> int:
    """Tokens of the longest sequence that is to be expected when the longest row has `row` tokens."""
    sampling = {Method.PPO: plan.ppo, Method.GRPO: plan.grpo}.get(plan.method)
    answer = sampling.max_completion_length if sampling else 0  # which no row has
    return plan.training.max_length or row + answer
