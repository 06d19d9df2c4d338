"""All checked rows of a source as one relation, in DuckDB over the parts: numbered, and with a verdict on each.

Memory is bounded: what does not fit is spilled to the folder. Rows are numbered from 1 in the order of the source.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hone_api.words.failures import FailureCode
from hone_trainer.datasets.engine.arrays import column, indices, numbers
from hone_trainer.datasets.engine.arrays import table as table_of
from hone_trainer.datasets.engine.parts import CheckedPart
from hone_trainer.datasets.readers import columnar, memory
from hone_trainer.datasets.readers.rows import Record
from hone_trainer.errors import SourceError
from hone_trainer.workers import parallel

MEMORY_SHARE = 2
"""DuckDB has the memory that one piece of a file may take, divided by this."""
ARROW_ROWS = 8192
READ_BYTES = 8 * 2**20
"""Of row groups, whose lines are read at once."""
_NO_ROOM = ("No space left on device", "max_temp_directory_size", "failed to offload data block")
_NO_FILE = re.compile(r'(?:match the pattern|open file) "([^"]+)"')
LAST = 255
"""After all steps."""


class WantedRows(NamedTuple):
    """Rows of a part whose lines are wanted: any process can read them."""

    part: CheckedPart
    groups: list[tuple[int, int, Any]]
    """Row groups: number, rows of the source before it, and what a query says of its rows as a batch."""

    def lines(self) -> Iterator[tuple[Any, Any]]:
        """The batches, with an Arrow array of the lines of each."""
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.part.path) as file:
            for group, before, batch in self.groups:
                lines = file.read_row_group(group, columns=["line"], use_threads=False).column("line")
                yield batch, lines.combine_chunks().take(indices(numbers(batch.column("row")) - (before + 1)))


class Relation:
    """The rows. Use it as a context manager.

    Args:
        parts: in the order of the source.
        folder: an empty one for what does not fit in memory.
        max_bytes: bound on the unpacked bytes of a file.

    Raises:
        SourceError: SourceTooLarge: the parts of a file unpack to more than the bound.
    """

    def __init__(self, parts: Sequence[CheckedPart], folder: Path, max_bytes: int) -> None:
        import duckdb

        self.parts = list(_known(parts, max_bytes))
        self.rows = sum(part.rows for part in self.parts)
        self.valid = sum(part.valid for part in self.parts)
        self.step = 0
        """The place of the step that works now."""
        folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory.budget() // MEMORY_SHARE}B",
            "temp_directory": str(folder),
            "threads": min(parallel.cores(), 8),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._connection = duckdb.connect(config=settings)
        self.execute("CREATE TABLE verdicts (row BIGINT, step UTINYINT, reason VARCHAR, other_answer BOOLEAN)")
        self.execute("CREATE TABLE changes (row BIGINT, step UTINYINT, reason VARCHAR)")
        self.execute("CREATE TABLE regrouped (old UBIGINT, new UBIGINT)")
        self.execute("CREATE TABLE bases (file UBIGINT, base BIGINT, lines_before BIGINT)")
        self.insert("bases", dict(zip(("file", "base", "lines_before"), _bases(self.parts), strict=True)))
        if self.parts:
            self.execute(
                "CREATE VIEW checked AS SELECT b.base + r.file_row_number + 1 AS row, lines_before, r.*"
                f" FROM {parquet([part.path for part in self.parts])} r JOIN bases b ON r.file_index = b.file"
            )
            self.execute("CREATE VIEW valid AS SELECT * FROM checked WHERE code IS NULL")

    def __enter__(self) -> Relation:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def execute(self, statement: str, *values: Any) -> Any:
        """Run a statement; gives what has its result.

        Raises:
            OSError: the disk is full.
            MemoryError: the memory is too small, even with the disk.
        """
        with _as_system_errors():
            return self._connection.execute(statement, list(values) if values else None)

    def one(self, statement: str, *values: Any) -> Any:
        """The first column of the first row."""
        return self.all(statement, *values)[0][0]

    def all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows: of results that are small."""
        with _as_system_errors():
            rows: list[tuple[Any, ...]] = self.execute(statement, *values).fetchall()
        return rows

    def stream(self, statement: str) -> Iterator[Any]:
        """The result as Arrow batches. Other statements may run meanwhile."""
        with _as_system_errors():
            cursor = self._connection.cursor()
            yield from cursor.sql(statement).to_arrow_reader(ARROW_ROWS)

    def insert(self, table: str, columns: dict[str, Any]) -> None:
        """Add rows to a table, by its columns in their order."""
        with _as_system_errors():
            self._connection.from_arrow(table_of(columns)).insert_into(table)

    @property
    def left(self) -> str:
        """The rows that the steps before the present one have left, as a relation of SQL."""
        return self.left_by(self.step)

    def left_by(self, step: int) -> str:
        """The rows that steps before this place have left."""
        if not self.one("SELECT count(*) FROM verdicts WHERE step < ?", step):
            return "valid"
        return f"(SELECT * FROM valid ANTI JOIN (SELECT row FROM verdicts WHERE step < {step}) USING (row))"

    def wanted(self, query: str, parts: Sequence[CheckedPart] | None = None, before: int = 0) -> Iterator[WantedRows]:
        """The rows of a query, which has `row`, in order, some at a time.

        Args:
            parts: where these rows are, if they are not ours; before: numbers before theirs.
        """
        import pyarrow.parquet

        ordered, end = _Ordered(self.stream(f"SELECT * FROM ({query}) ORDER BY row")), before
        for part in self.parts if parts is None else parts:
            if part.rows == 0 or not ordered.has(end + part.rows):
                end += part.rows
                continue
            metadata, size = pyarrow.parquet.read_metadata(part.path), 0
            wanted = WantedRows(part, [])
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                start, end = end, end + group.num_rows
                if (batch := ordered.until(end)) is None:
                    continue
                wanted.groups.append((number, start, batch))
                size += group.total_byte_size
                if size >= READ_BYTES:
                    yield wanted
                    wanted, size = WantedRows(part, []), 0
            if wanted.groups:
                yield wanted

    def lines(
        self, query: str, parts: Sequence[CheckedPart] | None = None, before: int = 0
    ) -> Iterator[tuple[Any, Any]]:
        """The same as batches, and for each an Arrow array of the lines of its rows."""
        for wanted in self.wanted(query, parts, before):
            yield from wanted.lines()

    def records(self) -> Iterator[list[tuple[int, Record]]]:
        """The rows that are left, in order, some at a time, with their numbers: for what is not SQL."""
        size = 256
        for batch, lines in self.lines(f"SELECT row FROM {self.left}"):
            for start in range(0, batch.num_rows, size):
                rows, some = (column.slice(start, size).to_pylist() for column in (batch.column("row"), lines))
                yield [(number, json.loads(line)) for number, line in zip(rows, some, strict=True)]

    def remove_rows(self, verdicts: Iterable[tuple[int, str] | tuple[int, str, bool]]) -> None:
        """Remove rows by their numbers, with the reason of each, and whether its answer differs from that of the row
        that stays."""
        every = iter(verdicts)
        while some := list(itertools.islice(every, ARROW_ROWS)):
            data = {"row": [one[0] for one in some], "step": [self.step] * len(some)}
            others = [one[2] if len(one) == 3 else False for one in some]
            self.insert("verdicts", {**data, "reason": [one[1] for one in some], "other_answer": others})

    def regroup(self, groups: dict[int, int], reason: str) -> None:
        """Let the rows of some groups belong to others."""
        import pyarrow

        number = pyarrow.uint64()
        self.insert("regrouped", {"old": column([*groups], number), "new": column([*groups.values()], number)})
        self.execute(
            f"INSERT INTO changes SELECT row, {self.step}, ? FROM {self.left} JOIN regrouped ON grp = old", reason
        )

    def remove(self, query: str, *values: Any) -> None:
        """Remove the rows of a query, which gives row and reason."""
        self.execute(f"INSERT INTO verdicts SELECT row, {self.step}, reason, false FROM ({query})", *values)


