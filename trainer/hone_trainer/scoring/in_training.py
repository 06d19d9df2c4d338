"""The model in training as measurements see it: `training.loop` has the trainer and the run, a floor above."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from hone_api.plan import TrainingPlan
    from hone_trainer.models.base_model import Base
    from hone_trainer.models.network import Generating, Network


class Precision(Protocol):
    """Settings of a run that change what a forward pass gives."""

    @property
    def bf16(self) -> bool: ...


class ScoredMethod(Protocol):
    """A method with a way to score the model."""

    @property
    def score(self) -> Callable[..., Any]: ...


class MeasuredRun(Protocol):
    """The run whose model is measured."""

    @property
    def plan(self) -> TrainingPlan: ...
    @property
    def base(self) -> Base: ...
    @property
    def method(self) -> ScoredMethod: ...
    @property
    def settings(self) -> Precision: ...
    @property
    def stop_ids(self) -> frozenset[int]: ...


class MeasuredTrainer(Protocol):
    """The trainer whose model is measured, in its current state."""

    @property
    def run(self) -> MeasuredRun: ...
    @property
    def model(self) -> Generating: ...

    def scoring_model(self) -> Network:
        """The model whose forward pass gives logits."""
