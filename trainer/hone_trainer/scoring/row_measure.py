"""What a method measures of each held-out row by a model alone, so that two models can be compared row by row.

Another version of a model is measured before the run's own weights are loaded. The reference, the rewards or the judge
that turn its values into a score are only there later, in the run's trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from hone_trainer.scoring.heldout import HeldOut
    from hone_trainer.scoring.in_training import MeasuredTrainer
    from hone_trainer.scoring.scores import Score


class Poll(Protocol):
    """What work that takes long reports to, between its batches."""

    def __call__(self) -> None:
        """Called before each batch on every rank; raises to give up. A collective."""

    def count(self, done: int, begun: int = 0) -> None:
        """So many rows are done, and so many more will be."""


class Unwatched:
    """A `Poll` of work that nobody watches."""

    def __call__(self) -> None:
        pass

    def count(self, done: int, begun: int = 0) -> None:
        pass


Values = Sequence[Sequence[float]]
"""Of each row, in the rows' order."""
Needs = Literal["reference", "rewards", "judge"]
"""Attribute of a trainer: log-probabilities by the model that the run started from, rewards, or a reward model."""


@dataclass(frozen=True)
class RowMeasure:
    """Values of each row by a model alone, and the score that follows from them in a run."""

    values: Callable[[Any, Any, HeldOut, Poll], Values]
    """Run, model, held-out split, poll -> what the model says of each row; it is kept as JSON. A collective."""
    score: Callable[[Any, HeldOut, Values, Poll], Score]
    """Trainer, held-out split, values, poll -> the score, as if the model were the one in training. A collective."""
    needs: Needs | None = None
    """What `score` reads of the trainer besides its run."""

    def of_trained(self, trainer: MeasuredTrainer, split: HeldOut, poll: Poll) -> Score:
        """The score of the model in training, in its current state. A collective."""
        return self.score(trainer, split, self.values(trainer.run, trainer.scoring_model(), split, poll), poll)
