"""Which rows of the data are in a batch, for messages about a run that has failed.

A batch carries token ids and no row numbers, so rows are found by their ids: one walk over all rows, in the memory of
one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from hone_trainer.encoding import mapped
from hone_trainer.encoding.split_file import Example

ANSWERS = ("chosen", "rejected")
"""Prefixes of ORPO's columns, which has one for each answer."""


def numbers(inputs: Any, rows: Sequence[Example]) -> list[int]:
    """Line numbers in the data file of the rows in a batch.

    Args:
        inputs: a batch as a trainer gives it to `training_step`: padded, packed, of pairs, PPO's rollouts, or GRPO's
            list of prompts.
        rows: all rows of the run.
    """
    if isinstance(inputs, Sequence) and not isinstance(inputs, str):
        return list(dict.fromkeys(rows[prompt["row"]].number for prompt in inputs if "row" in prompt))
    inputs = getattr(inputs, "prompts", inputs)
    if not isinstance(inputs, Mapping):
        return []
    sequences = set(_sequences(inputs))
    if not sequences:
        return []
    likely = np.flatnonzero(np.isin(mapped.lengths(rows), [len(ids) for ids in sequences]))
    return list(dict.fromkeys(row.number for i in likely if _is_among(row := rows[int(i)], sequences)))


def tokens(inputs: Any) -> tuple[int, Any]:
    """Tokens that the pass of a batch computes, and how many of them are of rows, as a number or on the device; 0
    where it has none yet, as GRPO's list of prompts."""
    computed, useful = 0, 0
    for name, ids in inputs.items() if isinstance(inputs, Mapping) else ():
        if str(name).endswith("input_ids"):
            mask = inputs.get(f"{name.removesuffix('input_ids')}attention_mask")
            computed += ids.numel()
            useful = useful + (ids.numel() if mask is None else mask.sum())
    return computed, useful


def _is_among(row: Example, sequences: set[tuple[int, ...]]) -> bool:
    return any(tuple(ids) in sequences for ids in row.sequences)


def _sequences(inputs: Mapping[str, Any]) -> Iterator[tuple[int, ...]]:
    """Token ids of each sequence, without padding."""
    for prefix in ("", *(f"{answer}_" for answer in ANSWERS)):
        ids, mask = inputs.get(f"{prefix}input_ids"), inputs.get(f"{prefix}attention_mask")
        if ids is None:
            continue
        if mask is not None:
            yield from (tuple(i[m.bool()].tolist()) for i, m in zip(ids, mask, strict=True))
        elif "cu_seq_lens_q" in inputs:
            yield from (tuple(ids[0][a:b].tolist()) for a, b in pairwise(inputs["cu_seq_lens_q"].tolist()))
