"""From the plan and facts about data and model to every number of the run. Pure, except for the ranks' agreement."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hone_api.blocks.training import Recompute
from hone_api.methods import Rates
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.device import Device
from hone_trainer.errors import TrainerError
from hone_trainer.training.batches.attention import AttentionChoice

CURVE_POINTS = 2000
"""Most points of a logged curve; longer runs log every n-th step."""


LONGEST = 252
"""Characters of a value, as status.resolved holds it."""
FAILURE_INTERVAL = 86400
"""Seconds between failures where none was seen."""
SHORTEST_INTERVAL, LONGEST_INTERVAL = 60.0, 3600.0
"""Seconds between checkpoints with cadence Auto."""
MOST_SAVING = 0.1
"""Fraction of the time that checkpoints may take with cadence Auto, also where failures are frequent."""
FIRST_CHECKPOINT, FIRST_SECONDS = 20, 600.0
"""Steps, and seconds of training, to an attempt's first checkpoint with cadence Auto at most, which measures how long
one takes. Where a step takes minutes, an attempt that ends before the twentieth would leave nothing."""


@dataclass(frozen=True)
class RunSettings:
    """The resolved numbers of one run. Batch sizes in rows, lengths in tokens, intervals in optimiser steps."""

    world_size: int
    micro_batch_size: int
    accumulation: int
    max_length: int
    total_steps: int
    learning_rate: float
    warmup_steps: int
    evaluation_every: int
    checkpoint_every: int
    logging_every: int
    bf16: bool
    cpu: bool
    checkpoint_auto: bool = False
    """Whether `checkpoint_every` is only until the first checkpoint, and `checkpoint_interval` decides then."""
    padding_free: bool = True
    """Whether micro batches are padding-free, if the loaded model allows it (see `attention`)."""
    longest: int = 0
    """Tokens of the longest sequence, where rows are put together by tokens: as many rows share a pass as have no more
    tokens than `micro_batch_size` of the longest. 0: each pass has so many rows."""
    attention: AttentionChoice | None = None
    """How rows of one pass attend; None where each is in a pass of its own, or padded."""
    recompute: Recompute = Recompute.NONE
    """Layers whose activations are computed again in the backward pass."""
    recompute_by_memory: bool = False
    """Whether memory has decided that."""
    unpacked: bool = False
    """Whether rows are not packed although the job packs them (see `model_check`)."""

    @property
    def pass_tokens(self) -> int:
        """Most tokens of a pass; 0 where rows are counted."""
        return self.longest * self.micro_batch_size if self.padding_free else 0

    def with_micro_batch(self, rows: int) -> RunSettings:
        """The same steps in passes of `rows` rows, which must divide a rank's rows."""
        return replace(self, micro_batch_size=rows, accumulation=self.micro_batch_size * self.accumulation // rows)

    def to_resolved(self) -> dict[str, int | str]:
        """The part that the user did not choose, for status and model card."""
        return {
            **({"packing": "Off"} if self.unpacked else {}),
            **({"attention": f"{self.attention.kernel}: {self.attention.why}"[:LONGEST]} if self.attention else {}),
            **({"activationCheckpointing": str(self.recompute)} if self.recompute_by_memory else {}),
            "worldSize": self.world_size,
            "microBatchSize": self.micro_batch_size,
            "gradientAccumulationSteps": self.accumulation,
            "maxLength": self.max_length,
            "totalSteps": self.total_steps,
            "learningRate": f"{self.learning_rate:g}",
            "warmupSteps": self.warmup_steps,
            "precision": "BFloat16" if self.bf16 else "Float32",
        }


def resolve(
    plan: TrainingPlan,
    *,
    rates: Rates,
    sequences: int,
    max_length: int,
    device: Device,
    micro_batch_size: int,
    longest: int = 0,
    recompute: Recompute | None = None,
) -> RunSettings:
    """All numbers of the run.

    Args:
        rates: the method's learning rates.
        sequences: sequences of an epoch: rows after filtering, or packed sequences.
        max_length: tokens of the longest sequence.
        device: what the ranks compute on; their number must divide `plan.training.batch_size` (see
            `preflight.check_plan`).
        micro_batch_size: rows of a forward pass on a rank (see `hone_api.estimate.micro_batch`).
        longest: tokens of the longest sequence, if rows are to be put together by tokens; else 0.
        recompute: layers that are recomputed, where memory decides that and is known.
    """
    training = plan.training
    per_rank = max(1, training.batch_size * training.ranks_of_row // device.world_size)
    steps_per_epoch = max(1, math.ceil(sequences / training.batch_size))
    total = training.max_steps or max(1, math.ceil(float(training.epochs or "1") * steps_per_epoch))
    tenth = max(1, math.ceil(total / 10))
    auto = plan.checkpoints.cadence == "Auto"
    adapter = plan.adapter.type != "None"
    default_rate = rates.adapter if adapter else rates.full
    rate = float(training.learning_rate) if training.learning_rate else default_rate
    return RunSettings(
        world_size=device.world_size,
        micro_batch_size=micro_batch_size,
        accumulation=max(1, per_rank // micro_batch_size),
        max_length=max_length,
        total_steps=total,
        learning_rate=rate / 2 ** (plan.learning_rate_halvings or 0),
        # Rounded down: the first step of a warm-up has the rate 0, which a run of few steps cannot spare.
        warmup_steps=math.floor(round(float(training.warmup_ratio) * total, 6)),
        evaluation_every=plan.evaluation.every_steps or tenth,
        checkpoint_every=min(tenth, FIRST_CHECKPOINT) if auto else plan.checkpoints.every_steps or tenth,
        checkpoint_auto=auto,
        logging_every=max(1, math.ceil(total / CURVE_POINTS)),
        bf16=device.computes_in_bf16(training.precision),
        cpu=not device.cuda,
        longest=longest,
        recompute=training.recompute or recompute or Recompute.NONE,
        recompute_by_memory=training.recompute is None,
    )


def checkpoint_interval(save: float, step: float, failure_interval: int | None) -> int:
    """Steps between checkpoints, so that saving and what failures cost take the least time together. Pure.

    The optimum is at sqrt(2 x save x failure interval): Young 1974, "A first order approximation to the optimum
    checkpoint interval"; Daly 2006, for failures that are far apart compared with a checkpoint.

    Args:
        save: measured seconds of a checkpoint, while the ranks wait.
        step: measured seconds of a step.
        failure_interval: seconds between failures; None: `FAILURE_INTERVAL`.
    """
    best = math.sqrt(2 * save * (failure_interval or FAILURE_INTERVAL))
    seconds = min(max(best, SHORTEST_INTERVAL, save / MOST_SAVING), max(LONGEST_INTERVAL, save / MOST_SAVING))
    return max(1, round(seconds / max(step, 1e-6)))


def check_alike(settings: RunSettings) -> None:
    """That every rank has come to the same numbers: GPUs of different kinds may not. A collective.

    Raises:
        TrainerError: HardwareUnsuitable.
    """
    mine = [float(settings.micro_batch_size), float(settings.bf16)]
    if ranks.add_up(mine) != [settings.world_size * number for number in mine]:
        precision = "BFloat16" if settings.bf16 else "Float32"
        message = (
            f"rank {ranks.rank()} has {settings.micro_batch_size} rows in a forward pass in {precision}, unlike "
            "others: name one product in resources.gpuProducts, or training.precision and training.microBatchSize"
        )
        raise TrainerError(FailureCode.HARDWARE_UNSUITABLE, message)
