"""Rows as read to valid rows with their keys, or refused with a reason, each by itself. Workers do this.

Workers read pieces of files themselves (`pieces`); what the numbers and lines of a piece begin with is known to the
process that gets all of them in order. That process reads for them what they cannot (`shipping`).
"""

from __future__ import annotations

import itertools
import json
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hone_api.plan import MaterializePlan
from hone_api.words.failures import FailureCode
from hone_trainer.datasets import batches, columnar, pieces, read, shipping
from hone_trainer.datasets.curation import personal_data
from hone_trainer.datasets.detect import Detected
from hone_trainer.datasets.pieces import Piece, PieceRows
from hone_trainer.datasets.read import DataFile
from hone_trainer.datasets.rows import RawRow, RowError, canonical
from hone_trainer.datasets.shipping import RowsRead, Shipped
from hone_trainer.datasets.spool import ValidRow
from hone_trainer.datasets.statistics import check_length
from hone_trainer.errors import SourceError
from hone_trainer.workers.parallel import Workers

_HELD = 16
"""Batches of a piece that are sent at once, unless it is a range of lines; the others wait on disk."""
_MOST_SENT = 32 * 2**20
"""Bytes of the rows of small files that a worker of another pod sends: packed, they may hold a thousand times more."""


class RefusedRow(NamedTuple):
    """A row that is not valid, as people may see it: without personal data."""

    row: RawRow
    error: RowError


class Check:
    """What the plan and the format of its rows ask of each row."""

    def __init__(self, plan: MaterializePlan, detected: Detected) -> None:
        self._plan, self._detected = plan, detected

    def rows(self, batch: Sequence[batches.Packed]) -> list[ValidRow | RefusedRow]:
        """For each row a valid one, or the reason why it is not."""
        return [self._row(read.parsed(batches.unpacked(row))) for row in batch]

    def _row(self, row: RawRow) -> ValidRow | RefusedRow:
        plan = self._plan
        try:
            if row.value is None:
                raise row.error or RowError("WrongType", "the row is empty")
            record = self._detected.normalise(row.value)
            check_length(record, plan.checks.max_tokens)
            keys = (_group(plan, row.value), _label(plan, row.value), _stratum(plan, row.value))
            return ValidRow(row.number, canonical(record), *keys)
        except RowError as error:
            return refused(row, self._shown(error, row), plan)

    def _shown(self, error: RowError, row: RawRow) -> RowError:
        """The error as the row without personal data has it: messages quote the beginning of what they are about."""
        value = personal_data.redacted(row.value, self._plan)
        if value is row.value:
            return error
        try:
            self._detected.normalise(value)
        except RowError as clean:
            return clean
        return error


class Checked(Protocol):
    """The checked rows of a piece."""

    def rows(self) -> Iterator[ValidRow | RefusedRow]:
        """All of them, once."""
        ...

    @property
    def lines(self) -> int:
        """As `PieceRows`, after the last row."""
        ...

    @property
    def unpacked(self) -> int:
        """As `PieceRows`, after the last row."""
        ...


class Sent(NamedTuple):
    """The checked rows of a piece as a worker sends them, by batches."""

    held: list[list[ValidRow | RefusedRow]]
    rest: Path | None = None
    """More of them, which this file has one after the other."""
    lines: int = 0
    unpacked: int = 0
    is_over: bool = False
    """Whether they are none because they are too many to be sent."""
    stored: bytes | None = None
    """The same rows as they are kept for another attempt."""

    def rows(self) -> Iterator[ValidRow | RefusedRow]:
        """All rows; the file goes after the last one."""
        yield from itertools.chain.from_iterable(self.held)
        if self.rest is not None:
            with open(self.rest, "rb") as file:
                while file.peek(1):
                    yield from pickle.load(file)
            self.rest.unlink()


Store = Callable[[Shipped, Sent], bytes]


