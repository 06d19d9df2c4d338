"""The reference of DPO and KTO: the model that training starts from, held fixed.

With an adapter it is the model without it. Full fine-tuning changes the model itself, so the reference's
log-probabilities are computed before the first step, again by every attempt: each starts from the same base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer import ranks
from hone_trainer.encoding.preferences import Compared
from hone_trainer.encoding.row import IGNORED
from hone_trainer.errors import TrainerError
from hone_trainer.methods import pairs
from hone_trainer.models.network import Network
from hone_trainer.scoring.row_measure import Poll
from hone_trainer.signals import interrupted
from hone_trainer.training.batches.deferred import Deferred
from hone_trainer.training.loop import Run, RunPoll

TOLERANCE = {False: 1e-3, True: 5e-2}
"""Largest relative error of the first loss in float32 and, True, in bfloat16."""


class WithReference(Deferred):
    """A `Deferred` whose loss compares the model with its reference; before TRL's DPOTrainer or KTOTrainer in the
    bases. A subclass has the loss in `loss_of`, with TRL's formula and numbers."""

    MEANS = True
    aux_loss_enabled: bool
    router_aux_loss_coef: float
    first_loss: float
    """The loss of two equal models: anything else at the first step means that the reference is wrong."""

    def attach(self, run: Run) -> None:
        super().attach(run)
        self._known: dict[str, list[list[float]]] = self.__dict__.get("_known", {})
        self._compared = False

    def loss_of(self, model: Network, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        """Mean loss of a micro batch, and the output of the model on its answers. A collective."""
        raise NotImplementedError

    def compute_loss(
        self, model: Network, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, output = self.loss_of(model, inputs)
        if not (self._compared or self.state.global_step):
            # The mean over the ranks.
            mean = ranks.add_up([loss.item()])[0] / ranks.world_size()
            check_first_loss(mean, self.first_loss, bf16=self.run.settings.bf16)
        self._compared = True
        if self.aux_loss_enabled:  # experts are kept in balance
            loss = loss + self.router_aux_loss_coef * output.aux_loss
            self.keep_means({"aux_loss": output.aux_loss})
        loss = loss * self.weight
        return (loss, output) if return_outputs else loss

    def answered(self, model: Network, inputs: Mapping[str, Any], prefix: str = "", *, routed: bool = False) -> Any:
        """The output of a model with TRL's fused head on answers of a batch, those whose columns have the prefix.

        Args:
            routed: whether it has the loss for the balance of a mixture's experts.
        """
        ids, counted = inputs[f"{prefix}input_ids"], inputs[f"{prefix}completion_mask"]
        options = {"output_router_logits": True} if routed else {}
        return model(
            input_ids=ids,
            attention_mask=inputs[f"{prefix}attention_mask"],
            labels=ids.masked_fill(counted == 0, IGNORED),
            use_cache=False,
            fused_lm_head=True,
            **options,
        )

    def keep_tokens(self, output: Any, inputs: Mapping[str, Any], good: Any) -> None:
        """Note entropy and mean logits over the tokens that count. A collective.

        Args:
            good: which rows of the batch have a chosen, or good, answer: (rows,).
        """
        counted = inputs["completion_mask"][:, 1:]
        logits, rows = (output.mean_logits.detach() * counted).sum(1), counted.sum(1)
        self.keep_sums(
            {
                "entropy": ((output.entropy.detach() * counted).sum(), counted.sum()),
                "logits/chosen": ((logits * good).sum(), (rows * good).sum()),
                "logits/rejected": ((logits * ~good).sum(), (rows * ~good).sum()),
            }
        )
        self.count(inputs["attention_mask"].sum())

    def reference(self, name: str, rows: Sequence[Compared], poll: Poll) -> list[list[float]]:
        """Log-probabilities of `rows` by the reference. A collective.

        Args:
            name: what the rows are; they are computed once a name.
        """
        if name not in self._known:
            with self.model.disable_adapter():
                self._known[name] = pairs.log_probs(self.run, self.scoring_model(), rows, poll)
        return self._known[name]

    def before_training(self, run: Run, splits: Mapping[str, Sequence[Any]]) -> dict[str, list[list[float]]]:
        """The reference's log-probabilities for full fine-tuning, kept for `reference`. A collective."""
        from trl.models import prepare_deepspeed

        model = prepare_deepspeed(self.model, self.accelerator) if self.is_deepspeed_enabled else self.model

        self.run = run
        self.put_head_on(self.model)  # before `attach`: with another head, the model would not equal its reference
        poll = RunPoll(run, lambda: interrupted("while computing the reference"))
        run.reporters.begin_rows("ScoringReference", sum(map(len, splits.values())))
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
