"""Materialise a Dataset: source -> validated rows -> splits -> `store`/datasets/<digest>, complete or not there.

Two passes over the rows, both one row at a time: the first normalises into a spool beside a hash, the second divides
the spool. The digest addresses the content of the split files alone: the same rows give the same folder, whenever and
from wherever they came.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from hone_api.dataset import RowError as RowErrorCount
from hone_api.dataset import SplitRows, TokenStatistics
from hone_api.plan import MaterializePlan
from hone_api.report import DatasetResult
from hone_trainer import manifest
from hone_trainer.datasets import detect, sources, splits
from hone_trainer.datasets.read import read_rows
from hone_trainer.datasets.rows import RawRow, Record, RowError
from hone_trainer.datasets.statistics import Duplicates, Lengths
from hone_trainer.errors import ConfigError, DataError, StoreError
from hone_trainer.progress import Progress

SPLITS = ("train", "validation", "test")
REPORT, REJECTED = "report.json", "rejected.jsonl"
_ROWS_NAMED = 10
_REJECTED_LOGGED = 20
_STALE_SECONDS = 24 * 3600


def run(plan: MaterializePlan) -> DatasetResult:
    """Materialise the plan's Dataset, or find that it already is.

    Raises:
        SourceError: the source is missing, unreachable, refused, too large, or not what was promised.
        ConfigError: a field cannot be, or is not supported yet.
        DataError: the rows are not fit; carries the counts.
    """
    _check_plan(plan)
    root = Path(plan.store) / "datasets"
    with Progress(f"dataset {plan.name}") as progress, _work_folder(root) as work:
        download, content = work / "source", work / "content"
        download.mkdir()
        content.mkdir()
        fetched = sources.fetch(plan, download, progress)
        rows = read_rows(fetched.files, plan.limits.max_source_bytes)
        counted = _Counted(plan, fetched.revision)
        with open(work / "spool", "w", encoding="utf-8") as spool, open(content / REJECTED, "w") as rejected:
            _normalise(plan, rows, counted, spool, rejected, progress)
        counted.check_rows()
        counted.splits = _divide(work / "spool", content, counted.division)
        counted.check_splits()
        counted.digest = content_digest(content)
        result = counted.result()
        _write_report(plan, result, content)
        manifest.write(content)
        _publish(content, root / counted.digest.removeprefix("sha256:"))
    progress.say(_summary(plan, result))
    return result


def content_digest(folder: Path) -> str:
    """'sha256:' and the SHA-256 over name, size and SHA-256 of each split file of a materialised folder."""
    found = []
    for name in SPLITS:
        path = folder / f"{name}.jsonl"
        if path.is_file():
            with open(path, "rb") as file:
                found.append([name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()])
    return f"sha256:{hashlib.sha256(json.dumps(found).encode()).hexdigest()}"


def _check_plan(plan: MaterializePlan) -> None:
    problems = []
    if _percent(plan.splits.validation) + _percent(plan.splits.test) > 1:
        problems.append("splits.validation and splits.test are together over 100%")
    if problems:
        raise ConfigError("; ".join(problems))
    if plan.checks.languages:
        raise ConfigError("checks.languages", "NotSupportedYet")


@dataclass
class _Counted:
    """What is known of the rows so far."""

    plan: MaterializePlan
    revision: str
    format: str | None = None
    rows: int = 0
    rejected: int = 0
    errors: dict[str, RowErrorCount] = field(default_factory=dict)
    lengths: Lengths = field(default_factory=Lengths)
    duplicates: Duplicates = field(default_factory=Duplicates)
    splits: dict[str, int] = field(default_factory=dict)
    digest: str | None = None

    def __post_init__(self) -> None:
        self.division = splits.Division.of(self.plan.splits)

    def reject(self, row: RawRow, error: RowError) -> None:
        self.rejected += 1
        message = f"{row.place}: {error}"
        entry = self.errors.setdefault(error.code, RowErrorCount(code=error.code, count=1, example=message[:600]))
        entry.count = entry.count + 1 if entry.rows else 1
        if len(entry.rows) < _ROWS_NAMED:
            entry.rows.append(row.number)

    def result(self) -> DatasetResult:
        tokens: TokenStatistics | None = self.lengths.statistics()
        return DatasetResult(
            digest=self.digest,
            path=f"datasets/{self.digest.removeprefix('sha256:')}" if self.digest else None,
            revision=self.revision,
            format_detected=self.format,
            rows=self.rows,
            splits=[SplitRows(name=name, rows=count) for name, count in self.splits.items()],
            rejected=self.rejected,
            errors=sorted(self.errors.values(), key=lambda error: -error.count),
            duplicates=self.duplicates.count(),
            tokens=tokens,
        )

    def check_rows(self) -> None:
        """Raises DataError: EmptySource, TooManyBadRows or TooFewRows."""
        checks, total = self.plan.checks, self.rows + self.rejected
        if total == 0:
            raise DataError("EmptySource", f"{sources.shown(self.plan.source.uri)} holds no row", self.result())
        if self.rejected > _percent(checks.max_rejected) * total or not self.rows:
            text = f"{self.rejected} of {total} rows are rejected (checks.maxRejected {checks.max_rejected})"
            raise DataError("TooManyBadRows", f"{text}: {self._worst()}", self.result())
        if self.rows < checks.min_rows:
            message = f"{self.rows} valid rows, checks.minRows is {checks.min_rows}"
            raise DataError("TooFewRows", message, self.result())

    def check_splits(self) -> None:
        """Raises DataError: EmptySplit."""
        empty = [name for name in splits.wanted(self.plan.splits) if not self.splits.get(name)]
        if empty:
            message = (
                f"split {' and '.join(empty)} is empty: {self.rows} rows are too few different ones for"
                f" splits.validation {self.plan.splits.validation} and splits.test {self.plan.splits.test}"
                ' ("0%" asks for none)'
            )
            raise DataError("EmptySplit", message, self.result())

    def _worst(self) -> str:
        worst = sorted(self.errors.values(), key=lambda error: -error.count)[:3]
        return "; ".join(f"{e.count} {e.code} (rows {_numbers(e)}), e.g. {e.example}" for e in worst)[:1500]


def _normalise(
    plan: MaterializePlan,
    rows: Iterator[RawRow],
    counted: _Counted,
    spool: IO[str],
    rejected: IO[str],
    progress: Progress,
) -> None:
    """First pass: every row into the spool as '<hash of its group>\\t<record>', or into rejected."""
    head = list(itertools.islice(rows, detect.SAMPLE_ROWS))
    sample = [row.value for row in head if row.value is not None]
    if not sample:  # nothing, or nothing that can be read
        for row in itertools.chain(head, rows):
            counted.reject(row, row.error or RowError("WrongType", "the row is empty"))
        return
    try:
        found = detect.choose(plan.format, plan.columns, sample)
    except DataError as error:
        for row in head:
            if row.error:
                counted.reject(row, row.error)
        raise DataError(error.code, error.message, counted.result()) from None
    counted.format = str(found)[:253]
    for row in itertools.chain(head, rows):
        progress.add_row()
        try:
            if row.value is None:
                raise row.error or RowError("WrongType", "the row is empty")
            record = found.format.normalise(row.value, plan.columns)
            line = _canonical(record)
            group = _group(plan, row.value, line)
        except RowError as error:
            counted.reject(row, error)
            _write_rejected(rejected, row, error)
            if counted.rejected <= _REJECTED_LOGGED:
                progress.say(f"row {row.number} rejected: {error.code}: {row.place}: {error}")
            continue
        value = splits.hash_of(group.encode(), plan.splits.seed)
        spool.write(f"{value:016x}\t{line}\n")
        counted.division.see(value)
        counted.duplicates.see(splits.hash_of(line.encode(), 0))
        counted.lengths.see(record)
        counted.rows += 1


def _divide(spool: Path, folder: Path, division: splits.Division) -> dict[str, int]:
    """Second pass: the spool into one file a split. Gives the rows of each; order is that of the source."""
    division.settle()
    counts: dict[str, int] = {}
    files: dict[str, IO[str]] = {}
    try:
        with open(spool, encoding="utf-8") as lines:
            for entry in lines:
                value, _, line = entry.partition("\t")
                name = division.split_of(int(value, 16))
                if name not in files:
                    files[name] = open(folder / f"{name}.jsonl", "w", encoding="utf-8")  # noqa: SIM115
                files[name].write(line)
                counts[name] = counts.get(name, 0) + 1
    finally:
        for file in files.values():
            file.close()
    return {name: counts[name] for name in SPLITS if name in counts}


def _group(plan: MaterializePlan, row: dict[str, Any], line: str) -> str:
    """What must not cross splits: the value of splits.groupBy, else the row."""
    column = plan.splits.group_by
    if column is None:
        return line
    if row.get(column) is None:
        raise RowError("MissingColumn", f"column {column} (splits.groupBy) is missing")
    try:
        return json.dumps(row[column], sort_keys=True, default=str)
    except ValueError as error:
        raise RowError("WrongType", f"column {column}: {error}") from None


def _canonical(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _write_rejected(file: IO[str], row: RawRow, error: RowError) -> None:
    entry = {"row": row.number, "place": row.place, "code": error.code, "message": str(error), "value": row.value}
    file.write(json.dumps(entry, default=str) + "\n")


def _write_report(plan: MaterializePlan, result: DatasetResult, folder: Path) -> None:
    source = {**plan.source.to_json(), "uri": sources.shown(plan.source.uri)}
    report = {"name": plan.name, "source": source, "splits": plan.splits.to_json()}
    text = json.dumps({**report, "result": result.to_json()}, indent=1, ensure_ascii=False)
    (folder / REPORT).write_text(text + "\n", encoding="utf-8")


@contextmanager
def _work_folder(root: Path) -> Iterator[Path]:
    """A folder of our own in the store (so that the last rename is atomic); those that a killed pod left go."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        for old in root.glob(".work-*"):
            if time.time() - old.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    except PermissionError as error:
        raise StoreError("StorageError", f"the store cannot be written: {error}") from None
    work = root / f".work-{uuid.uuid4().hex}"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(content: Path, target: Path) -> None:
    """Rename into place; a complete folder of the same digest is kept, a damaged one replaced."""
    for _ in range(3):
        try:
            content.rename(target)
            return
        except OSError:
            if not target.is_dir():
                raise
        try:
            manifest.verify(target)
            if content_digest(target) == f"sha256:{target.name}":
                return
        except StoreError:
            pass
        shutil.rmtree(_moved_aside(target), ignore_errors=True)
    raise StoreError("StorageError", f"{target} is damaged and cannot be replaced")


def _moved_aside(target: Path) -> Path:
    aside = target.with_name(f".work-damaged-{uuid.uuid4().hex}")
    target.rename(aside)
    return aside


def _percent(text: str) -> Decimal:
    return Decimal(text.removesuffix("%")) / 100


def _numbers(error: RowErrorCount) -> str:
    more = ", …" if error.count > len(error.rows) else ""
    return ", ".join(map(str, error.rows)) + more


def _summary(plan: MaterializePlan, result: DatasetResult) -> str:
    parts = ", ".join(f"{split.name} {split.rows:,}" for split in result.splits)
    return f"dataset {plan.name}: {parts} rows; {result.rejected} rejected; {result.digest}"
