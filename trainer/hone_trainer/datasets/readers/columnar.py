"""Parquet and Arrow files (IPC file and stream) to rows, a batch at a time, within a bound on bytes and memory."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

from hone_trainer.datasets.readers import memory
from hone_trainer.datasets.readers.items import MAX_ROW_BYTES
from hone_trainer.datasets.readers.rows import RowError

BATCH_ROWS = 256
READ_BYTES = 2**20
STREAM_MARK = b"\xff\xff\xff\xff"
"""A stream of Arrow messages begins with a continuation marker (Arrow columnar format, encapsulated message)."""
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_UNREADABLE = (ValueError, OverflowError, TypeError, ArithmeticError, LookupError, NotImplementedError)
"""What becomes of a value that Python cannot hold, such as a date after the year 9999."""
BATCH_BYTES = 64 * 2**20
"""Unpacked bytes of a batch, as the file declares its rows."""
Batches = Iterator[Any]


class Table(NamedTuple):
    """Rows of a file that are read, but no values of Python yet."""

    kind: str
    """Of the file, for messages."""
    row: int
    """The number of the first row in its file, from 1."""
    batch: Any


class DamagedFileError(Exception):
    """The file ends early or its content differs from its type; row is the first that could not be read."""

    def __init__(self, kind: str, row: int, why: Exception | str) -> None:
        super().__init__(f"the {kind} file is damaged after row {row - 1}: {why}"[:300])
        self.row = row


class UnpackedTooLargeError(Exception):
    """The unpacked file exceeds a limit; the message says which."""


class UnpackedBound:
    """A bound on unpacked bytes, and what is left of it."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    def error(self) -> UnpackedTooLargeError:
        """That more came out."""
        return UnpackedTooLargeError(f"unpacked, it is over {self.most} bytes")


def row_groups(file: IO[bytes], size: int) -> list[tuple[int, int]]:
    """Row groups of a Parquet file, as many together as unpack to this size: (end, rows) of each such run.

    None for a file that is not Parquet, or cannot be read: whoever reads its rows says why.
    """
    import pyarrow.parquet

    runs: list[tuple[int, int]] = []
    try:
        with memory.bounded(memory.budget()), pyarrow.parquet.ParquetFile(file, pre_buffer=False) as reader:
            groups = [reader.metadata.row_group(index) for index in range(reader.num_row_groups)]
            sizes = [(max(0, group.total_byte_size), max(0, group.num_rows)) for group in groups]
    except (pyarrow.ArrowException, OSError, EOFError, UnicodeDecodeError, MemoryError):
        return []
    total = rows = 0
    for index, (mine, count) in enumerate(sizes):
        if rows and total + mine > size:
            runs.append((index, rows))
            total = rows = 0
        total, rows = total + mine, rows + count
    return [*runs, (len(sizes), rows)] if rows else runs


def parquet(
    file: IO[bytes], bound: UnpackedBound, groups: tuple[int, int] | None = None, before: int = 0
) -> Iterator[Table]:
    """Tables of a Parquet file, which must be seekable.

    Args:
        bound: of the unpacked bytes.
        groups: row groups [begin, end) to read; None: all.
        before: rows of the file before these.

    Raises:
        DamagedFileError: after the rows that could be read.
        UnpackedTooLargeError: it unpacks to more than the bound, or some rows at once to more than memory can hold.
    """

    def batches() -> Batches:
        import pyarrow.parquet

        # With pyarrow's default, pre-buffering, the whole file would be in memory.
        with pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=READ_BYTES) as reader:
            every = [reader.metadata.row_group(index) for index in range(reader.num_row_groups)]
            if sum(group.total_byte_size for group in every) > bound.most:
                raise bound.error()
            largest = max((group.total_byte_size // max(1, group.num_rows) for group in every), default=0)
            rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, largest)))
            mine = range(*groups) if groups else None
            yield from map(_decoded, reader.iter_batches(batch_size=rows, row_groups=mine))

    return _tables("Parquet", batches, bound, before)


