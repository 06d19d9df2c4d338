"""Checked rows as they are kept: a compressed Arrow stream for each item, whose batches say what is not in a row."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hone_trainer.datasets.checked import RefusedRow, Sent
from hone_trainer.datasets.pieces import Piece
from hone_trainer.datasets.read import DataFile
from hone_trainer.datasets.rows import RawRow, RowError
from hone_trainer.datasets.shipping import RowsRead, Shipped
from hone_trainer.datasets.spool import ValidRow

_TEXTS = ("line", "group", "label", "stratum")
_GROUPS = (0, 0)
_ITEM, _END = "item", "end"
"""Metadata of the first batch of an item, and of the last one."""


class RowStream:
    """A stream that is written.

    Args:
        item: whose rows it has.
    """

    def __init__(self, file: Any, item: Shipped) -> None:
        import pyarrow

        options = pyarrow.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        self._stream = pyarrow.ipc.new_stream(file, _schema(), options=options)
        self._about = {_ITEM: _stub(item)}

    def write(self, rows: Sequence[ValidRow | RefusedRow]) -> None:
        """Add rows."""
        self._stream.write_batch(_batch(rows), custom_metadata=self._about)
        self._about = {}

    def close(self, rows: Sequence[ValidRow | RefusedRow], lines: int, unpacked: int) -> None:
        """Add the last rows, and what `Checked` knows after them."""
        self._about[_END] = json.dumps([lines, unpacked])
        self.write(rows)
        self._stream.close()


def stream(item: Shipped, sent: Sent) -> bytes:
    """The rows that a worker sends, as a stream."""
    file = io.BytesIO()
    written = RowStream(file, item)
    for rows in sent.held[:-1]:
        written.write(rows)
    written.close(sent.held[-1] if sent.held else [], sent.lines, sent.unpacked)
    return file.getvalue()


def load() -> None:
    """Load what `stream` needs: workers that are forked later do not load it each by itself, which takes a second."""
    _batch([])


class Kept:
    """The checked rows of an item, as they are read from its stream."""

    def __init__(self, reader: Any, batch: Any, about: dict[str, str]) -> None:
        self._reader, self._batch, self._about = reader, batch, about
        self.lines = self.unpacked = 0

    def rows(self) -> Iterator[ValidRow | RefusedRow]:
        """All of them, once."""
        batch, about = self._batch, self._about
        while True:
            yield from _rows(batch)
            if _END in about:
                self.lines, self.unpacked = json.loads(about[_END])
                return
            batch, about = _next(self._reader)


def items(path: Path) -> Iterator[tuple[Shipped, Kept]]:
    """What the streams of a file have; the rows of one must be taken before the next one."""
    import pyarrow.ipc

    with pyarrow.OSFile(str(path)) as file:
        while file.tell() < file.size():
            with pyarrow.ipc.open_stream(file) as reader:
                batch, about = _next(reader)
                yield _item(about[_ITEM]), Kept(reader, batch, about)
                if next(reader, None) is not None:
                    raise ValueError(f"{path.name}: rows follow the last ones of their item")


def _next(reader: Any) -> tuple[Any, dict[str, str]]:
    """The next batch, and what is known of it."""
    batch, about = reader.read_next_batch_with_custom_metadata()
    batch.validate(full=True)
    return batch, {key.decode(): value.decode() for key, value in (about or {}).items()}


def _schema() -> Any:
    """Of the batches: fields of `ValidRow`, and of a refused row what it is, as JSON."""
    import pyarrow

    texts = [(name, pyarrow.string()) for name in (*_TEXTS, "refused")]
    return pyarrow.schema([("number", pyarrow.int64()), *texts])


def _batch(rows: Sequence[ValidRow | RefusedRow]) -> Any:
    """The rows as a batch."""
    import pyarrow

    valid = [row if isinstance(row, ValidRow) else ValidRow(row.row.number, "") for row in rows]
    columns: list[list[Any]] = [[row.number for row in valid]]
    columns += [[row.line for row in valid], [row.group for row in valid]]
    columns += [[row.label for row in valid], [row.stratum for row in valid]]
    columns += [[None if isinstance(row, ValidRow) else _refused(row) for row in rows]]
    arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, _schema(), strict=True)]
    return pyarrow.record_batch(arrays, schema=_schema())


def _rows(batch: Any) -> Iterator[ValidRow | RefusedRow]:
    """The rows of a batch."""
    for *fields, refused in zip(*(column.to_pylist() for column in batch.columns), strict=True):
        yield ValidRow(*fields) if refused is None else _row_refused(fields[0], refused)


def _stub(item: Shipped) -> str:
    """What the place of an item's rows depends on."""
    piece = item if isinstance(item, Piece) else item.piece
    begins = None if isinstance(item, Piece) else item.begins
    assert piece is not None, "rows that are in no file are not kept"
    return json.dumps([piece.files[0].name, piece.is_first, piece.may_be_last, begins])


def _item(stub: str) -> Shipped:
    """An item whose rows have the same places; it has no rows."""
    name, is_first, may_be_last, begins = json.loads(stub)
    piece = Piece([DataFile(Path(), name)], groups=_GROUPS if may_be_last else None, is_first=is_first)
    return piece if begins is None else RowsRead([], piece, begins)


def _refused(refused: RefusedRow) -> str:
    row, error = refused
    # Reports and files write the value as JSON in the same way.
    return json.dumps([row.place, row.at, row.value, error.code, str(error)], default=str)


def _row_refused(number: int, text: str) -> RefusedRow:
    place, at, value, code, message = json.loads(text)
    return RefusedRow(RawRow(number, place, value, at=at), RowError(code, message))
