"""Padded rows, where a model computes only their tokens.

Methods give a model padded rows and read outputs of that shape. Between its embeddings and its head, which is where the
time goes, the model gets the tokens of all rows as one row, which attend by the bounds of the rows (see `attention`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.models.network import Generating
from hone_trainer.training.batches import attention
from hone_trainer.training.batches.attention import AttentionChoice

TWICE = (
    "the loss takes two forward passes before a backward pass, which would compute the layers of the first again with "
    "the rows of the second: set training.activationCheckpointing to None"
)
"""Why a method's step is refused; none of today's has two."""


@dataclass(frozen=True)
class Places:
    """Where the tokens of padded rows are.

    Args:
        places: of the tokens among all positions, (tokens) on the model's device.
        inputs: what a model gets besides the tokens, as TRL's collator has it for rows without padding.
    """

    shape: tuple[int, int]
    places: Any
    inputs: dict[str, Any]

    @classmethod
    def of(cls, mask: Any) -> Places:
        """Of an attention mask, (rows, width), which the host reads once."""
        import torch

        on_host = mask.cpu().bool()
        lengths = on_host.sum(1)
        lengths = lengths[lengths > 0]
        ends = lengths.cumsum(0)
        bounds = torch.nn.functional.pad(ends, (1, 0)).to(torch.int32)
        starts = torch.repeat_interleave(ends - lengths, lengths)
        numbers = torch.repeat_interleave(torch.arange(len(lengths), dtype=torch.int32), lengths)
        tensors = {"position_ids": (torch.arange(len(starts)) - starts)[None], "seq_idx": numbers[None]}
        tensors |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
        inputs = {name: tensor.to(mask.device, non_blocking=True) for name, tensor in tensors.items()}
        longest = int(lengths.max())
        places = on_host.flatten().nonzero()[:, 0].to(mask.device, non_blocking=True)
        return cls(tuple(mask.shape), places, inputs | {"max_length_q": longest, "max_length_k": longest})

    def taken(self, padded: Any) -> Any:
        """The tokens of (rows, width) as one row."""
        return padded.flatten()[self.places][None]

    def put_back(self, output: Any) -> Any:
        """An output of the pass in the shape of the padded rows, 0 where no token is: of one row, of tokens in no rows
        (routers), or several of them."""
        if isinstance(output, tuple | list):
            return type(output)(self.put_back(part) for part in output)
        (rows, width), tokens, shape = self.shape, len(self.places), _shape(output) or ()
        if shape[:2] == (1, tokens):
            return self._spread(output[0]).view(rows, width, *shape[2:])
        return self._spread(output) if shape[:1] == (tokens,) else output

    def _spread(self, of_tokens: Any) -> Any:
        rows, width = self.shape
        return of_tokens.new_zeros(rows * width, *of_tokens.shape[1:]).index_copy(0, self.places, of_tokens)


class Unpadded:
    """A model, with or without PEFT's wrapper, whose passes of padded rows compute no padding from now on.

    Passes with a cache are left as they are, and so are rows of one length and rows that come without a mask.
    """

    def __init__(self, model: Generating, choice: AttentionChoice) -> None:
        body = body_of(model)
        self._config, self._choice, self._body = model.config, choice, body
        self._padded = body.forward
        parameters = inspect.signature(self._padded).parameters
        self._names = list(parameters)
        self._takes_more = any(one.kind == one.VAR_KEYWORD for one in parameters.values())
        self._held: ExitStack | None = None
        self._has_pass = False
        """Whether a pass with gradients has begun since `with_backward`."""
        body.forward = self._forward

    def also(self, model: Generating) -> None:
        """Another model of the same kind."""
        Unpadded(model, self._choice)

    @contextmanager
    def with_backward(self) -> Iterator[None]:
        """Passes with gradients attend as they did until this ends: layers may be run again in the backward pass."""
        self._has_pass = False
        try:
            with ExitStack() as self._held:
                yield
        finally:
            self._held = None

    def _forward(self, *args: Any, **options: Any) -> Any:
        import torch

        options |= dict(zip(self._names, args, strict=False))
        ids, mask = options.get("input_ids"), options.get("attention_mask")
        has_cache = options.get("use_cache") or options.get("past_key_values") is not None
        if ids is None or mask is None or mask.shape != ids.shape or has_cache:
            return self._padded(**options)
        places = Places.of(mask)
        if len(places.places) == mask.numel() and not attention.is_by_row(self._config):
            return self._padded(**options)
        of_tokens = {name: places.taken(value) for name, value in options.items() if _shape(value) == ids.shape}
        inputs = {**of_tokens, **places.inputs, "attention_mask": None, "use_cache": False}
        options |= {name: value for name, value in inputs.items() if self._takes_more or name in self._names}
        attending = attention.by_row(self._config, self._choice, places.inputs)
        if self._held is not None and torch.is_grad_enabled():
            if self._has_pass and any(getattr(part, "gradient_checkpointing", False) for part in self._body.modules()):
                raise TrainerError(FailureCode.TRAINER_ERROR, TWICE)
            self._has_pass = True
            self._held.enter_context(attending)
            output = self._padded(**options)
        else:
            with attending:
                output = self._padded(**options)
        if isinstance(output, tuple):
            return places.put_back(output)
        for name, value in output.items():
            output[name] = places.put_back(value)
        return output


def _shape(value: Any) -> Any:
    return getattr(value, "shape", None)


def body_of(model: Generating) -> Any:
    """The part of a model before its head."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model
