"""The reference of DPO and KTO: the model that training starts from, held fixed.

With an adapter it is the model without it. Full fine-tuning changes the model itself, so the reference's
log-probabilities are computed before the first step, again by every attempt: each starts from the same base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hone_api.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.encoding.preferences import Compared
from hone_trainer.errors import TrainerError
from hone_trainer.methods import pairs
from hone_trainer.methods.pairs import Poll
from hone_trainer.signals import interrupted
from hone_trainer.training.loop import Loop, Run

TOLERANCE = {False: 1e-3, True: 5e-2}
"""Largest relative error of the first loss in float32 and, True, in bfloat16."""


class WithReference(Loop):
    """A `Loop` whose loss compares the model with its reference; before TRL's DPOTrainer or KTOTrainer in the bases."""

    aux_loss_enabled: bool
    router_aux_loss_coef: float
    _metrics: dict[str, dict[str, list[float]]]
    first_loss: float
    """The loss of two equal models: anything else at the first step means that the reference is wrong."""

    def attach(self, run: Run) -> None:
        super().attach(run)
        self._known: dict[str, list[list[float]]] = self.__dict__.get("_known", {})
        self._compared = False

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        if not (self._compared or self.state.global_step):
            check_first_loss(self._compared_loss(loss), self.first_loss, bf16=self.run.settings.bf16)
        self._compared = True
        return loss

    def _compared_loss(self, loss: Any) -> float:
        """The mean over the ranks, without what TRL adds for the balance of a mixture's experts. A collective."""
        mean = ranks.add_up([loss.item()])[0] / ranks.world_size()
        if not self.aux_loss_enabled:
            return mean
        return mean - self.router_aux_loss_coef * self._metrics["train"]["aux_loss"][-1]

    def compare(self, name: str, rows: Sequence[Compared], poll: Poll) -> tuple[list[list[float]], list[list[float]]]:
        """Log-probabilities of `rows` by the model as it is, and by the reference. A collective.

        Args:
            name: what the rows are; the reference's are computed once a name.
        """
        model = self.scoring_model()
        if name not in self._known:
            with self.model.disable_adapter():
                self._known[name] = pairs.log_probs(self.run, model, rows, poll)
        return pairs.log_probs(self.run, model, rows, poll), self._known[name]

    def before_training(self, run: Run, splits: Mapping[str, Sequence[Any]]) -> dict[str, list[list[float]]]:
        """The reference's log-probabilities for full fine-tuning, kept for `compare`. A collective."""
        from trl.models import prepare_deepspeed

        model = prepare_deepspeed(self.model, self.accelerator) if self.is_deepspeed_enabled else self.model

        def poll() -> None:
            if ranks.any_rank(run.stop.requested):
                raise interrupted("while computing the reference")

        self._known = {name: pairs.log_probs(run, model, rows, poll) for name, rows in splits.items()}
        return self._known


def check_first_loss(loss: float, expected: float, *, bf16: bool) -> None:
    """That a first loss is that of two equal models.

    Raises:
        TrainerError: ReferenceMismatch.
    """
    if abs(loss - expected) > TOLERANCE[bf16] * abs(expected):
        message = f"the first loss is {loss:.6f}; with a reference that equals the model it is {expected:.6f}"
        raise TrainerError(FailureCode.REFERENCE_MISMATCH, message, rank=ranks.rank(), step=1)
