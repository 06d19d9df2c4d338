"""The numbers of a run's progress: one line each, from which reports, status, curves and gauges are made.

A new number is one line: a field of `ProgressNumbers`. The trainer's `Progress` (`hone_trainer.reporting.live`), its
report and its gauge, `status.progress`, its curve and the operator's gauge follow from it, as
`tests/api/words/test_progress_numbers.py` shows with a number that it adds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import Field
from pydantic.alias_generators import to_camel

from hone_api.base.meta import MAX_COUNT, ApiModel


@dataclass(frozen=True, kw_only=True)
class ProgressNumber:
    """A number that the trainer reports while it trains."""

    name: str = ""
    """Name of the field in the trainer and in a report; in JSON it is in camelCase."""
    help: str
    """What it is, without a full stop: for `kubectl explain` and Prometheus."""
    unit: str = ""
    """Unit, where `help` does not name it."""
    count: bool
    """Whether it is an integer. Others travel as text of at most six digits, so that 'nan' survives JSON."""
    in_status: bool = True
    """Whether it is a field of `status.progress`."""
    of_stage: bool = False
    """Whether it is of the current stage alone: it never outlives its stage, in the trainer and in the status."""
    curve: bool = False
    """Whether `status.metrics` holds a curve of it."""
    figure: bool = False
    """Whether a run's page has a small figure of it alone. The losses share a large one."""
    gauge: str = ""
    """Name of its gauges after `hone_trainer_` and `hone_job_`, where it is not `name`."""
    job_gauge: bool = True
    """Whether the operator has a gauge of it. The trainer has one of every number."""
    kubeflow: str = ""
    """Name under which stock Hugging Face scripts report it; empty: they do not."""

    @property
    def description(self) -> str:
        """A sentence with the unit."""
        return f"{self.help}, {self.unit}." if self.unit else f"{self.help}."

    @property
    def json_name(self) -> str:
        """Its field in `status.progress` and in the JSON of a report."""
        return to_camel(self.name)

    @property
    def gauge_name(self) -> str:
        """The name of its gauges without their prefix."""
        return self.gauge or self.name


def _measured(about: str, **settings: Any) -> Any:
    """The field of a number with a fraction; `settings` are fields of its `ProgressNumber`."""
    return _field(ProgressNumber(help=about, count=False, **settings), default=None)


def _count(about: str, default: int | None = None, **settings: Any) -> Any:
    """The field of an integer; `settings` are fields of its `ProgressNumber`."""
    return _field(ProgressNumber(help=about, count=True, **settings), default=default, ge=0, le=MAX_COUNT)


def _field(number: ProgressNumber, **settings: Any) -> Any:
    field = Field(description=number.description, **settings)
    field.metadata.append(number)
    return field


MOST_METRICS = 20
"""Further metrics of a method in a report and in `status.progress`."""
NATS = "nats per token"
DIGITS_OF_LOSS = 4
"""Significant digits of a loss in the columns of ModelVersions. A run's progress has six: its curves need them."""
ValueT = TypeVar("ValueT", bound=str | float)


class ProgressNumbers(ApiModel, Generic[ValueT]):
    """The numbers that trainer, report and `status.progress` share.

    `ValueT` is what a measured number is there: text with its bound in JSON, a float in the trainer.
    """

    step: int = _count("Optimiser steps done", default=0, gauge="steps")
    total_steps: int | None = _count("Optimiser steps of the whole run", gauge="steps_target")
    epoch: ValueT | None = _measured("Passes over the rows so far", kubeflow="current_epoch")
    loss: ValueT | None = _measured("Latest training loss", unit=NATS, curve=True, kubeflow="loss")
    eval_loss: ValueT | None = _measured("Latest held-out loss", unit=NATS, curve=True, kubeflow="eval_loss")
    learning_rate: ValueT | None = _measured("Latest learning rate", curve=True, figure=True, kubeflow="learning_rate")
    grad_norm: ValueT | None = _measured("Latest gradient norm before clipping", figure=True, kubeflow="grad_norm")
    loss_step: int | None = _count("Step up to which the latest training loss was measured", job_gauge=False)
    eval_step: int | None = _count("Step at which the latest held-out loss was measured", job_gauge=False)
    tokens_per_second: ValueT | None = _measured(
        "Tokens per second over all ranks, in the current stage", of_stage=True, kubeflow="tokens_per_second"
    )
    useful_tokens: ValueT | None = _measured(
        "Share of the tokens in the latest forward passes of the first rank that are of rows, not padding"
    )
    mfu: ValueT | None = _measured(
        "Share of the GPUs' peak that the operations of the model reach (model FLOPs utilisation)"
    )
    gpu_memory_bytes: int | None = _count(
        "Bytes of GPU memory that the first rank has reserved so far, at most; absent without a GPU"
    )
    rows: int | None = _count("Rows that the current stage has done, e.g. of an evaluation", of_stage=True)
    total_rows: int | None = _count("Rows of the current stage", of_stage=True, gauge="rows_target")
    rows_per_second: ValueT | None = _measured("Rows per second of the current stage", of_stage=True)
    checkpoint_bytes: int | None = _count(
        "Bytes that the run's checkpoints took in the store when the newest was written. checkpoints.retain decides "
        "how long they stay",
        job_gauge=False,
    )
    slowest_rank: int | None = _count("Rank whose forward passes took longest in the last 20 steps")
    slowest_rank_ratio: ValueT | None = _measured(
        "Time of the slowest rank's forward passes, divided by the median of the others"
    )


class ReportedNumbers(ProgressNumbers[ValueT], Generic[ValueT]):
    """All numbers of a report: also those that `status.progress` does not have."""

    checkpoint_step: int | None = _count("Step of the newest complete checkpoint", in_status=False, job_gauge=False)


def _numbers() -> tuple[ProgressNumber, ...]:
    """What the fields say about each number."""
    return tuple(
        replace(entry, name=name)
        for name, field in ReportedNumbers.model_fields.items()
        for entry in field.metadata
        if isinstance(entry, ProgressNumber)
    )


PROGRESS_NUMBERS = _numbers()
MEASURED = tuple(number for number in PROGRESS_NUMBERS if not number.count)
"""The numbers that travel as text."""
OF_STAGE = tuple(number.name for number in PROGRESS_NUMBERS if number.of_stage)
"""The numbers that never outlive their stage; so does the estimated time left."""
_BY_NAME = {number.name: number for number in PROGRESS_NUMBERS}


def description(name: str) -> str:
    """The sentence about a number of the table.

    Raises:
        KeyError: the table has no number of this name.
    """
    return _BY_NAME[name].description
