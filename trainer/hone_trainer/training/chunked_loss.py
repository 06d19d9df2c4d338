"""The loss head on a CPU: log-probabilities of the counted tokens alone, a chunk of them at a time.

The logits of a batch are the largest thing in memory: tokens x vocabulary (1,024 x 49,152 in float32 are 201 MB, and a
plain cross-entropy holds several of them). TRL's fused head scores only counted positions where there is Triton; on a
CPU it scores every position, prompts and padding included. This one never does, on any device.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hone_trainer.models.network import Generating

CHUNK = 128
"""Tokens whose logits are in memory at a time: 25 MB at a vocabulary of 49,152."""
IGNORED = -100


def install(model: Generating, temperature: float = 1.0, *, means: bool = False) -> None:
    """Let `model(..., labels=, fused_lm_head=True)` use this head on a CPU; all else is left to TRL's.

    Args:
        model: a causal model, with or without PEFT's wrapper, that has TRL's head (`add_fused_lm_head`).
        temperature: by which TRL's head divides logits.
        means: whether TRL's head returns the mean logits.
    """
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    theirs = model.forward
    plain = _is_plain(model.config.get_text_config())

    @functools.wraps(theirs)  # generate() reads the signature
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        head = self.get_output_embeddings()
        if not (fused_lm_head and plain and head.weight.device.type == "cpu" and _is_whole(head, kwargs)):
            return theirs(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        count = kwargs.pop("num_items_in_batch", None)
        shifted = kwargs.pop("shift_labels", None)
        kwargs["use_cache"] = False  # a packed batch with a cache attends across its rows
        hidden = self.base_model(*args, **kwargs).last_hidden_state
        if shifted is None:
            hidden, shifted = hidden[:, :-1], labels[:, 1:]
        return _output(hidden, head, shifted, count, temperature, means=means)

    model.forward = types.MethodType(forward, model)


def is_installed(model: Generating) -> bool:
    """Whether a causal model, with or without PEFT's wrapper, has TRL's head or ours."""
    return "forward" in vars(model.get_base_model() if hasattr(model, "get_base_model") else model)


def use_logits(model: Generating, temperature: float = 1.0) -> None:
    """Let `model(..., labels=, fused_lm_head=True)` take the log-probabilities from the model's own logits.

    Args:
        model: as of `install`.
        temperature: by which logits are divided.
    """
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    theirs = model.forward

    @functools.wraps(theirs)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return theirs(*args, labels=labels, **kwargs)
        count, shifted = kwargs.pop("num_items_in_batch", None), kwargs.pop("shift_labels", None)
        output = theirs(*args, **{**kwargs, "use_cache": False})
        balance = getattr(output, "aux_loss", None)  # none where a dense family has the options of a mixture
        logits = output.logits
        if shifted is None:
            logits, shifted = logits[:, :-1], labels[:, 1:]
        mask = shifted != IGNORED
        logits, chosen = logits[mask].float() / temperature, shifted[mask]
        log_p = logits.log_softmax(1)
        entropy = -(log_p.detach().exp() * log_p.detach()).sum(1)
        log_probs, is_top1 = log_p.gather(1, chosen[:, None])[:, 0], log_p.argmax(1) == chosen
        found = _fused(mask, count, log_probs, entropy, is_top1, logits.detach().mean(1))
        found.aux_loss = log_probs.new_zeros(()) if balance is None else balance
        return found

    model.forward = types.MethodType(forward, model)


def _is_plain(config: Any) -> bool:
    """Whether logits are the head's product and nothing else: neither scaled, capped, nor routed."""
    special = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
    return all(getattr(config, name, None) is None for name in special) and not hasattr(config, "num_experts")


