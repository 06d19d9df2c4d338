"""From a plan, its base and its rows to the numbers of the run, so that a pass fits into the memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hone_api.estimate import micro_batch
from hone_api.estimate.memory import Setup
from hone_api.methods import METHODS as INFOS
from hone_api.plan import TrainingPlan
from hone_trainer.device import Device
from hone_trainer.encoding import mapped
from hone_trainer.encoding.split_file import Example
from hone_trainer.methods import METHODS
from hone_trainer.models import read_shape
from hone_trainer.models.base_model import Base
from hone_trainer.run import rows
from hone_trainer.teachers import from_model
from hone_trainer.training import settings
from hone_trainer.training.batches import indexed


def resolve_run(plan: TrainingPlan, base: Base, data: rows.Data, device: Device) -> tuple[Any, settings.RunSettings]:
    """The dataset as the method's trainer takes it, and the numbers of the run."""
    method = METHODS[plan.method]
    length = plan.training.max_length or method.longest(base) or data.longest
    dataset = method.dataset(plan, data.train, length)
    tokens = longest_sequence(plan, dataset, data.train)
    result = sized(plan, base, device, tokens, data.tokens)
    ranks, gpu = device.world_size, device.cuda
    unsized = micro_batch.micro_batch(plan, ranks=ranks, gpu=gpu, longest=tokens)
    return dataset, settings.resolve(
        plan,
        rates=INFOS[plan.method].rates,
        sequences=len(dataset) * method.repeats(plan),
        max_length=length,
        device=device,
        micro_batch_size=result.micro_batch if result else unsized,
        recompute=result.recompute if result else None,
        longest=tokens if method.by_tokens and not micro_batch.packs(plan) and not _holds_padding(plan) else 0,
    )


def _holds_padding(plan: TrainingPlan) -> bool:
    """Whether its loss needs logits of padded rows: passes of many short rows and a long one would hold far more of
    them than of tokens."""
    return plan.distillation is not None and plan.distillation.by_logits


def longest_sequence(plan: TrainingPlan, dataset: Any, examples: Sequence[Example]) -> int:
    """Tokens of the longest sequence of a run."""
    if INFOS[plan.method].by_tokens:  # the data set has exactly the rows that are trained
        is_packed = len(dataset) < len(examples)
        return int(indexed.sequence_lengths(dataset).max()) if is_packed else mapped.most(examples)
    return micro_batch.longest_sequence(plan, mapped.most(examples))


def sized(plan: TrainingPlan, base: Base, device: Device, longest: int, row_tokens: int) -> Setup | None:
    """What decides the memory of a rank; None where the sizes of a model are unknown.

    Args:
        longest: tokens of the longest sequence.
        row_tokens: tokens of all training rows.
    """
    shape, theirs = read_shape.shape(base.path), None
    if plan.distillation and plan.distillation.by_logits:
        theirs = read_shape.shape(Path(from_model.named(plan)[1]))
        if theirs is None:
            return None
    if shape is None:
        return None
    return micro_batch.setup(
        plan,
        shape,
        ranks=device.world_size,
        gpu=device.cuda,
        bf16=device.computes_in_bf16(plan.training.precision),
        longest=longest,
        memory=plan.memory,
        teacher=theirs,
        row_tokens=row_tokens,
    )