class _Streamed:
    """The checked rows of a piece that is read meanwhile."""

    def __init__(self, check: Check, rows: PieceRows) -> None:
        self._check, self._rows = check, rows

    def rows(self) -> Iterator[ValidRow | RefusedRow]:
        for row in self._rows:
            yield from self._check.rows([row])

    @property
    def lines(self) -> int:
        return self._rows.lines

    @property
    def unpacked(self) -> int:
        return self._rows.unpacked


class PieceCheck:
    """Reads and checks pieces of files.

    Args:
        folder: for the rows of pieces that are too large for memory.
        max_bytes: bound on the unpacked bytes of a file.
        store: makes what is kept of an item; None: nothing is.
    """

    def __init__(self, check: Check, folder: Path, max_bytes: int, store: Store | None = None) -> None:
        self._check, self._folder, self.max_bytes, self._store = check, folder, max_bytes, store

    def sent(self, item: Shipped) -> Sent:
        """The checked rows of a piece: what a worker does.

        Raises:
            SourceError, StoreError: as `read.raw_rows`.
        """
        if isinstance(item, RowsRead):
            return self._stored(item, Sent([self._check.rows(item.rows)], unpacked=item.unpacked))
        rows = PieceRows(item, self.max_bytes)
        if item.contents is not None:
            return self._stored(item, self._bounded(rows))
        done = map(self._check.rows, batches.of_raw_rows(rows))
        held = list(done if item.is_loaded or item.lines else itertools.islice(done, _HELD))
        rest = self._waiting(done)
        return self._stored(item, Sent(held, rest, rows.lines, rows.unpacked))

    def _stored(self, item: Shipped, sent: Sent) -> Sent:
        """With the rows as they are kept, if all of them are there."""
        if self._store is None or sent.rest is not None or sent.is_over:
            return sent
        return sent._replace(stored=self._store(item, sent))

    def _bounded(self, rows: PieceRows) -> Sent:
        held, size = [], 0
        for batch in batches.of_raw_rows(rows):
            if (size := size + sum(map(batches.size, batch))) > _MOST_SENT:
                return Sent([], is_over=True)
            held.append(self._check.rows(batch))
        return Sent(held)

    def _waiting(self, done: Iterator[list[ValidRow | RefusedRow]]) -> Path | None:
        """The file with these batches, if there are any."""
        if (first := next(done, None)) is None:
            return None
        self._folder.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            for batch in itertools.chain([first], done):
                pickle.dump(batch, file, pickle.HIGHEST_PROTOCOL)
        return Path(file.name)

    def rows(self, items: Iterable[Shipped], workers: Workers) -> Iterator[ValidRow | RefusedRow]:
        """The rows of all items in order, with their numbers and places in the source.

        Raises:
            SourceError, StoreError: as `read.raw_rows`.
        """
        return placed(self.checked(items, workers), self.max_bytes)

    def checked(self, items: Iterable[Shipped], workers: Workers) -> Iterator[tuple[Shipped, Checked]]:
        """Each item with its rows, as they are in it. Errors as `rows`."""
        if workers.count == 1:
            return ((item, self._streamed(item)) for item in items)
        return ((item, self._all(item, sent)) for item, sent in workers.map(self.sent, items))

    def _all(self, item: Shipped, sent: Sent) -> Checked:
        return self._streamed(item._replace(contents=None)) if sent.is_over and isinstance(item, Piece) else sent

    def _streamed(self, item: Shipped) -> Checked:
        """Without a batch in memory: no other process gets it."""
        return _Streamed(self._check, PieceRows(item, self.max_bytes)) if isinstance(item, Piece) else self.sent(item)

    def shared(self, files: Sequence[DataFile], workers: Workers) -> Iterator[Shipped]:
        """The files as workers take them: what they cannot read is read here.

        Raises:
            SourceError, StoreError: as `read.raw_rows`.
        """
        for piece in pieces.pieces(files, self.max_bytes):
            yield from self.parts(piece, workers, len(files) == 1)

    def parts(self, piece: Piece, workers: Workers, is_alone: bool) -> Iterator[Shipped]:
        """A piece as workers take it; is_alone: its file is the only one. Errors as `shared`."""
        if workers.count == 1 or not (workers.are_elsewhere or (is_alone and piece.is_whole)):
            return iter([piece])
        if workers.are_elsewhere and (piece.lines or piece.is_small):
            return iter([piece.loaded()])
        return shipping.parts(piece, self.max_bytes)

    def read(self, rows: Iterable[RawRow]) -> Iterator[RowsRead]:
        """Rows that are not in files."""
        return map(RowsRead, batches.of_raw_rows(rows))


