"""A value head on the policy: what PPO expects of the rest of an answer, at each of its tokens. Trained with the model,
kept in its checkpoints, and left out of what is exported."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from hone_trainer.encoding.row import IGNORED
from hone_trainer.models.network import Generating, Network

NAME = "value_head"


@dataclass
class Views:
    """A model's outputs for answers, each tensor float32 (rows, tokens of the answers)."""

    log_probs: Any
    """Of the tokens, by the distribution that they are sampled from."""
    entropy: Any
    """Of that distribution, nats; without gradient."""
    values: Any
    """Reward expected from here on; None without a value head."""


def install(model: Generating, *, frozen: bool) -> None:
    """Add the head to a causal model, before peft wraps it. It begins at 0: nothing is expected yet.

    Args:
        frozen: whether the model's own weights are. If not, the head has their type: ZeRO-3 wants one for all that is
            trained, and reads them in bfloat16 where the run computes in it.
    """
    import torch

    from hone_trainer.methods.rl.value_head import ValueHead

    dtype = torch.float32 if frozen else next(model.parameters()).dtype
    head = ValueHead(model.config.get_text_config().hidden_size, 1).to(model.device, dtype)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    setattr(model, NAME, head)


def views(model: Network, inputs: dict[str, Any], answers_from: int, *, valued: bool = False) -> Views:
    """The model's views of the tokens from column `answers_from` on; of padding they are 0, except for values.

    Args:
        model: with TRL's loss head, which divides logits by the temperature and returns entropies.
        inputs: input_ids, attention_mask, position_ids.
        valued: whether its value head is asked.
    """
    from hone_trainer.methods import divergence  # loads torch

    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)
    labels[:, :answers_from] = IGNORED
    owner = next(module for module in model.modules() if NAME in dict(module.named_children())) if valued else None
    # The loss head asks the body, and returns nothing of its states.
    held: AbstractContextManager[list[Any]] = divergence.watched(owner) if owner else nullcontext([])
    with held as seen:
        out = model(**inputs, labels=labels, fused_lm_head=True)
    start = answers_from - 1  # the position before an answer's first token predicts that
    values = getattr(owner, NAME)(seen[-1][1].last_hidden_state[:, start:-1]) if owner else None
    return Views(out.log_probs[:, start:], out.entropy[:, start:].detach(), values)