def _is_whole(head: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the head is one dense matrix in this process (ZeRO-3 leaves an empty one)."""
    return head.weight.numel() > 0 and not kwargs.get("output_router_logits")


def _output(
    hidden: Tensor, head: Any, labels: Tensor, count: Tensor | int | None, temperature: float, *, means: bool
) -> Any:
    mask = labels != IGNORED
    hidden, weight, bias = hidden[mask], head.weight, head.bias
    if temperature != 1:
        hidden, bias = hidden / temperature, None if bias is None else bias / temperature
    mean_logits = None
    if means:
        with torch.no_grad():
            mean_logits = (hidden @ weight.mean(0) + (0 if bias is None else bias.mean())).float()
    return _fused(mask, count, *token_log_probs(hidden, weight, bias, labels[mask]), mean_logits)


def _fused(
    mask: Tensor, count: Tensor | int | None, log_probs: Tensor, entropy: Tensor, is_top1: Tensor, means: Tensor | None
) -> Any:
    """What TRL's head returns.

    Args:
        mask: (rows, length), where a token counts.
        count: tokens of the whole batch; None: those that count here.
        log_probs, entropy, is_top1, means: of the tokens that count; the last are the mean logits.
    """
    from trl.trainer.utils import FusedCausalLMOutput

    def in_rows(of_tokens: Tensor) -> Tensor:
        """masked_scatter keeps a batch without any counted token differentiable."""
        return of_tokens.new_zeros(mask.shape).masked_scatter(mask, of_tokens)

    return FusedCausalLMOutput(
        loss=-log_probs.sum() / (mask.sum().clamp(min=1) if count is None else count),
        log_probs=in_rows(log_probs),
        entropy=in_rows(entropy),
        is_top1=in_rows(is_top1),
        mean_logits=None if means is None else in_rows(means),
        label_mask=mask,
    )


def token_log_probs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability of each label, entropy of each distribution in nats, and whether the label is the likeliest.

    Only the log-probability has a gradient.

    Args:
        hidden: (tokens, hidden size).
        weight: (vocabulary, hidden size); bias: (vocabulary) or None.
        labels: (tokens), ids below the vocabulary.
    """
    log_probs: tuple[Tensor, Tensor, Tensor] = _TokenLogProbs.apply(hidden, weight, bias, labels)
    return log_probs


class _TokenLogProbs(torch.autograd.Function):
    """d log p(y) / d h = w_y - sum_v p_v w_v: with a frozen head it is known as soon as the probabilities are, so
    backward computes no logits again. A trained head needs (onehot - p) again, chunk by chunk.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        tokens = len(labels)
        log_probs, entropy = hidden.new_empty(2, tokens, dtype=torch.float32)
        is_top1 = torch.empty(tokens, dtype=torch.bool)
        ctx.head_is_trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        slope = torch.empty_like(hidden) if hidden.requires_grad and not ctx.head_is_trained else None
        for part in _parts(tokens):
            log_p, chosen = _log_softmax(hidden[part], weight, bias), labels[part, None]
            log_probs[part] = log_p.gather(1, chosen)[:, 0]
            is_top1[part] = log_p.argmax(1) == labels[part]
            p = log_p.exp()
            entropy[part] = -(p * log_p).sum(1)
            if slope is not None:
                slope[part] = weight[labels[part]] - p.to(weight.dtype) @ weight
        ctx.save_for_backward(hidden, weight, bias, labels, slope)
        ctx.mark_non_differentiable(entropy, is_top1)
        return log_probs, entropy, is_top1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, labels, slope = ctx.saved_tensors
        if not ctx.head_is_trained:
            return (None if slope is None else slope * grad[:, None].to(slope.dtype)), None, None, None
        to_hidden, to_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        to_bias = torch.zeros_like(bias) if bias is not None else None
        for part in _parts(len(labels)):
            d_logits = -_log_softmax(hidden[part], weight, bias).exp_()
            d_logits.scatter_add_(1, labels[part, None], torch.ones_like(grad[part, None]))
            d_logits = (d_logits * grad[part, None]).to(weight.dtype)
            torch.mm(d_logits, weight, out=to_hidden[part])
            to_weight.addmm_(d_logits.T, hidden[part])
            if to_bias is not None:
                to_bias += d_logits.sum(0)
        return to_hidden, to_weight, to_bias, None


def _log_softmax(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.linear(hidden, weight, bias).float().log_softmax(1)


def _parts(tokens: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, tokens, CHUNK)]
