"""Rows that several ranks compute together: each has a part of the tokens, and in attention all tokens for a part of
the heads (Ulysses: Jacobs et al. 2023, arXiv 2309.14509). So a rank holds a part of the activations of a row.

The ranks of a group have the same batches. Parts need not be equally long, so nothing is padded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hone_trainer import ranks
from hone_trainer.encoding.row import IGNORED


@dataclass(frozen=True)
class RowGroup:
    """This rank among those that share its rows.

    Args:
        group: of torch.distributed.
        size: ranks of the group, which are neighbours.
    """

    group: Any
    size: int

    @classmethod
    def of(cls, size: int, timeout: float) -> RowGroup:
        """A collective of all ranks.

        Args:
            timeout: seconds that a rank waits for the others.
        """
        return cls(dist.new_subgroups(size, timeout=timedelta(seconds=timeout))[0], size)

    @property
    def place(self) -> int:
        """Of this rank in the group."""
        return ranks.rank() % self.size

    def deal(self, loader: Any) -> None:
        """Let a prepared loader give the ranks of a group the same batches."""
        shard = loader.batch_sampler
        shard.num_processes, shard.process_index = shard.num_processes // self.size, shard.process_index // self.size

    def filled(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The pass with a token for each rank: where it has fewer, as the last piece of a document may, a row of tokens
        that do not count is behind its own."""
        shape = inputs["input_ids"].shape
        if (missing := self.size - shape[1]) <= 0:
            return inputs
        whole = {"attention_mask": torch.ones_like(inputs["input_ids"]), **inputs}
        for name, value in whole.items():
            if _shape(value) == shape:
                fill = IGNORED if name == "labels" else 0
                whole[name] = torch.nn.functional.pad(value, (0, missing), value=fill)
        bounds = inputs["cu_seq_lens_q"]
        longest = max(int(inputs["max_length_q"]), missing)
        whole |= dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), torch.cat([bounds, bounds[-1:] + missing]))
        return whole | dict.fromkeys(("max_length_q", "max_length_k"), longest)

    def part(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """This rank's tokens of a pass, with the bounds of whole rows. The label of a token is the next one, which may
        be in the part of another rank."""
        assert "cu_seq_lens_q" in inputs, "a pass without bounds of rows cannot be divided"
        whole = dict(inputs)
        if "labels" in whole:
            whole["shift_labels"] = torch.nn.functional.pad(whole.pop("labels")[:, 1:], (0, 1), value=IGNORED)
        shape = whole["input_ids"].shape
        return {name: self.mine(value) if _shape(value) == shape else value for name, value in whole.items()}

    def mine(self, of_tokens: Tensor) -> Tensor:
        """This rank's part of (1, tokens, ...)."""
        return of_tokens.tensor_split(self.size, dim=1)[self.place]

    def to_heads(self, of_part: Tensor, tokens: int, heads: int) -> Tensor:
        """From (tokens of the part, heads, size) to (all tokens, heads of this rank, size).

        Args:
            heads: of the queries. Keys of fewer heads than can be divided are repeated for each of them.
        """
        if heads % self.size:
            raise ValueError(f"{heads} attention heads cannot be divided among {self.size} ranks")
        if of_part.shape[1] % self.size:
            of_part = of_part.repeat_interleave(heads // of_part.shape[1], 1)
        parts = of_part.unflatten(1, (self.size, -1)).transpose(0, 1).flatten(0, 1)
        return self._exchange(parts, [len(of_part)] * self.size, self._lengths(tokens))

    def to_tokens(self, of_heads: Tensor) -> Tensor:
        """Back. Contiguous, as attention of one rank: some families take a view of it."""
        lengths = self._lengths(len(of_heads))
        mine = lengths[self.place]
        parts = self._exchange(of_heads, lengths, [mine] * self.size)
        return parts.unflatten(0, (self.size, mine)).transpose(0, 1).flatten(1, 2).contiguous()

    def of_my_heads(self, of_heads: Tensor) -> Tensor:
        """Of what there is for each head, that of this rank's heads."""
        return of_heads.tensor_split(self.size)[self.place]

    def _lengths(self, tokens: int) -> list[int]:
        """Of all parts, as `tensor_split` makes them."""
        return [tokens // self.size + (place < tokens % self.size) for place in range(self.size)]

    def _exchange(self, tensor: Tensor, sent: list[int], received: list[int]) -> Tensor:
        result: Tensor = _Exchange.apply(tensor, sent, received, self.group)
        return result


class OtherRankError(Exception):
    """Another rank has an error, and exchanges nothing."""


class Asking(RowGroup):
    """A group in which the ranks ask each other before each exchange whether one of all ranks has an error."""

    def _exchange(self, tensor: Tensor, sent: list[int], received: list[int]) -> Tensor:
        if ranks.any_rank(False):
            raise OtherRankError
        return super()._exchange(tensor, sent, received)


class _Exchange(torch.autograd.Function):
    """Sends parts of the first dimension to the ranks of a group; the gradients go back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sent: list[int], received: list[int], group: Any) -> Tensor:
        ctx.back = received, sent, group
        result = tensor.new_empty(sum(received), *tensor.shape[1:])
        dist.all_to_all_single(result, tensor.contiguous(), received, sent, group=group)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _Exchange.apply(gradient, *ctx.back), None, None, None


def _shape(value: Any) -> Any:
    return getattr(value, "shape", None)