def placed(checked: Iterable[tuple[Shipped, Checked]], max_bytes: int) -> Iterator[ValidRow | RefusedRow]:
    """Rows with the numbers and lines that those before them give."""
    total = base = lines = unpacked = 0
    broken: DataFile | None = None
    for item, taken in checked:
        piece = item if isinstance(item, Piece) else item.piece
        if isinstance(item, Piece) or item.begins:
            base = total
        if piece and piece.is_first:
            broken, lines, unpacked = None, 0, 0
        for row in taken.rows():
            if broken:  # which rows the file has after this place is unknown
                continue
            total += 1
            yield _moved(row, base, lines)
            if piece and piece.may_be_last and isinstance(row, RefusedRow) and row.error.code == "BrokenFile":
                broken = piece.files[0]
        lines, unpacked = lines + taken.lines, unpacked + taken.unpacked
        if piece:
            _refuse_over(piece, unpacked, max_bytes)


def _refuse_over(piece: Piece, unpacked: int, max_bytes: int) -> None:
    if unpacked > max_bytes:
        message = f"{piece.files[0].name}: {columnar.UnpackedBound(max_bytes).error()}"
        raise SourceError(FailureCode.SOURCE_TOO_LARGE, message)


def _moved(row: ValidRow | RefusedRow, numbers: int, lines: int) -> ValidRow | RefusedRow:
    """The row after so many rows, and so many lines of its file."""
    if isinstance(row, ValidRow):
        return ValidRow(row.number + numbers, row.line, row.group, row.label, row.stratum) if numbers else row
    raw = row.row
    place = f"{raw.place}:{raw.at + lines}" if raw.at else raw.place
    return RefusedRow(replace(raw, number=raw.number + numbers, place=place, at=0), row.error)


def unreadable(rows: Iterable[RawRow], plan: MaterializePlan) -> Iterator[RefusedRow]:
    """Refuse rows without a value."""
    return (refused(row, row.error or RowError("WrongType", "the row is empty"), plan) for row in rows)


def refused(row: RawRow, error: RowError, plan: MaterializePlan) -> RefusedRow:
    """Row and error without personal data."""
    place = personal_data.redact_message(row.place, plan)
    shown = replace(row, value=personal_data.redacted(row.value, plan), place=place, error=None)
    return RefusedRow(shown, RowError(error.code, personal_data.redact_message(str(error), plan)))


def _group(plan: MaterializePlan, row: dict[str, Any]) -> str:
    """What must not cross splits: the value of splits.groupBy; empty: the row alone."""
    column = plan.splits.group_by
    return "" if column is None else _value(row, column, "splits.groupBy")


def _label(plan: MaterializePlan, row: dict[str, Any]) -> str:
    """The value that curation.balance counts."""
    balance = plan.curation.balance
    return "" if balance is None else _value(row, balance.column, "curation.balance")


def _stratum(plan: MaterializePlan, row: dict[str, Any]) -> str:
    """The value whose proportions every split keeps."""
    column = plan.splits.stratify_by
    return "" if column is None else _value(row, column, "splits.stratifyBy")


def _value(row: dict[str, Any], column: str, field: str) -> str:
    if row.get(column) is None:
        raise RowError("MissingColumn", f"column {column} ({field}) is missing")
    try:
        return json.dumps(row[column], sort_keys=True, default=str)
    except ValueError as error:
        raise RowError("WrongType", f"column {column}: {error}") from None
