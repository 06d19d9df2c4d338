"""Examples as Arrow columns, and back. Token ids take as few bytes as the vocabulary needs. Labels and masks are not a
second copy of the ids, but runs: begin and end of each stretch of tokens that counts.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from hone_trainer.encoding.preferences import Judged, Pair
from hone_trainer.encoding.prompts import Prompt
from hone_trainer.encoding.row import IGNORED, Row
from hone_trainer.encoding.split_file import Example

KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Row, Pair, Judged, Prompt)}
"""What a file of encoded rows can hold, by the name in its schema."""
IDS = ("input_ids", "prompt_ids", "chosen_ids", "rejected_ids", "completion_ids")
MASKS = {"labels": "input_ids", "chosen_mask": "chosen_ids", "rejected_mask": "rejected_ids", "mask": "completion_ids"}
"""Fields that are kept as runs, and the ids whose tokens they count."""
RUNS = pa.list_(pa.int32())
PLAIN = {"number": pa.uint32(), "label": pa.bool_(), "record": pa.binary()}
TOGETHER = 32
"""Records that are compressed together, at the place of the first of them: they repeat the prompt's tokens as text."""
_KIND, _VOCABULARY = b"hone.kind", b"hone.vocabulary"


def schema(kind: str, vocabulary: int) -> pa.Schema:
    """The columns of examples of one kind, named as their fields.

    Args:
        vocabulary: ids are below it.
    """
    of_ids = pa.list_(pa.uint16() if vocabulary <= 2**16 else pa.uint32())
    types = {**dict.fromkeys(IDS, of_ids), **dict.fromkeys(MASKS, RUNS), **PLAIN}
    columns = [(field.name, types[field.name]) for field in fields(KINDS[kind])]
    return pa.schema(columns, metadata={_KIND: kind.encode(), _VOCABULARY: str(vocabulary).encode()})


class OutsideVocabulary(Exception):  # noqa: N818 - its handler says which example it is
    """A token id is not below the vocabulary."""


def batch(examples: Sequence[Example], vocabulary: int) -> pa.RecordBatch:
    """Examples of one kind as a batch.

    Raises:
        OutsideVocabulary: a token id is not below `vocabulary`.
    """
    kind = type(examples[0]).__name__
    of = schema(kind, vocabulary)
    return pa.record_batch([_column(field, examples, vocabulary) for field in of], schema=of)


def _column(field: pa.Field, examples: Sequence[Any], vocabulary: int) -> pa.Array:
    values = [getattr(example, field.name) for example in examples]
    if field.name in IDS:
        return _lists(values, field.type, vocabulary)
    if field.name == "labels":
        return _label_runs(values)
    if field.name in MASKS:
        return pa.array([None if mask is None else _runs(np.array(mask) == 1) for mask in values], RUNS)
    if field.name == "record":
        return pa.array(_compressed(values), field.type)
    if field.name == "number":
        return _numbers(np.fromiter(values, np.uint32, len(values)), field.type)
    return pa.array(values, field.type)


def _numbers(values: Any, of: pa.DataType) -> pa.Array:
    """An array of numbers. `pa.array` imports pandas first, which takes 0.4 s of each process."""
    content = np.ascontiguousarray(values, of.to_pandas_dtype())
    return pa.Array.from_buffers(of, len(content), [None, pa.py_buffer(content)])


def _compressed(records: Sequence[Any]) -> list[bytes | None]:
    """The records as JSON, in blocks of `TOGETHER`: the size of the JSON in 4 bytes, and what zstd makes of it."""
    blocks: list[bytes | None] = [None] * len(records)
    for start in range(0, len(records), TOGETHER):
        text = json.dumps(records[start : start + TOGETHER], ensure_ascii=False).encode()
        blocks[start] = struct.pack("=I", len(text)) + pa.compress(text, codec="zstd", asbytes=True)
    return blocks


def _lists(values: Sequence[Sequence[int]], of: pa.DataType, vocabulary: int) -> pa.Array:
    flat = _flat(values)
    if flat.size and flat.max() >= vocabulary:
        raise OutsideVocabulary
    return pa.ListArray.from_arrays(_numbers(_offsets(values), pa.int32()), _numbers(flat, of.value_type))


