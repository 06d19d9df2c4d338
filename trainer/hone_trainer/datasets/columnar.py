"""Parquet and Arrow files (IPC file and stream) to rows, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any

BATCH_ROWS = 256
READ_BYTES = 2**20
STREAM_MARK = b"\xff\xff\xff\xff"
"""A stream of Arrow messages begins with a continuation mark (Arrow columnar format, encapsulated message)."""
Batches = Iterator[Any]


class DamagedError(Exception):
    """The file ends early or is not what its first bytes say; row is the first that could not be read."""

    def __init__(self, kind: str, row: int, why: Exception) -> None:
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
        import pyarrow.ipc

        with pyarrow.ipc.open_file(file) as found:
            for index in range(found.num_record_batches):
                yield from _slices(found.get_batch(index))

    return _rows("Arrow", batches)


def arrow_stream(file: IO[bytes]) -> Iterator[Any]:
    """Rows of an Arrow IPC stream, as `datasets` saves them. Errors as `parquet`."""

    def batches() -> Batches:
        import pyarrow.ipc

        with pyarrow.ipc.open_stream(file) as found:
            for batch in found:
                yield from _slices(batch)

    return _rows("Arrow", batches)


def _slices(batch: Any) -> Batches:
    """A writer's batch can be the whole file: Python objects are made of a part at a time."""
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)


def _rows(kind: str, batches: Callable[[], Batches]) -> Iterator[Any]:
    import pyarrow

    row = 1
    try:
        for batch in batches():
            for value in batch.to_pylist():
                yield value
                row += 1
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        raise DamagedError(kind, row, error) from None
