"""How rows of one pass attend, each to itself alone: by which kernel, and why.

transformers' own way is one mask over all tokens x tokens of a pass, which takes attention off the fast kernels and
discards everything but the blocks on the diagonal. Here each layer gets the bounds of the rows instead. What a model
asks of its attention (windows, caps, sinks, biases) is seen in a pass of the loaded model, not looked up by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from hone_trainer.training.batches import reference_varlen

if TYPE_CHECKING:
    from hone_trainer.training.batches.shared_rows import RowGroup

NAME, LOOK = "hone_rows", "hone_look"
FAR = 1 << 20
"""A position so late that a window in front of it is whole. Masks are functions of positions, so none is computed."""
LARGEST_HEAD, LARGEST_HEAD_EVERYWHERE = 256, 192
"""FlashAttention's, and of those whose gradients every card from Ampere on computes."""
LARGEST_HEAD_OF_FLEX = 128
"""FlexAttention's on cards with less shared memory."""
WHOLE_CARDS = {(8, 0), (9, 0), (10, 0)}
"""Compute capabilities whose shared memory suffices for gradients of the largest heads."""
AMPERE = (8, 0)


class AttentionKernel(StrEnum):
    """What computes attention where several rows share a pass."""

    VARLEN = "Varlen"
    FLEX = "Flex"
    ROWS = "Rows"
    MASKS = "Masks"


@dataclass(frozen=True)
class AttentionChoice:
    """A kernel, and why this one, as part of a sentence."""

    kernel: AttentionKernel
    why: str

    @property
    def keeps_rows_apart(self) -> bool:
        """Whether rows need neither padding nor a mask of tokens x tokens."""
        return self.kernel != AttentionKernel.MASKS

    @property
    def is_ours(self) -> bool:
        """Whether attention is computed by `attend`."""
        return self.kernel in (AttentionKernel.VARLEN, AttentionKernel.ROWS)


@dataclass(frozen=True)
class AttentionNeeds:
    """What the layers of a model ask of attention.

    Args:
        layers: calls of transformers' attention interface in a pass.
        features: of softcap, sinks, biases, dropout.
        head: elements of the largest head.
        is_odd: whether the size of a head is not divisible by 8.
        own_mask: whether a layer's mask is neither causal nor causal within the window that the layer names.
    """

    layers: int = 0
    features: frozenset[str] = frozenset()
    head: int = 0
    is_odd: bool = False
    own_mask: bool = False


@dataclass(frozen=True)
class AttentionDevice:
    """What computes: None as capability is a CPU."""

    capability: tuple[int, int] | None
    half: bool
    """Whether the run computes in 16 bits."""
    varlen: bool
    """Whether this torch has `varlen_attn`."""


def card(bf16: bool) -> AttentionDevice:
    """Of this process."""
    import torch

    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    return AttentionDevice(capability, bf16, torch_varlen() is not None)


