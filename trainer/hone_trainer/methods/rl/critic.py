"""A value head on the policy: what PPO expects of the rest of an answer, at each of its tokens. Trained with the model,
kept in its checkpoints, and left out of what is exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


def views(model: Network, inputs: dict[str, Any], answers_from: int, temperature: float, head: Any = None) -> Views:
    """The model's views of the tokens from column `answers_from` on.

    Args:
        inputs: input_ids, attention_mask, position_ids.
        head: the value head to ask, of this model.
    """
    from trl.trainer.utils import selective_log_softmax_and_entropy

    ids = inputs["input_ids"]
    kept = ids.shape[1] - answers_from + 1  # the position before an answer's first token predicts that
    out = model(**inputs, use_cache=False, output_hidden_states=head is not None, logits_to_keep=kept)
    log_probs, entropy = selective_log_softmax_and_entropy(
        out.logits[:, :-1].float(), ids[:, answers_from:], entropy_requires_grad=False, temperature=temperature
    )
    values = None
    if head is not None:
        values = head(out.hidden_states[-1][:, answers_from - 1 : -1])
    return Views(log_probs, entropy, values)


def head_of(model: Network) -> Any:
    """The head that was installed, in peft's wrapping where there is one."""
    return next(module for name, module in model.named_modules() if name.rsplit(".", 1)[-1] == NAME)
