"""Rows as read to valid rows with their keys, or refused with a reason, each by itself: a piece to a part.

Any process makes any part: what the numbers and lines of a piece begin with is known once all parts are there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.curation import personal_data
from hone_trainer.datasets.curation.base import Each, Sketching
from hone_trainer.datasets.engine.arrays import column, merged, of_numbers
from hone_trainer.datasets.engine.features import Features, features
from hone_trainer.datasets.engine.parts import GROUP_BYTES, GROUP_ROWS, CheckedPart, PartWriter
from hone_trainer.datasets.engine.plain import Plain, PlainRows
from hone_trainer.datasets.formats.detect import Detected
from hone_trainer.datasets.readers import read
from hone_trainer.datasets.readers.pieces import Block, Piece, PieceRows
from hone_trainer.datasets.readers.rows import RawRow, RowError, canonical, strict_json
from hone_trainer.datasets.splits.splits import hash_of
from hone_trainer.datasets.texts.statistics import check_length
from hone_trainer.datasets.texts.texts import ValidRow
from hone_trainer.store.part_folder import PartFolder

BATCH_ROWS, BATCH_BYTES = 256, 2**20
"""That steps of the curation judge at once."""


class RefusedRow(NamedTuple):
    """A row that is not valid, as people may see it: without personal data."""

    row: RawRow
    error: RowError


class Check:
    """What the plan and the format of its rows ask of each row."""

    def __init__(self, plan: MaterializePlan, detected: Detected | None) -> None:
        """detected: None where none of the first rows can be read."""
        self._plan, self._detected = plan, detected
        self._has_keys = bool(plan.splits.group_by or plan.splits.stratify_by or plan.curation.balance)

    def row(self, raw: RawRow) -> ValidRow | RefusedRow:
        """A valid row, or the reason why it is not."""
        plan = self._plan
        value = raw.value if raw.line is None else _value_of(raw.line)
        row = raw if value is not None else read.parsed(raw)
        try:
            if value is None or self._detected is None:
                raise row.error or RowError("WrongType", "the row is empty")
            record = self._detected.normalise(value)
            line = canonical(record)
            if '"tool' in line:  # of tools and calls, values may be other objects than their JSON has
                record = json.loads(line)
            keys = self._keys_of(value) if self._has_keys else ()
            valid = ValidRow(line, record, *keys)
            if plan.checks.max_tokens is not None:
                check_length(valid.texts, plan.checks.max_tokens)
            return valid
        except RowError as error:
            row = read.parsed(row)
            return refused(row, self._shown(error, row), plan)

    def plain(self, is_exact: bool) -> PlainRows | None:
        """What checks plain rows some thousand at a time, and finds the same; None: they cannot be plain."""
        if self._detected is None or self._has_keys or not PlainRows.can_be(self._detected):
            return None
        return PlainRows(self._detected, self._plan.splits.seed, self._plan.checks.max_tokens, is_exact)

    def _keys_of(self, value: dict[str, Any]) -> tuple[str, str, str]:
        return _group(self._plan, value), _label(self._plan, value), _stratum(self._plan, value)

    def _shown(self, error: RowError, row: RawRow) -> RowError:
        """The error as the row without personal data has it: messages quote the beginning of what they are about."""
        value = personal_data.redacted(row.value, self._plan)
        if value is row.value or self._detected is None:
            return error
        try:
            self._detected.normalise(value)
        except RowError as clean:
            return clean
        return error


def _value_of(line: bytes) -> dict[str, Any] | None:
    """The object of a line; None where it has none, or something is wrong."""
    try:
        value = strict_json(line.decode())
    except ValueError:
        return None
    return value if type(value) is dict else None


class Normalised(Check):
    """Of rows that are normalised already, as lines of canonical JSON."""

    def row(self, raw: RawRow) -> ValidRow | RefusedRow:
        """The valid row."""
        line = (raw.line or b"").decode()
        return ValidRow(line, json.loads(line))


class _Judged:
    """A row that was checked, and what the steps that judge each row by itself say of it."""

    __slots__ = ("changed", "changed_by", "reason", "row", "step")

    def __init__(self, row: ValidRow | RefusedRow) -> None:
        self.row = row
        self.step: int | None = None
        self.reason: str | None = None
        self.changed: str | None = None
        self.changed_by: int | None = None


class PartMaker:
    """Makes parts.

    Args:
        each: the steps that judge each row by itself, by their place among all steps.
        sketching: what near duplicates are found by; None: they are not looked for.
        is_exact: whether exact duplicates are looked for.
        folder: of the parts.
        max_bytes: bound on the unpacked bytes of a file.
        is_packed: whether parts are compressed.
    """

    def __init__(
        self,
        check: Check,
        plan: MaterializePlan,
        each: dict[int, Each],
        sketching: Sketching | None,
        is_exact: bool,
        folder: PartFolder,
        max_bytes: int,
        is_packed: bool = True,
    ) -> None:
        self._check, self._plan, self._each, self._sketching = check, plan, each, sketching
        self._is_exact, self.folder, self.max_bytes, self._is_packed = is_exact, folder, max_bytes, is_packed
        balance = plan.curation.balance
        self._balance = plan.curation.seed if balance else None
        self._plain = None if each or sketching else check.plain(is_exact)

    def make(self, task: tuple[int, str, Piece]) -> CheckedPart:
        """The part of a piece, by index and key: what a worker does.

        Raises:
            SourceError, StoreError: as `read.raw_rows`.
        """
        index, key, piece = task
        rows = PieceRows(piece, self.max_bytes)
        about = {"file": piece.files[0].name, "is_first": piece.is_first}
        is_kept = bool(self.folder.identity)
        with PartWriter(self.folder.path, index, key, self.schema(), is_kept, self._is_packed) as writer:
            counts = self._write(writer, rows.blocks())
            is_broken = piece.groups is not None and counts.pop("is_broken")
            counts.pop("is_broken", None)
            return writer.finish(
                {**about, **counts, "lines": rows.lines, "unpacked": rows.unpacked, "is_broken": is_broken}
            )

    def of_rows(self, index: int, rows: Iterable[RawRow]) -> CheckedPart:
        """The part of rows that are in no file."""
        with PartWriter(self.folder.path, index, "0" * 32, self.schema(), False) as writer:
            counts = self._write(writer, [rows], is_made=True)
            counts.pop("is_broken")
            return writer.finish({"file": "", "is_first": True, **counts})

    def schema(self) -> Any:
        """Of a part, as a `pyarrow.Schema`."""
        return schema(self._sketching.columns if self._sketching else 0)

    def _write(self, writer: PartWriter, blocks: Iterable[Iterable[RawRow]], is_made: bool = False) -> dict[str, int]:
        """is_made: whether rows have numbers of their own."""
        counts = {"rows": 0, "valid": 0, "is_broken": False}
        for block in blocks:
            if self._plain is None or is_made:
                self._write_rows(writer, block, is_made, counts)
                continue
            for rows in self._plain.portions(block):
                if plain := self._plain.of(rows):
                    self._write_plain(writer, rows, plain, counts)
                else:
                    self._write_rows(writer, rows, is_made, counts)
        return counts

    def _write_plain(
        self, writer: PartWriter, rows: Block | Sequence[RawRow], plain: Plain, counts: dict[str, int]
    ) -> None:
        import pyarrow

        fields, count = [*self.schema()], plain.rows - len(plain.others)
        columns = [plain.columns.get(field.name) for field in fields]
        arrays = [
            pyarrow.nulls(count, field.type) if one is None else one for one, field in zip(columns, fields, strict=True)
        ]
        counts["rows"] += plain.rows
        counts["valid"] += count
        if plain.others:
            others = list[tuple[Any, ...]]()
            for at, line in plain.others.items():
                row = self._check.row(rows.row(at, line) if isinstance(rows, Block) else rows[at])
                if isinstance(row, RefusedRow):
                    others.append(_refused_columns(row, False))
                    counts["is_broken"] = row.error.code == "BrokenFile"
                else:
                    counts["valid"] += 1
                    others.append(self._valid_columns(row, _Judged(row)))
            listed = [
                column(values, field.type) for values, field in zip(zip(*others, strict=True), fields, strict=True)
            ]
            arrays = merged(arrays, listed, [*plain.others])
        writer.write(arrays)

    def _write_rows(self, writer: PartWriter, rows: Iterable[RawRow], is_made: bool, counts: dict[str, int]) -> None:
        group, size = list[tuple[Any, ...]](), 0
        sketches: list[Any] = []

        def flush() -> None:
            if group:
                writer.write([*zip(*group, strict=True), *self._columns(sketches)])
                group.clear()
                sketches.clear()

        for batch in self._batches(map(self._check.row, rows)):
            self._judge(batch)
            if self._sketching:
                sketches.append(self._sketches(batch))
            for judged in batch:
                row = judged.row
                counts["rows"] += 1
                if isinstance(row, RefusedRow):
                    group.append(_refused_columns(row, is_made))
                    counts["is_broken"] = row.error.code == "BrokenFile"
                else:
                    counts["valid"] += 1
                    group.append(self._valid_columns(row, judged))
                size += len(group[-1][0])
            if size >= GROUP_BYTES or len(group) >= GROUP_ROWS:
                flush()
                size = 0
        flush()

    def _batches(self, rows: Iterable[ValidRow | RefusedRow]) -> Iterator[list[_Judged]]:
        batch, size = list[_Judged](), 0
        for row in rows:
            batch.append(_Judged(row))
            size += len(row.line) if isinstance(row, ValidRow) else 0
            if size >= BATCH_BYTES or len(batch) == BATCH_ROWS:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _judge(self, batch: Sequence[_Judged]) -> None:
        for place, step in self._each.items():
            left = [(one, one.row) for one in batch if one.step is None and isinstance(one.row, ValidRow)]
            verdicts = step.judged([row for _, row in left])
            for (one, _), (row, removed, changed) in zip(left, verdicts, strict=True):
                one.row = row
                if changed is not None:
                    one.changed, one.changed_by = changed, place
                if removed is not None:
                    one.step, one.reason = place, removed

    def _sketches(self, batch: Sequence[_Judged]) -> Any:
        """Sketches of the valid rows; of the others as well, so that each row has its place."""
        import numpy

        assert self._sketching
        hashes = numpy.zeros((self._sketching.columns, len(batch)), dtype=numpy.uint64)
        valid = [(at, one.row) for at, one in enumerate(batch) if isinstance(one.row, ValidRow)]
        if valid:
            hashes[:, [at for at, _ in valid]] = self._sketching.sketches([row for _, row in valid])
        return hashes

    def _columns(self, sketches: Sequence[Any]) -> list[Any]:
        if not sketches:
            return []
        import numpy

        return [*map(of_numbers, numpy.concatenate(sketches, axis=1))]

    def _valid_columns(self, row: ValidRow, judged: _Judged) -> tuple[Any, ...]:
        line = row.line.encode()
        content = hash_of(line, 0)
        seed = self._plan.splits.seed
        group = hash_of(row.group.encode(), seed) if row.group else content if seed == 0 else hash_of(line, seed)
        balance = None if self._balance is None else hash_of(line, self._balance)
        columns = features(row.record, row.texts, self._is_exact)
        return (
            row.line, None, None, None, None, 0,
            group, content, len(line), row.label or None, row.stratum or None, balance,
            judged.step, judged.reason, judged.changed, judged.changed_by,
            *columns,
        )  # fmt: skip


_NO_FEATURES = (None,) * (len(Features._fields))
_FIRST: tuple[str, ...] = (
    "line",
    "code",
    "message",
    "place",
    "number",
    "place_line",
    "grp",
    "content",
    "size",
    "label",
    "stratum",
)
_FIRST += ("balance", "step", "reason", "changed", "changed_by")


def _refused_columns(bad: RefusedRow, is_made: bool) -> tuple[Any, ...]:
    row, error = bad
    # As JSON, which has no half of a surrogate pair; reports and files write it in the same way.
    value = json.dumps(row.value, default=str)
    return (
        value,
        error.code,
        json.dumps(str(error)),
        json.dumps(row.place),
        row.number if is_made else None,
        row.at,
        *(None,) * (len(_FIRST) - 6),
        *_NO_FEATURES,
    )


def schema(sketch_columns: int) -> Any:
    """Of a part, as a `pyarrow.Schema`; sketch_columns: how many hashes near duplicates are found by."""
    import pyarrow

    text, number, small = pyarrow.string(), pyarrow.uint64(), pyarrow.uint32()
    types = {
        "number": pyarrow.int64(),
        "place_line": small,
        "grp": number,
        "content": number,
        "size": small,
        "balance": number,
        "step": pyarrow.uint8(),
        "changed_by": pyarrow.uint8(),
    }
    types |= {"length": small, "exact": number, "question": number, "answer_hash": number, "flags": small}
    types |= {"untrained": small, "asked": number, "better": small, "worse": small}
    names = (*_FIRST, *Features._fields)
    sketches = [(f"sketch{at}", number) for at in range(sketch_columns)]
    return pyarrow.schema([(name, types.get(name, text)) for name in names] + sketches)


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