def torch_varlen() -> Callable[..., Any] | None:
    """torch's `varlen_attn`; None where this torch has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return cast(Callable[..., Any], varlen_attn)


def choose(asked: AttentionNeeds, on: AttentionDevice) -> AttentionChoice:
    """The fastest kernel that computes what the model asks for."""
    if not asked.layers:
        return AttentionChoice(AttentionKernel.MASKS, "its attention does not go through transformers' interface")
    special = asked.features - {"dropout"}
    if on.capability is None:
        if asked.own_mask or "biases" in special:
            return AttentionChoice(AttentionKernel.MASKS, "a layer has a mask or biases of its own")
        if special and "dropout" in asked.features:
            what = " and ".join(sorted(special))
            return AttentionChoice(
                AttentionKernel.MASKS, f"a layer has {what} and dropout, which no kernel takes together"
            )
        return AttentionChoice(AttentionKernel.ROWS, "a CPU computes one row after the other")
    if asked.own_mask or special:
        what = "a mask of its own" if asked.own_mask else " and ".join(sorted(special))
        if on.capability < AMPERE or "dropout" in asked.features or "biases" in special:
            return AttentionChoice(
                AttentionKernel.MASKS, f"a layer has {what}, which no kernel of this card takes with bounds of rows"
            )
        if asked.head > LARGEST_HEAD_OF_FLEX and on.capability not in WHOLE_CARDS:
            return AttentionChoice(
                AttentionKernel.MASKS,
                f"a layer has {what}, and this card may lack shared memory for FlexAttention's gradients of heads "
                f"above {LARGEST_HEAD_OF_FLEX}: the model has {asked.head}",
            )
        return AttentionChoice(AttentionKernel.FLEX, f"a layer has {what}, which varlen_attn does not take")
    if why := _why_not_varlen(asked, on):
        return AttentionChoice(AttentionKernel.ROWS, f"{why}, so SDPA computes one row after the other")
    return AttentionChoice(AttentionKernel.VARLEN, "torch's varlen_attn takes all that the model asks for")


def _why_not_varlen(asked: AttentionNeeds, on: AttentionDevice) -> str:
    assert on.capability is not None
    largest = LARGEST_HEAD if on.capability in WHOLE_CARDS else LARGEST_HEAD_EVERYWHERE
    reasons = {
        "this torch has no varlen_attn": not on.varlen,
        f"varlen_attn needs compute capability 8.0, and the card has {on.capability[0]}.{on.capability[1]}": (
            on.capability < AMPERE
        ),
        "varlen_attn needs training in bfloat16": not on.half,
        "varlen_attn has no dropout": "dropout" in asked.features,
        f"varlen_attn takes heads of up to {largest} on this card, in multiples of 8, and the model has {asked.head}": (
            asked.is_odd or asked.head > largest
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


@contextmanager
def by_row(
    config: Any, choice: AttentionChoice, inputs: Mapping[str, Any], group: RowGroup | None = None
) -> Iterator[None]:
    """Let the model of `config` attend so, in forward and backward (checkpointing runs layers again there).

    Args:
        inputs: of the pass, with `cu_seq_lens_q`: the bounds of its rows, int32 (rows + 1), and `max_length_q`.
        group: ranks that have a part of the tokens each; only where the choice is ours.
    """
    if choice.kernel == AttentionKernel.MASKS:
        yield
        return
    from transformers import AttentionInterface

    bounds = inputs["cu_seq_lens_q"]
    if choice.kernel == AttentionKernel.FLEX and bounds.device.type != "cpu":
        with _attention(config, "flex_attention"):  # transformers' own, whose masks know the rows by their positions
            yield
        return
    AttentionInterface.register(NAME, _attend_in_pass)  # not registered with masks: transformers makes none
    passed = PassRows.of(bounds, int(inputs["max_length_q"]), choice.kernel)
    _PASSES.append(replace(passed, group=group, tokens=inputs["input_ids"].shape[1]) if group else passed)
    try:
        with _attention(config, NAME):
            yield
    finally:
        _PASSES.pop()


def is_by_row(config: Any) -> bool:
    """Whether the model of `config` attends by row now: in a pass, or between it and its backward pass."""
    return bool(config.get_text_config()._attn_implementation == NAME)


@contextmanager
def _attention(config: Any, name: str) -> Iterator[None]:
    text = config.get_text_config()
    before = text._attn_implementation
    text._attn_implementation = name
    try:
        yield
    finally:
        text._attn_implementation = before


@dataclass(frozen=True)
class PassRows:
    """The rows of a pass.

    Args:
        bounds: int32 (rows + 1), on the device.
        lengths: of the rows, on the host; None where a kernel takes the bounds.
        group: ranks that have a part of the tokens each; None: this rank has all.
        tokens: of all parts.
    """

    bounds: Any
    longest: int
    lengths: list[int] | None = None
    group: RowGroup | None = None
    tokens: int = 0

    @classmethod
    def of(cls, bounds: Any, longest: int, kernel: AttentionKernel) -> PassRows:
        """Read once a pass, so that no layer waits for the device."""
        return cls(bounds, longest, None if kernel == AttentionKernel.VARLEN else bounds.diff().tolist())


_PASSES: list[PassRows] = []
"""That are computed now, the innermost last: others may run between a pass and its backward pass."""


def _attend_in_pass(*args: Any, **options: Any) -> tuple[Any, None]:
    return attend(_PASSES[-1], *args, **options)


def attend(
    rows: PassRows,
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Any = None,
    **_: Any,
) -> tuple[Any, None]:
    """As transformers calls it.

    Args:
        query: (1, heads, tokens, size); key and value: (1, key heads, tokens, size); the tokens of this rank.

    Returns:
        (1, tokens, heads, size), and no weights.
    """
    assert attention_mask is None
    where = f"the bounds of the rows are on {rows.bounds.device}, and the queries on {query.device}"
    assert rows.lengths is not None or rows.bounds.device == query.device, where
    query, key, value = (x[0].transpose(0, 1) for x in _alike(query, key, value))
    if group := rows.group:
        heads = query.shape[1]
        query, key, value = (group.to_heads(x, rows.tokens, heads) for x in (query, key, value))
        s_aux = None if s_aux is None else group.of_my_heads(s_aux)
    options: dict[str, Any] = {
        "scale": scaling or 1 / math.sqrt(query.shape[-1]),
        "window_size": (-1 if sliding_window is None else sliding_window - 1, 0),
        "enable_gqa": True,
    }
    kernel: Callable[..., Any] = _fused
    if rows.lengths is not None:
        kernel = reference_varlen.varlen_attn
        options |= {"dropout": dropout, "softcap": softcap, "sinks": s_aux, "lengths": rows.lengths}
    bounds = (rows.bounds, rows.bounds, rows.longest, rows.longest)
    result = kernel(query, key, value, *bounds, **options)
    return (group.to_tokens(result) if group else result)[None], None


def _alike(query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    """In the type of autocast, which knows SDPA and not the other kernels: norms in float32 make float32 of a query."""
    import torch

    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    return query.to(dtype), key.to(dtype), value.to(dtype)


def _fused(query: Any, key: Any, value: Any, *bounds: Any, **options: Any) -> Any:
    """torch's kernel, which wants value heads as large as those of queries: latent attention has smaller ones."""
    import torch

    kernel = torch_varlen() if query.is_cuda else reference_varlen.varlen_attn
    assert kernel is not None
    size, most = value.shape[-1], query.shape[-1]
    if size < most:
        value = torch.nn.functional.pad(value, (0, most - size))
    return kernel(query, key, value, *bounds, **options)[..., :size]