def arrow_file(file: IO[bytes], bound: UnpackedBound) -> Iterator[Table]:
    """Tables of an Arrow IPC file (Feather version 2), which must be seekable. Errors as `parquet`."""

    def batches() -> Batches:
        import pyarrow
        import pyarrow.ipc

        with pyarrow.ipc.open_file(file) as reader:
            for index in range(reader.num_record_batches):
                yield from _slices(reader.get_batch(index))
            if (written := _written_batches(file)) != reader.num_record_batches:
                raise pyarrow.ArrowInvalid(f"its footer lists {reader.num_record_batches} of {written} batches")

    return _tables("Arrow", batches, bound)


def _written_batches(file: IO[bytes]) -> int:
    """The batches that an IPC file holds, its footer not asked: a file is a stream after eight bytes."""
    import pyarrow.ipc

    file.seek(8)
    messages = pyarrow.ipc.MessageReader.open_stream(file)
    return sum(message.type == "record batch" for message in messages)


def arrow_stream(file: IO[bytes], bound: UnpackedBound) -> Iterator[Table]:
    """Tables of an Arrow IPC stream, as `datasets` saves them. Errors as `parquet`."""

    def batches() -> Batches:
        import pyarrow
        import pyarrow.ipc

        watched = _Watched(file)
        with pyarrow.ipc.open_stream(watched) as reader:
            for batch in reader:
                yield from _slices(batch)
        if watched.last != _END_OF_STREAM:
            raise pyarrow.ArrowInvalid("it ends without its end marker: it was truncated")
        if watched.read(1):
            raise pyarrow.ArrowInvalid("something follows its end marker; write one stream per file")

    return _tables("Arrow", batches, bound)


class _Watched(io.RawIOBase):
    """A stream that knows the last eight bytes that were read."""

    def __init__(self, inner: IO[bytes]) -> None:
        self._inner, self.last = inner, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._inner.read(size)
        self.last = (self.last + data[-8:])[-8:]
        return data


def _slices(batch: Any) -> Batches:
    """A writer's batch can be the whole file: Python objects are made of a part at a time."""
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield _decoded(batch.slice(start, BATCH_ROWS))


def _decoded(batch: Any) -> Any:
    """The batch without dictionaries, whose values count for each row that has them."""
    import pyarrow

    for index, column in enumerate(batch.columns):
        if isinstance(column, pyarrow.DictionaryArray):
            column.validate(full=True)
            batch = batch.set_column(index, batch.schema.names[index], column.dictionary_decode())
    return batch


def _tables(kind: str, batches: Callable[[], Batches], bound: UnpackedBound, before: int = 0) -> Iterator[Table]:
    row = 1 + before
    try:
        for batch in _within(memory.budget(), batches()):
            _check(batch)
            bound.left -= batch.nbytes
            if bound.left < 0:
                raise bound.error()
            _refuse_repeated_names(batch)
            yield Table(kind, row, batch)
            row += batch.num_rows
    except _library_errors() as error:
        raise _failure(kind, row, error) from None


def values(table: Table) -> Iterator[dict[str, Any] | RowError]:
    """The rows of a table.

    Raises:
        DamagedFileError, UnpackedTooLargeError: as `parquet`.
    """
    row, classes = table.row, class_names(table.batch.schema.metadata)
    try:
        for value in _values(table.batch, memory.budget()):
            yield value if isinstance(value, RowError) else _named(value, classes)
            row += 1
    except _library_errors() as error:
        raise _failure(table.kind, row, error) from None


def _library_errors() -> tuple[type[Exception], ...]:
    """What a read ends with when the file is damaged, or declares more than memory can hold."""
    import pyarrow

    return (MemoryError, pyarrow.ArrowException, OSError, EOFError, UnicodeDecodeError)


