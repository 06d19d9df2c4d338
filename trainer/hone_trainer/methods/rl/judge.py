"""A reward model that reads the policy's own token ids, which is why it must have the policy's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.methods import pairs
from hone_trainer.models import base_model, weights
from hone_trainer.models.base_model import Base


class ConversationReward:
    """The reward of whole conversations.

    Args:
        name: of the ModelVersion, for messages.
        device: where it computes.

    Raises:
        TrainerError: UnsupportedModel, if it is not a reward model, or has another tokenizer or chat template.
    """

    def __init__(self, name: str, path: str, policy: Base, device: Any) -> None:
        from transformers import AutoModelForSequenceClassification

        opened = base_model.open_base(path, head="Reward")
        if wrong := unlike(opened.tokenizer, policy.tokenizer):
            message = f"ppo.rewardModelVersion {name} has another {wrong} than the model: train both on the same base"
            raise TrainerError(FailureCode.UNSUPPORTED_MODEL, message)
        self._model = weights.load(AutoModelForSequenceClassification, opened.path).to(device)
        self._model.eval().requires_grad_(False)
        self._pad, self._device = self._model.config.pad_token_id, device

    def prepared(self, accelerator: Any) -> Self:
        """Itself, with weights that are sharded where the policy's are: then each call is a collective.

        Args:
            accelerator: of the trainer.
        """
        plugin = accelerator.state.deepspeed_plugin
        if plugin is not None and plugin.zero_stage == 3:
            from trl.models import prepare_deepspeed

            self._model = prepare_deepspeed(self._model, accelerator)
        return self

    def __call__(self, conversations: Sequence[Sequence[int]]) -> Any:
        """The reward of each, (rows) of float32."""
        import torch

        with torch.no_grad():
            inputs = pairs.padded(conversations, self._pad, self._device)
            return self._model(**inputs).logits[:, 0].float()


def unlike(one: Any, other: Any) -> str | None:
    """What two tokenizers differ in that changes a conversation's ids."""
    if one.get_vocab() != other.get_vocab():
        return "vocabulary"
    return "chat template" if one.chat_template != other.chat_template else None
