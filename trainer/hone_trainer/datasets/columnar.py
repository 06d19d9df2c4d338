"""Parquet and Arrow files (IPC file and stream) to rows, a batch at a time."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import IO, Any

from hone_trainer.datasets.items import MAX_ROW_BYTES
from hone_trainer.datasets.rows import RowError

BATCH_ROWS = 256
READ_BYTES = 2**20
STREAM_MARK = b"\xff\xff\xff\xff"
"""A stream of Arrow messages begins with a continuation mark (Arrow columnar format, encapsulated message)."""
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_UNREADABLE = (ValueError, OverflowError, TypeError, ArithmeticError, LookupError, NotImplementedError)
"""What becomes of a value that Python cannot hold, such as a date after the year 9999."""
Batches = Iterator[Any]


class DamagedError(Exception):
    """The file ends early or is not what its first bytes say; row is the first that could not be read."""

    def __init__(self, kind: str, row: int, why: Exception | str) -> None:
        super().__init__(f"the {kind} file is damaged after row {row - 1}: {why}"[:300])
        self.row = row


def parquet(file: IO[bytes]) -> Iterator[Any]:
    """Rows of a Parquet file, which must be seekable.

    Raises:
        DamagedError: after the rows that could be read.
    """

    def batches() -> Batches:
        import pyarrow.parquet

        # Buffered ahead, which is pyarrow's default, the whole file comes to lie in memory.
        with pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=READ_BYTES) as found:
            yield from found.iter_batches(batch_size=BATCH_ROWS)

    return _rows("Parquet", batches)


def arrow_file(file: IO[bytes]) -> Iterator[Any]:
    """Rows of an Arrow IPC file (Feather version 2), which must be seekable. Errors as `parquet`."""

    def batches() -> Batches:
        import pyarrow
        import pyarrow.ipc

        with pyarrow.ipc.open_file(file) as found:
            for index in range(found.num_record_batches):
                yield from _slices(found.get_batch(index))
            if (written := _written_batches(file)) != found.num_record_batches:
                raise pyarrow.ArrowInvalid(f"its footer lists {found.num_record_batches} of {written} batches")

    return _rows("Arrow", batches)


def _written_batches(file: IO[bytes]) -> int:
    """The batches that an IPC file holds, its footer not asked: a file is a stream after eight bytes."""
    import pyarrow.ipc

    file.seek(8)
    messages = pyarrow.ipc.MessageReader.open_stream(file)
    return sum(message.type == "record batch" for message in messages)


def arrow_stream(file: IO[bytes]) -> Iterator[Any]:
    """Rows of an Arrow IPC stream, as `datasets` saves them. Errors as `parquet`."""

    def batches() -> Batches:
        import pyarrow
        import pyarrow.ipc

        watched = _Watched(file)
        with pyarrow.ipc.open_stream(watched) as found:
            for batch in found:
                yield from _slices(batch)
        if watched.last != _END_OF_STREAM:
            raise pyarrow.ArrowInvalid("it ends without its end mark: it was cut")
        if watched.read(1):
            raise pyarrow.ArrowInvalid("something follows its end mark; write one stream a file")

    return _rows("Arrow", batches)


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
        yield batch.slice(start, BATCH_ROWS)


def _rows(kind: str, batches: Callable[[], Batches]) -> Iterator[Any]:
    import pyarrow

    row = 1
    try:
        for batch in batches():
            _refuse_repeated_names(batch)
            for value in _values(batch):
                yield value
                row += 1
    except (pyarrow.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise DamagedError(kind, row, error) from None
    except MemoryError:  # a damaged length
        raise DamagedError(kind, row, "a part of it asks for more memory than there is") from None


def _refuse_repeated_names(batch: Any) -> None:
    import pyarrow

    names = batch.schema.names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise pyarrow.ArrowInvalid(f"it has the columns {', '.join(repeated)[:100]!r} more than once")


def _values(batch: Any) -> Iterator[dict[str, Any] | RowError]:
    """The rows of a batch, checked before any is touched: a damaged offset is an address outside the file's memory.

    Raises:
        pyarrow.ArrowInvalid: the batch is damaged.
    """
    import pyarrow

    try:
        batch.validate(full=True)
    except pyarrow.ArrowInvalid:
        _check_all_but_text(batch)
    if batch.nbytes <= MAX_ROW_BYTES:
        try:
            values = batch.to_pylist()
        except _UNREADABLE:
            pass
        else:
            yield from map(_without_padding, values)
            return
    for index in range(batch.num_rows):
        yield _value(batch.slice(index, 1))


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