def _failure(kind: str, row: int, error: Exception) -> Exception:
    """The error as one of ours; row is the first that could not be read."""
    if not isinstance(error, MemoryError):
        return DamagedFileError(kind, row, error)
    what = "a damaged length, or a value that many rows share; write fewer rows to a group, or the rows as JSON Lines"
    return UnpackedTooLargeError(
        f"after row {row - 1} some rows need over {memory.budget() >> 20} MiB of memory: {what}"
    )


def _within(budget: int, batches: Batches) -> Batches:
    """The batches, each made within that many bytes of memory."""
    while True:
        with memory.bounded(budget):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """The names of classes by column, where `datasets` wrote the file: it stores numbers from 0."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        labels = {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    return {name: names for name, names in labels.items() if isinstance(names, list)}


def _named(row: dict[str, Any], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The row with the names of its classes; -1 means no class."""
    for column, names in classes.items():
        number = row.get(column)
        if isinstance(number, int) and number < len(names):
            row[column] = names[number] if number >= 0 else None
    return row


def _refuse_repeated_names(batch: Any) -> None:
    import pyarrow

    names = batch.schema.names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise pyarrow.ArrowInvalid(f"it has the columns {', '.join(repeated)[:100]!r} more than once")


def _check(batch: Any) -> None:
    """Before any value is touched: a damaged offset is an address outside the file's memory.

    Raises:
        pyarrow.ArrowInvalid: the batch is damaged, other than by a text that is not UTF-8.
    """
    import pyarrow

    try:
        batch.validate(full=True)
    except pyarrow.ArrowInvalid:
        _check_all_but_text(batch)


def _values(batch: Any, budget: int) -> Iterator[dict[str, Any] | RowError]:
    """The rows of a batch that was checked."""
    if batch.nbytes <= MAX_ROW_BYTES:
        try:
            with memory.bounded(budget):
                every = batch.to_pylist()
        except _UNREADABLE:
            pass
        else:
            yield from map(_without_padding, every)
            return
    for index in range(batch.num_rows):
        with memory.bounded(budget):
            value = _value(batch.slice(index, 1))
        yield value


def _value(row: Any) -> dict[str, Any] | RowError:
    """The row of a batch of one."""
    if row.nbytes > MAX_ROW_BYTES:
        return RowError("RowTooLarge", f"the row is over {MAX_ROW_BYTES} bytes")
    try:
        return _without_padding(row.to_pylist()[0])
    except UnicodeDecodeError as error:
        return RowError("NotUTF8", f"a text is not UTF-8 at its byte {error.start + 1}")
    except _UNREADABLE as error:
        return RowError("WrongType", f"a value cannot be read: {error}"[:300])


def _check_all_but_text(batch: Any) -> None:
    """Raises pyarrow.ArrowInvalid where something other than the encoding of a text is wrong."""
    for column in batch.columns:
        column.view(_as_bytes(column.type)).validate(full=True)


def _as_bytes(kind: Any) -> Any:
    """The type with bytes in place of texts, which has the same memory layout."""
    import pyarrow
    from pyarrow import types

    if types.is_string(kind):
        return pyarrow.binary()
    if types.is_large_string(kind):
        return pyarrow.large_binary()
    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_as_bytes(field.type)) for field in kind])
    if types.is_list(kind):
        return pyarrow.list_(kind.value_field.with_type(_as_bytes(kind.value_type)))
    if types.is_large_list(kind):
        return pyarrow.large_list(kind.value_field.with_type(_as_bytes(kind.value_type)))
    return kind


def _without_padding(row: dict[str, Any]) -> dict[str, Any]:
    """The row without the nulls inside its objects: Arrow gives every struct of a column every key of them all."""
    return {name: _unpadded(value) if isinstance(value, dict | list) else value for name, value in row.items()}


def _unpadded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unpadded(inner) for key, inner in value.items() if inner is not None}
    return [_unpadded(inner) for inner in value] if isinstance(value, list) else value