def _label_runs(labels: Sequence[Sequence[int]]) -> pa.Array:
    """The runs of all rows at once: where what is trained begins and ends, counted from the first token of the row."""
    offsets = _offsets(labels)
    counts = _flat(labels) != IGNORED
    before = np.concatenate([[False], counts[:-1]])
    after = np.concatenate([counts[1:], [False]])
    before[offsets[:-1]] = False
    after[offsets[1:] - 1] = False
    begins, ends = np.flatnonzero(counts & ~before), np.flatnonzero(counts & ~after) + 1
    row = np.searchsorted(offsets, begins, side="right") - 1
    flat = np.stack([begins - offsets[row], ends - offsets[row]], axis=1).ravel()
    starts = np.concatenate([[0], np.cumsum(2 * np.bincount(row, minlength=len(labels)))])
    return pa.ListArray.from_arrays(_numbers(starts, pa.int32()), _numbers(flat, pa.int32()))


def _runs(counts: Any) -> list[int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], counts.astype(np.int8), [0]])))
    return [int(edge) for edge in edges]


def _flat(values: Sequence[Sequence[int]]) -> Any:
    # `struct` reads a list twice as fast as numpy does.
    return np.frombuffer(b"".join([struct.pack(f"={len(value)}i", *value) for value in values]), np.int32)


def _offsets(values: Sequence[Sequence[int]]) -> Any:
    return np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int32)


class Batch:
    """The examples of a batch, each made when it is asked for. Nothing of the batch's memory is copied before."""

    def __init__(self, record_batch: pa.RecordBatch) -> None:
        self._batch = record_batch
        self._kind = KINDS[record_batch.schema.metadata[_KIND].decode()]

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def flags(self, name: str) -> Any:
        """A column of truth values, as a numpy array."""
        return self._batch.column(name).to_numpy(zero_copy_only=False)

    def example(self, index: int) -> Example:
        """The example at `index` of the batch."""
        fields: dict[str, Any] = {}
        for name, read in self._readers.items():
            fields[name] = read(index)
        for name, ids in MASKS.items():
            if name in fields:
                fields[name] = _unrolled(name, fields[name], fields[ids])
        example: Example = self._kind(**fields)
        return example

    @cached_property
    def _readers(self) -> dict[str, Callable[[int], Any]]:
        """How each field of an example is read."""
        columns = {field.name: self._batch.column(i) for i, field in enumerate(self._batch.schema)}
        return {name: _reader(name, column) for name, column in columns.items()}


def _reader(name: str, column: pa.Array) -> Callable[[int], Any]:
    if name in IDS or name in MASKS:
        values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
        missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None

        def read(index: int) -> list[int] | None:
            if missing is not None and missing[index]:
                return None
            tokens: list[int] = values[offsets[index] : offsets[index + 1]].tolist()
            return tokens

        return read
    if name == "record":
        return _Records(column)
    return lambda index: column[index].as_py()


class _Records:
    """Reads compressed records, and keeps the block that was read last."""

    def __init__(self, column: pa.Array) -> None:
        self._column, self._start, self._block = column, -1, list[Any]()

    def __call__(self, index: int) -> Any:
        if (start := index - index % TOGETHER) != self._start:
            data = memoryview(self._column[start].as_buffer())
            (size,) = struct.unpack("=I", data[:4])
            text = pa.decompress(data[4:], size, codec="zstd", asbytes=True)
            self._start, self._block = start, json.loads(text)
        return self._block[index - start]


def _unrolled(name: str, runs: list[int] | None, ids: list[int]) -> list[int] | None:
    """Labels, or a mask; None as it is: every token counts."""
    if runs is None:
        return None
    is_label = name == "labels"
    values = [IGNORED if is_label else 0] * len(ids)
    for begin, end in zip(runs[::2], runs[1::2], strict=True):
        values[begin:end] = ids[begin:end] if is_label else [1] * (end - begin)
    return values
