"""L2 to the start (L2-SP; Li, Grandvalet and Davoine 2018, arXiv 1802.01483): a penalty of strength / 2 * |w - start|^2
on leaving the weights that training begins with, a means against forgetting in full fine-tuning.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone_trainer.models.network import Network


class L2ToStart(TrainerCallback):
    """Adds the penalty's gradient, strength * (w - start), to the one of the loss once that is clipped.

    It keeps a copy of the weights. A resumed run also has the first attempt's: the trainer is made before the
    checkpoint is read.
    """

    def __init__(self, strength: float) -> None:
        self._strength = strength
        self._weights: list[tuple[Any, Any]] = []

    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Network | None = None,
        **_: Any,
    ) -> None:
        weights = model.parameters() if model is not None else ()
        self._weights = [(p, p.detach().clone()) for p in weights if p.requires_grad]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        for weight, start in self._weights:
            if weight.grad is not None:
                weight.grad.add_(weight.detach() - start.to(weight.device), alpha=self._strength)