# What a model asks for


class AttentionEye:
    """Stands in for the attention of a model in one pass, and keeps what its layers ask for."""

    def __init__(self) -> None:
        self._masks: list[tuple[Any, int | None]] = []
        self._asked: list[AttentionNeeds] = []

    @property
    def asked(self) -> AttentionNeeds:
        """Of all layers."""
        seen = self._asked
        return AttentionNeeds(
            len(seen),
            frozenset().union(*(layer.features for layer in seen)),
            max((layer.head for layer in seen), default=0),
            any(layer.is_odd for layer in seen),
            any(layer.own_mask for layer in seen),
        )

    @contextmanager
    def watching(self, config: Any) -> Iterator[None]:
        """Until it ends, layers compute zeros."""
        from transformers import AttentionInterface, AttentionMaskInterface

        AttentionInterface.register(LOOK, self._attend)
        AttentionMaskInterface.register(LOOK, self._mask)
        with _attention(config, LOOK):
            yield

    def _mask(self, *, mask_function: Any, **options: Any) -> Any:
        from transformers.masking_utils import sdpa_mask

        skips = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        made = sdpa_mask(mask_function=mask_function, **options | skips)
        self._masks.append((made, window_of(mask_function)))
        return made

    def _attend(
        self,
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any,
        *,
        dropout: float = 0.0,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: Any = None,
        position_bias: Any = None,
        **_: Any,
    ) -> tuple[Any, None]:
        has = {"softcap": softcap, "sinks": s_aux, "biases": position_bias, "dropout": dropout or None}
        heads = query.shape[-1], value.shape[-1]
        windows = [window for mask, window in self._masks if _is_same(mask, attention_mask)]
        named = sliding_window if sliding_window and sliding_window < FAR else None
        self._asked.append(
            AttentionNeeds(
                1,
                frozenset(name for name, given in has.items() if given is not None),
                max(heads),
                any(size % 8 for size in heads),
                windows[:1] != [named or FAR],
            )
        )
        batch, heads_of_query, tokens, _ = query.shape
        return value.new_zeros(batch, tokens, heads_of_query, value.shape[-1]), None


def window_of(mask_function: Any) -> int | None:
    """Tokens that a token sees, itself included: `FAR` for all before it, None without one."""
    import torch

    zero, seen = torch.tensor(0), set()
    for position in (FAR, FAR - FAR // 3):
        keys = torch.arange(position + 2)
        try:
            mask = mask_function(zero, zero, torch.tensor(position), keys)
        except (IndexError, RuntimeError):  # it reads a tensor of the pass
            return None
        visible = mask.expand(keys.shape).nonzero().flatten()
        first = int(visible[0]) if len(visible) else 0
        if len(visible) != position + 1 - first or int(visible[-1]) != position:
            return None
        seen.add(FAR if first == 0 else len(visible))
    return seen.pop() if len(seen) == 1 else None


def _is_same(mask: Any, other: Any) -> bool:
    """Whether a layer got the mask as it was made."""
    return other is not None and mask.data_ptr() == other.data_ptr() and mask.shape == other.shape