def parquet(paths: Sequence[Path]) -> str:
    """Files as a relation of SQL, which also has file_index and file_row_number."""
    listed = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{listed}], hive_partitioning = false)"


def _bases(parts: Sequence[CheckedPart]) -> tuple[list[int], list[int], list[int]]:
    """The number of each part, the rows before it, and the lines of its file before it."""
    bases, lines, rows, before = list[int](), list[int](), 0, 0
    for part in parts:
        before = 0 if part.is_first else before
        bases.append(rows)
        lines.append(before)
        rows, before = rows + part.rows, before + part.lines
    return [*range(len(parts))], bases, lines


class _Ordered:
    """Batches in the order of their rows, to be taken up to a number."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = (batch for batch in batches if batch.num_rows)
        self._held: list[Any] = []

    def has(self, end: int) -> bool:
        """Whether a row is left that is not over a number."""
        if not self._held and (batch := next(self._batches, None)) is not None:
            self._held.append(batch)
        return bool(self._held) and self._held[0].column("row")[0].as_py() <= end

    def until(self, end: int) -> Any:
        """All rows up to a number, as one batch; None if there are none."""
        import numpy
        import pyarrow

        taken = []
        while self.has(end):
            batch = self._held.pop()
            count = int(numpy.searchsorted(numbers(batch.column("row")), end, side="right"))
            taken.append(batch.slice(0, count))
            if count < batch.num_rows:
                self._held.append(batch.slice(count))
                break
        if not taken:
            return None
        return taken[0] if len(taken) == 1 else pyarrow.concat_batches(taken)


def _known(parts: Sequence[CheckedPart], max_bytes: int) -> Iterator[CheckedPart]:
    """The parts without those that go on with a file whose rest is unknown."""
    unpacked, broken = 0, None
    for part in parts:
        if part.is_first:
            unpacked, broken = 0, None
        if broken == part.file:
            continue
        unpacked += part.unpacked
        if unpacked > max_bytes:
            message = f"{part.file}: {columnar.UnpackedBound(max_bytes).error()}"
            raise SourceError(FailureCode.SOURCE_TOO_LARGE, message)
        broken = part.file if part.is_broken else None
        yield part


@contextmanager
def _as_system_errors() -> Iterator[None]:
    """DuckDB's errors of a full disk, too little memory and a missing file as those of the system."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        if any(words in str(error) for words in _NO_ROOM):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            raise MemoryError(str(error).partition("\n")[0]) from error
        if (found := _NO_FILE.search(str(error))) and not Path(found[1]).exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), found[1]) from error
        raise
