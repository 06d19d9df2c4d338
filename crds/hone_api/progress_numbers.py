"""The numbers of a run's progress: one line each, from which reports, status, curves and gauges are made.

A new number is a line of `PROGRESS_NUMBERS`, its typed field in `ProgressNumbers`, and its field in the trainer's
`Progress` (`hone_trainer.reporting.live`). `tests/api/test_progress_numbers.py` fails if one of them is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import Field
from pydantic.alias_generators import to_camel

from hone_api.meta import MAX_COUNT, ApiModel


@dataclass(frozen=True, kw_only=True)
class ProgressNumber:
    """A number that the trainer reports while it trains."""

    name: str
    """Name of the field in the trainer and in a report; in JSON it is in camelCase."""
    help: str
    """What it is, without a full stop: for `kubectl explain` and Prometheus."""
    unit: str = ""
    """Unit, where `help` does not name it."""
    count: bool = False
    """Whether it is an integer. Others travel as text of at most six digits, so that 'nan' survives JSON."""
    in_status: bool = True
    """Whether it is a field of `status.progress`."""
    curve: bool = False
    """Whether `status.metrics` holds a curve of it."""
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


NATS = "nats per token"
DIGITS_OF_LOSS = 4
"""Significant digits of a loss in the columns of ModelVersions. A run's progress has six: its curves need them."""
PROGRESS_NUMBERS = (
    ProgressNumber(name="step", help="Optimiser steps done", count=True, gauge="steps"),
    ProgressNumber(name="total_steps", help="Optimiser steps of the whole run", count=True, gauge="steps_target"),
    ProgressNumber(name="epoch", help="Passes over the rows so far", kubeflow="current_epoch"),
    ProgressNumber(name="loss", help="Latest training loss", unit=NATS, curve=True, kubeflow="loss"),
    ProgressNumber(name="eval_loss", help="Latest held-out loss", unit=NATS, curve=True, kubeflow="eval_loss"),
    ProgressNumber(name="learning_rate", help="Latest learning rate", curve=True, kubeflow="learning_rate"),
    ProgressNumber(name="grad_norm", help="Latest gradient norm before clipping", kubeflow="grad_norm"),
    ProgressNumber(name="tokens_per_second", help="Tokens per second over all ranks", kubeflow="tokens_per_second"),
    ProgressNumber(
        name="checkpoint_step",
        help="Step of the newest complete checkpoint",
        count=True,
        in_status=False,
        job_gauge=False,
    ),
    ProgressNumber(
        name="checkpoint_bytes",
        help="Bytes that the run's checkpoints took in the store when the newest was written. checkpoints.retain "
        "decides how long they stay",
        count=True,
        job_gauge=False,
    ),
    ProgressNumber(name="slowest_rank", help="Rank whose forward passes took longest in the last 20 steps", count=True),
    ProgressNumber(
        name="slowest_rank_ratio", help="Time of the slowest rank's forward passes, divided by the median of the others"
    ),
)
MEASURED = tuple(number for number in PROGRESS_NUMBERS if not number.count)
"""The numbers that travel as text."""
_BY_NAME = {number.name: number for number in PROGRESS_NUMBERS}


def description(name: str) -> str:
    """The sentence about a number of the table.

    Raises:
        KeyError: the table has no number of this name.
    """
    return _BY_NAME[name].description


TextT = TypeVar("TextT", bound=str)


class ProgressNumbers(ApiModel, Generic[TextT]):
    """The fields that a report and `status.progress` share. `TextT`: text of a measured number, with its bound."""

    step: int = Field(default=0, ge=0, le=MAX_COUNT, description=description("step"))
    total_steps: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=description("total_steps"))
    epoch: TextT | None = Field(default=None, description=description("epoch"))
    loss: TextT | None = Field(default=None, description=description("loss"))
    eval_loss: TextT | None = Field(default=None, description=description("eval_loss"))
    learning_rate: TextT | None = Field(default=None, description=description("learning_rate"))
    grad_norm: TextT | None = Field(default=None, description=description("grad_norm"))
    tokens_per_second: TextT | None = Field(default=None, description=description("tokens_per_second"))
    checkpoint_bytes: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=description("checkpoint_bytes"))
    slowest_rank: int | None = Field(default=None, ge=0, le=MAX_COUNT, description=description("slowest_rank"))
    slowest_rank_ratio: TextT | None = Field(default=None, description=description("slowest_rank_ratio"))
