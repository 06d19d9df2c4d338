"""How far a student is from its teacher: the forward KL divergence over the tokens that count.

Hinton et al. 2015 (arXiv 1503.02531) with a temperature; over the tokens of given answers it is the supervised KD of
Agarwal et al. 2024 (arXiv 2306.13649, equation 1 with the divergence KL(teacher || student)).

The logits of all tokens are in memory at no time: each model's head is asked for a few tokens after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.models.network import Generating, Network

CHUNK = 128
"""Tokens whose logits and probabilities are in memory at a time."""


_UNLIKE = 0.02
"""Of the spread of a token's logits: far above what bfloat16 rounds away."""


def unlike(model: Generating) -> TrainerError:
    """The refusal of a family whose head cannot be asked alone."""
    message = (
        f"distillation.level Logits: the head of a {model.config.model_type}, asked alone, gives other logits than the "
        "model: use level Sequence"
    )
    return TrainerError(FailureCode.UNSUPPORTED_MODEL, message)


@contextmanager
def watched(whole: Generating) -> Iterator[list[tuple[Any, Any]]]:
    """What passes of a causal model come through before its head, each with its output; the last one is its body."""
    model: Any = whole
    seen = list[tuple[Any, Any]]()

    def note(body: Any, _inputs: Any, output: Any) -> None:
        if hasattr(output, "last_hidden_state"):  # other modules have other outputs
            seen.append((body, output))

    bodies = {model.base_model, model.get_decoder(), getattr(model, "model", None)} - {model, None}
    hooks = [body.register_forward_hook(note) for body in bodies]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Head:
    """What a causal model does with the last states of its body: its own forward pass without the body."""

    whole: Any
    body: Any
    kind: Any
    """Class of the body's output."""

    @classmethod
    def after(cls, network: Generating, model: Network, inputs: dict[str, Any]) -> tuple[Head, Tensor, Any]:
        """The head, what the body makes of rows, (rows, length, size), and the model's output, whose logits are those
        of one position.

        Args:
            network: the model itself; `model`: what is called, with wrappers such as DDP's or DeepSpeed's.
        """
        whole: Any = network.get_base_model() if hasattr(network, "get_base_model") else network
        with watched(whole) as seen:
            output = model(**inputs, use_cache=False, logits_to_keep=1)
        if not seen:
            raise unlike(whole)
        body, of_body = seen[-1]
        return cls(whole, body, type(of_body)), of_body.last_hidden_state, output

    def logits(self, states: Tensor) -> Tensor:
        """Of tokens with these states: (tokens, vocabulary) of (tokens, size)."""
        known, kept = self.kind(last_hidden_state=states[None]), vars(self.body).get("forward")
        options = {"output_router_logits": False} if hasattr(self.whole.config, "output_router_logits") else {}
        self.body.forward = lambda *_, **__: known
        try:
            ids = torch.zeros((1, len(states)), dtype=torch.long, device=states.device)
            logits: Tensor = self.whole.forward(input_ids=ids, use_cache=False, **options).logits[0]
        finally:
            if kept is None:
                del self.body.forward
            else:
                self.body.forward = kept
        return logits

    def trained(self) -> list[Tensor]:
        """The trained weights outside of the body, those that it shares included."""
        of_body = set(self.body.modules())
        outside = (module for module in self.whole.modules() if module not in of_body)
        weights = {id(w): w for module in outside for w in module.parameters(recurse=False) if w.requires_grad}
        return list(weights.values())


@dataclass(frozen=True)
class Side:
    """One of two models, and its states at the tokens that are compared: (tokens, size)."""

    head: Head
    states: Tensor
    last: Tensor
    """Those of the last token of each row: (rows, size)."""

    @classmethod
    def of(cls, network: Generating, model: Network, inputs: dict[str, Any], counts: Tensor) -> tuple[Side, Any]:
        """Of the tokens of rows that count, (rows, length - 1), all but the first; and the model's output.

        Args:
            network, model, inputs: as of `Head.after`.
        """
        head, states, output = Head.after(network, model, inputs)
        return cls(head, states[:, :-1][counts], states[:, -1]), output

    def check(self, output: Any) -> None:
        """Compare the head with the model, whose output this is: logits of the last token of each row.

        Raises:
            TrainerError: UnsupportedModel.
        """
        if not self.is_like(output):
            raise unlike(self.head.whole)

    def is_like(self, output: Any) -> bool:
        """Whether the head, asked alone, gives the logits that `check` compares."""
        with torch.no_grad():
            own, alone = output.logits[:, -1].float(), self.head.logits(self.last).float()
        return own.shape == alone.shape and float((own - alone).abs().mean()) <= _UNLIKE * float(own.std(1).mean())


def summed(student: Side, teacher: Side, temperature: float = 1.0, *, most: int = 0) -> Tensor:
    """The divergence in nats, summed over the tokens and multiplied by the temperature's square, so that its gradient
    keeps its size (Hinton et al., section 2). Only the student has a gradient.

    An embedding that is padded further than the other has logits of no token at its end, which are left out.

    Args:
        most: tokens that any rank has at most: where weights are sharded, all ask their heads equally often.
    """
    pieces = -(-max(len(student.states), most, 1) // CHUNK)
    theirs = teacher.states.detach().tensor_split(pieces)

    def of_piece(index: int, states: Tensor) -> Tensor:
        with torch.no_grad():
            known = teacher.head.logits(theirs[index])
        return of_logits(student.head.logits(states), known, temperature)

    if torch.is_grad_enabled():
        total: Tensor = _Summed.apply(of_piece, pieces, student.states, *student.head.trained())
    else:
        total = torch.stack([of_piece(*piece) for piece in enumerate(student.states.tensor_split(pieces))]).sum()
    return total * temperature**2


class _Summed(torch.autograd.Function):
    """The sum of a function of states over pieces of them. Its gradients are known with its values, so that the heads
    are asked once."""

    @staticmethod
    def forward(
        ctx: Any, function: Callable[[int, Tensor], Tensor], pieces: int, states: Tensor, *trained: Tensor
    ) -> Tensor:
        total = states.new_zeros((), dtype=torch.float32)
        slopes, sums = list[Tensor](), [torch.zeros_like(weight, dtype=torch.float32) for weight in trained]
        for index, piece in enumerate(states.tensor_split(pieces)):
            with torch.enable_grad():
                own = piece.detach().requires_grad_()
                value = function(index, own)
            slope, *of_weights = torch.autograd.grad(value, [own, *trained], allow_unused=True)
            total += value.detach()
            slopes.append(slope)
            for known, more in zip(sums, of_weights, strict=True):
                if more is not None:
                    known += more
        ctx.types = [weight.dtype for weight in trained]
        ctx.save_for_backward(torch.cat(slopes), *sums)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slopes, *sums = ctx.saved_tensors
        weights = ((known * grad).to(kind) for known, kind in zip(sums, ctx.types, strict=True))
        return None, None, slopes * grad.to(slopes.dtype), *weights


def of_logits(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) in nats, summed over (tokens, vocabulary)."""
    width = min(student.shape[-1], teacher.shape[-1])
    p = (teacher[:, :width].float() / temperature).log_softmax(-1)
    q = (student[:, :width].float() / temperature).log_softmax(-1)
    return (p.exp() * (p - q)).sum()
