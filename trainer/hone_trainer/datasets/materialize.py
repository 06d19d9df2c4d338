"""Materialize a Dataset: source -> valid rows -> curated -> splits -> `store`/datasets/<digest>, complete or not there.

Two passes over the rows, neither with all of them in memory: the first normalises and curates into a spool with a hash,
the second divides the spool. Workers do what needs one row alone; this process reads, writes, and keeps the order, so
that every file is the same for any number of workers. The digest addresses the content of the split files alone: the
same rows give the same folder, whenever and from wherever they came.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from hone_api.base.wording import counted
from hone_api.contract.report import DatasetResult
from hone_api.plan import MaterializePlan
from hone_trainer.datasets import (
    batches,
    changes,
    croissant,
    curation,
    detect,
    downloads,
    freshness,
    language,
    publishing,
    remembered,
    report,
    resumed,
    sources,
    splits,
    stored_rows,
    synthesis,
)
from hone_trainer.datasets.checked import Check, PieceCheck, RefusedRow, unreadable
from hone_trainer.datasets.counted import Count
from hone_trainer.datasets.curation import personal_data
from hone_trainer.datasets.journal import Journal
from hone_trainer.datasets.read import DataFile, parsed, raw_rows
from hone_trainer.datasets.row_statistics import Tally, percent
from hone_trainer.datasets.rows import RawRow, RowError
from hone_trainer.datasets.spool import ValidRow
from hone_trainer.endpoints import http
from hone_trainer.errors import ConfigError, DataError, to_outcome
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import contents, manifest
from hone_trainer.store.contents import SPLITS
from hone_trainer.workers import parallel
from hone_trainer.workers.parallel import Workers

REJECTED, REMOVED = "rejected.jsonl", "removed.jsonl"
_REJECTED_LOGGED = 20
SMALL_BYTES = 4 * 2**20
"""Sources below this size take less time than two processes to start and to get rows: one does all."""
MOST_WORKERS = 8
"""The process that reads and keeps the order has no work for more."""


def run(plan: MaterializePlan, files: Sequence[Path] = ()) -> DatasetResult:
    """Materialize the plan's Dataset, or find that it already is, and publish it.

    Args:
        files: several files of a laptop, in place of the plan's source.

    Returns:
        The result; without a digest where generated rows wait for people, or the source is the one that was read.

    Raises:
        ConfigError, SourceError, DataError: as `make`.
    """
    return publishing.at_once(plan, partial(make, plan, files=files))


def make(plan: MaterializePlan, work: Path, files: Sequence[Path] = ()) -> DatasetResult:
    """Rows, report and manifest in `content` of a folder, as `publishing.Make`.

    Raises:
        SourceError: the source is missing, unreachable, refused, too large, or not what was promised.
        ConfigError: a field cannot be, or is not supported yet.
        DataError: the rows are not fit; carries the counts.
    """
    _check_plan(plan)
    steps = curation.steps_of(plan)
    content = work / publishing.CONTENT
    with TaskProgress(f"dataset {plan.name}") as progress, downloads.folder_of(plan, work / "source") as download:
        try:
            fetched = sources.of_files(files, plan) if files else freshness.fetch(plan, download, progress)
        except http.UnchangedError:
            progress.log(f"dataset {plan.name}: the source has not changed")
            return DatasetResult(unchanged=True)
        source = _SourceRows(fetched.files, plan.limits.max_source_bytes)
        synthesized = synthesis.run(plan, source.parsed(), fetched.revision, progress) if plan.synthesis else None
        if synthesized and not synthesized.counts.complete:
            progress.log(
                f"dataset {plan.name}: {counted(synthesized.counts.pending, 'row waits', 'rows wait')} for review"
            )
            return DatasetResult(revision=fetched.revision, synthetic=synthesized.counts)
        if synthesized:
            plan, source.made = synthesized.plan, synthesized.rows()
            synthesized.write_provenance(content, partial(personal_data.redacted, plan=plan))
        elif plan.raft:
            plan, source.made = synthesis.raft.built(plan, source.parsed())
        tally = Tally(plan, fetched.revision, not_read=fetched.not_read, before=remembered.Before.of(plan))
        try:
            _read_rows(source, tally, steps, work, progress)
        except DataError as error:
            error.result = tally.result()
            report.write(tally, error.result, content, to_outcome(error).failure)
            manifest.write(content)
            raise
        tally.digest = contents.digest_of(content)
        result = tally.result()
        result.synthetic = synthesized.counts if synthesized else None
        result.source_version, result.croissant = freshness.version(plan, fetched), fetched.about
        result.changes = changes.since(plan.previous, Path(plan.store) / "datasets", content, tally.digest)
        write_report(tally, result, content)
        progress.log(_summary(plan, result))
    return result


def _read_rows(
    source: _SourceRows, tally: Tally, steps: dict[str, curation.Step], work: Path, progress: TaskProgress
) -> None:
    """Check, curate and divide the rows of a source into `content` of a folder, and count them.

    Raises:
        ConfigError, DataError: as `make`.
    """
    plan, content = tally.plan, work / publishing.CONTENT
    with open(content / REJECTED, "w") as rejected, curation.Ledger(content / REMOVED) as ledger:
        tally.curation, tally.curated_examples = ledger.steps, ledger.examples
        intake = _Intake(plan, tally, rejected, progress)
        check, count = intake.detect(source.head()), Count(plan.splits.seed)
        earlier = source.journal(plan)
        store = None
        if earlier and not earlier.is_full:
            store = stored_rows.stream
            for step in steps.values():
                folder = Path(str(plan.downloads_path)) / downloads.CURATED
                step.keep(folder, earlier.identity, earlier.curated_bytes)
        checks = PieceCheck(check, work / "pieces", source.most, store) if check else None
        functions: list[Callable[..., Any]] = [count.rows, language.languages_of]
        functions += [checks.sent] if checks else []
        functions += itertools.chain.from_iterable(step.work for step in steps.values())
        with _workers(functions, source.files) as workers:
            checked = source.checked(checks, workers, earlier) if checks else source.unreadable(plan)
            valid = intake.valid(checked)
            kept = curation.curate(valid, steps, work / "curation", ledger, workers)
            _spool(kept, count, tally, work / "spool", workers)
            tally.identify(workers)
    tally.check_rows()
    tally.splits = _divide(work / "spool", content, tally)
    tally.check_splits()


def write_report(tally: Tally, result: DatasetResult, content: Path) -> None:
    """Report, description and manifest of rows."""
    report.write(tally, result, content)
    source = sources.shown(tally.plan.source.uri)
    croissant.write(content, tally.plan.name, [split.name for split in result.splits], source, result.croissant)
    manifest.write(content)


def _check_plan(plan: MaterializePlan) -> None:
    problems = []
    if percent(plan.splits.validation) + percent(plan.splits.test) > 1:
        problems.append("splits.validation and splits.test are together over 100%")
    if problems:
        raise ConfigError("; ".join(problems))


class _SourceRows:
    """The rows of the files, or those that are made of them."""

    def __init__(self, files: list[DataFile], most: int) -> None:
        self.files, self.most = files, most
        self.made: Iterator[RawRow] | None = None
        self._head: list[RawRow] = []

    def parsed(self) -> Iterator[RawRow]:
        """Those of the files, with their values."""
        return map(parsed, raw_rows(self.files, self.most))

    def head(self) -> list[RawRow]:
        """The first ones, with their values."""
        rows = self.made or self.parsed()
        self._head = list(map(parsed, itertools.islice(rows, detect.SAMPLE_ROWS)))
        return self._head

    def journal(self, plan: MaterializePlan) -> Journal | None:
        """What keeps them for another attempt, once `head` was called; None: nothing does."""
        return None if self.made else resumed.journal_of(plan, self.files, self._head)

    def checked(self, checks: PieceCheck, workers: Workers, earlier: Journal | None) -> Iterator[ValidRow | RefusedRow]:
        """All of them; earlier: those of an earlier attempt."""
        if self.made:
            return checks.rows(checks.read(itertools.chain(self._head, self.made)), workers)
        return resumed.rows(checks, self.files, workers, earlier)

    def unreadable(self, plan: MaterializePlan) -> Iterator[RefusedRow]:
        """All of them, when none of the first can be read."""
        return unreadable(itertools.chain(self._head, map(parsed, self.made)) if self.made else self.parsed(), plan)


class _Intake:
    """Rows as read to valid rows; the others go into rejected."""

    def __init__(self, plan: MaterializePlan, tally: Tally, rejected: IO[str], progress: TaskProgress) -> None:
        self._plan, self._tally, self._rejected, self._progress = plan, tally, rejected, progress

    def detect(self, head: Sequence[RawRow]) -> Check | None:
        """How rows are checked, by the first ones; None: there are none, or none that can be read.

        Raises:
            ConfigError, DataError: as `detect.choose`.
        """
        plan = self._plan
        # Messages quote the columns, so they are detected from rows without personal data.
        sample = [personal_data.redacted(row.value, plan) for row in head if row.value is not None]
        if not sample:
            return None
        try:
            detected = detect.choose(plan.format, plan.columns, sample, plan.ignore_columns)
        except DataError as error:
            for row in unreadable((row for row in head if row.error), plan):
                self._refuse(row)
            raise DataError(error.code, error.message, self._tally.result()) from None
        self._tally.format, self._tally.notes = str(detected)[:253], detected.notes
        return Check(plan, detected)

    def valid(self, checked: Iterable[ValidRow | RefusedRow]) -> Iterator[ValidRow]:
        """The valid rows, in order."""
        for row in checked:
            self._progress.add_row()
            if isinstance(row, RefusedRow):
                self._refuse(row)
            else:
                self._tally.valid += 1
                yield row

    def _refuse(self, refused: RefusedRow) -> None:
        row, error = refused
        self._tally.reject(row, error)
        _write_rejected(self._rejected, row, error)
        if self._tally.rejected <= _REJECTED_LOGGED:
            self._progress.log(f"row {row.number} rejected: {error.code}: {row.place}: {error}")


def _workers(functions: Sequence[Callable[..., Any]], files: Sequence[DataFile]) -> Workers:
    """One for each core; forks would start too late for a small source."""
    size = sum(file.size for file in files)
    count = min(parallel.cores(), MOST_WORKERS) if size >= SMALL_BYTES else 1
    return Workers(functions, count, "checks rows")


def _spool(rows: Iterator[ValidRow], count: Count, tally: Tally, path: Path, workers: Workers) -> None:
    """First pass: every row into a file, a line each."""
    with open(path, "w", encoding="utf-8") as spool:
        for batch, counted in workers.map(count.rows, batches.of_rows(rows)):
            tally.accept(batch, counted)
            spool.writelines(f"{row.line}\n" for row in batch)


def _divide(spool: Path, folder: Path, tally: Tally) -> dict[str, int]:
    """Second pass: the spool into one file a split. Gives the rows of each; order is that of the source."""
    names = _splits_of_rows(tally)
    counts: dict[str, int] = {}
    files: dict[str, IO[str]] = {}
    codes = bytearray()
    try:
        with open(spool, encoding="utf-8") as lines:
            for name, line in zip(names, lines, strict=True):
                codes.append(SPLITS.index(name))
                if name not in files:
                    files[name] = open(folder / f"{name}.jsonl", "w", encoding="utf-8")  # noqa: SIM115
                files[name].write(line)
                counts[name] = counts.get(name, 0) + 1
    finally:
        for file in files.values():
            file.close()
    tally.see_splits(codes)
    return {name: counts[name] for name in SPLITS if name in counts}


def _splits_of_rows(tally: Tally) -> Iterable[str]:
    """The split of each row that is kept, in order."""
    groups = splits.joined(tally.plan.splits, tally.groups, tally.questions)
    places = tally.strata.places(groups) if tally.strata else groups
    if tally.before:
        codes = tally.before.codes_of(tally.duplicates.hashes, tally.groups, groups)
        return remembered.divided(tally.plan.splits, places, codes)
    division = splits.Division.of(tally.plan.splits)
    for place in places:
        division.see(place)
    division.settle()
    return map(division.split_of, places)


def _write_rejected(file: IO[str], row: RawRow, error: RowError) -> None:
    entry = {"row": row.number, "place": row.place, "code": error.code, "message": str(error), "value": row.value}
    file.write(json.dumps(entry, default=str) + "\n")


def _summary(plan: MaterializePlan, result: DatasetResult) -> str:
    parts = ", ".join(f"{split.name} {split.rows:,}" for split in result.splits)
    return f"dataset {plan.name}: {parts} rows; {result.rejected} rejected; {result.digest}"
