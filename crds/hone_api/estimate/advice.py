"""Settings that look wrong but may be intended: reported before the job starts, never refused. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hone_api.base.wording import counted
from hone_api.blocks.training import DEFAULT_RANK, Adapter, AdapterType, Training
from hone_api.estimate.micro_batch import Plan, packs
from hone_api.methods import METHODS, Method

FAR = 100
"""Factor from which a difference is not a matter of taste."""
SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for --max-lora-rank (vllm/config/lora.py)."""
MOST_BETA = 10
"""Of a method with a reference, from which the loss is a matter of rounding."""
FEW_ROWS = 50
MANY_ROWS = 1.5
"""Rows of a packed sequence from which a batch differs much from its number."""


def advise(plan: Plan, rows: int, tokens: int = 0, length: int | None = None) -> list[str]:
    """Advice for people, each with the way out.

    Args:
        rows: rows of an epoch, over all Datasets.
        tokens: tokens of these rows; 0: unknown.
        length: tokens of a packed sequence.
    """
    return [
        *_rate(plan.method, plan.adapter, plan.training),
        *_beta(plan),
        *_served(plan),
        *_amount(plan, rows),
        *(_packed(plan, rows, tokens, length) if tokens and length else ()),
    ]


def _served(plan: Plan) -> Iterator[str]:
    """What vLLM does not load as an adapter. With output.merge there is a whole model to serve."""
    adapter = plan.adapter
    if adapter.type == AdapterType.NONE or plan.output.merge:
        return
    merge = "set output.merge to serve the merged model"
    if adapter.type == AdapterType.DORA:
        yield f"vLLM cannot load DoRA adapters: {merge}."
    if plan.method == Method.REWARD:
        yield f"vLLM cannot load adapters with their own reward head: {merge}."
    rank = adapter.rank or DEFAULT_RANK
    if rank > SERVED_RANKS[-1]:
        yield f"adapter.rank {rank} is above {SERVED_RANKS[-1]}, the largest that vLLM loads: {merge}, or lower it."
    elif rank not in SERVED_RANKS:
        room = next(served for served in SERVED_RANKS if served > rank)
        yield f"adapter.rank {rank}: vLLM has no such --max-lora-rank: serve with {room}, or train that rank."


def _packed(plan: Plan, rows: int, tokens: int, length: int) -> Iterator[str]:
    """With packing, a step has many times the rows of the same batchSize without packing."""
    if plan.method == Method.DAPT or not packs(plan):
        return
    batch, sequences = plan.training.batch_size, max(1, math.ceil(tokens / length))
    rows_of_one = rows / sequences
    if rows_of_one < MANY_ROWS or batch == 1:
        return
    steps = [math.ceil(count / batch) for count in (sequences, rows)]
    way = max(1, round(batch / rows_of_one))
    yield (
        f"With packing batchSize {batch} counts packed sequences of {length} tokens: a step has about "
        f"{batch * rows_of_one:.0f} rows or {batch * length} tokens, an epoch about {steps[0]} steps instead of "
        f"{steps[1]}. Set batchSize to {way} to stay near {batch} rows a step."
    )


def _rate(method: str, adapter: Adapter, training: Training) -> Iterator[str]:
    if not training.learning_rate:
        return
    rate, adapted = float(training.learning_rate), adapter.type != AdapterType.NONE
    rates = METHODS[Method(method)].rates
    usual = rates.adapter if adapted else rates.full
    kind = "adapters" if adapted else "full fine-tuning"
    for far, way in ((rate / usual, "above"), (usual / rate, "below")):
        if far >= FAR:
            yield (
                f"learningRate {training.learning_rate} is {far:.0f} times {way} what is usual for {method} with "
                f"{kind}, {usual:g}: the run may {'diverge' if way == 'above' else 'learn nothing'}."
            )


def _beta(plan: Plan) -> Iterator[str]:
    """How strongly a method holds on to its reference; from some value on, rounding is all that is left of the loss."""
    for name, options in (("dpo", plan.dpo), ("kto", plan.kto)):
        if options and float(options.beta) > MOST_BETA:
            yield (
                f"{name}.beta {options.beta} is above {MOST_BETA}, and 0.1 is usual: the loss then counts the smallest "
                "differences from the reference, and the run may diverge."
            )


def _amount(plan: Plan, rows: int) -> Iterator[str]:
    if rows < FEW_ROWS:
        few = counted(rows, "row is", "rows are")
        yield f"{few} few: below {FEW_ROWS} a model tends to memorize them; watch the held-out loss."
    batch, generations = plan.training.batch_size, plan.grpo.generations if plan.grpo else 1
    if batch // generations > rows:  # GRPO's batchSize counts samples
        each = f" at {generations} generations" if generations > 1 else ""
        end = "it is refused" if plan.grpo or plan.ppo else "an epoch is one step"
        yield f"batchSize {batch}{each} is more than the {counted(rows, 'row')} of the data: {end}; lower it."
