"""Materialize a Dataset: source -> valid rows -> curated -> splits -> `store`/datasets/<digest>, complete or not there.

Workers check pieces of the source, in any order, into parts (`stage_one`); then all rows are one relation over the
parts (`engine`), on which curation, splits and counts are SQL. How a source is cut into pieces depends on it alone, so
that every file is the same for any number of workers. The digest addresses the content of the split files alone: the
same rows give the same folder, whenever and from wherever they came.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hone_api.base.wording import counted
from hone_api.contract.report import DatasetResult
from hone_api.plan import MaterializePlan
from hone_trainer.datasets import curation, publishing, report, stage_one, synthesis
from hone_trainer.datasets.checked import Check, PartMaker, unreadable
from hone_trainer.datasets.curation import Global, personal_data
from hone_trainer.datasets.engine import dividing, keys
from hone_trainer.datasets.engine.counts import RowCounts, beginnings
from hone_trainer.datasets.engine.parts import CheckedPart, owned
from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.datasets.engine.writing import (
    REJECTED,
    REMOVED,
    Ledger,
    rejected_line,
    removed_lines,
    write_lines,
    write_rejected,
    write_splits,
)
from hone_trainer.datasets.formats import detect
from hone_trainer.datasets.readers.read import DataFile, parsed, raw_rows
from hone_trainer.datasets.readers.rows import RawRow, RowError
from hone_trainer.datasets.row_statistics import Tally, percent
from hone_trainer.datasets.sources import croissant, downloads, freshness, sources
from hone_trainer.datasets.splits import changes, remembered
from hone_trainer.datasets.texts import language
from hone_trainer.endpoints import http
from hone_trainer.errors import ConfigError, DataError, to_outcome
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import contents, manifest
from hone_trainer.store.part_folder import PartFolder
from hone_trainer.workers import parallel
from hone_trainer.workers.parallel import Workers
from hone_trainer.workers.pods import Pod, this_pod

_REJECTED_LOGGED = 20
SMALL_BYTES = 4 * 2**20
"""Sources below this size take less time than two processes to start and to get rows: one does all."""
MOST_WORKERS = 8
"""Each has its own libraries in memory."""


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
        source = _SourceRows(plan, fetched.files, plan.limits.max_source_bytes)
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
        tally = Tally(plan, fetched.revision, not_read=fetched.not_read)
        try:
            hashes = _read_rows(source, tally, steps, work, progress)
        except DataError as error:
            error.result = tally.result()
            report.write(tally, error.result, content, to_outcome(error).failure)
            manifest.write(content)
            raise
        tally.digest = contents.digest_of(content, hashes)
        result = tally.result()
        result.synthetic = synthesized.counts if synthesized else None
        result.source_version, result.croissant = freshness.version(plan, fetched), fetched.about
        result.changes = changes.since(plan.previous, Path(plan.store) / "datasets", content, tally.digest)
        write_report(tally, result, content, hashes)
        progress.log(_summary(plan, result))
    return result


def share(plan: MaterializePlan, pod: Pod) -> None:
    """In a pod that does not lead: make its share of the parts. The first one makes those that are missing then.

    Raises:
        SourceError, StoreError: as `make`.
    """
    if plan.synthesis or plan.raft:
        return
    name = f"dataset {plan.name}, pod {pod.index}"
    with tempfile.TemporaryDirectory() as work, TaskProgress(name) as progress:
        try:
            fetched = sources.fetch(plan.model_copy(update={"known": None}), Path(work), progress)
            source = _SourceRows(plan, fetched.files, plan.limits.max_source_bytes)
            head, steps = source.head(), curation.steps_of(plan)
            folder = source.folder(head, Path(work))
            if not folder.identity:
                return
            check = Check(plan, _detected(plan, head))
            maker = stage_one.maker_of(plan, check, steps, folder, source.files, source.most)
            with _workers([maker.make], source.files) as workers:
                stage_one.parts(maker, source.files, workers, progress.add_part, pod)
        except DataError as error:
            progress.log(f"{name}: the first pod reports this: {error.message}")
        except FileNotFoundError:  # only the first pod removes something: all parts, when it is done
            progress.log(f"{name}: the first pod needs no more parts")


def _detected(plan: MaterializePlan, head: Sequence[RawRow]) -> detect.Detected | None:
    """The format, by the first rows without personal data, since messages quote columns; None: none can be read.

    Raises:
        ConfigError, DataError: as `detect.choose`.
    """
    sample = [personal_data.redacted(row.value, plan) for row in head if row.value is not None]
    return detect.choose(plan.format, plan.columns, sample, plan.ignore_columns) if sample else None


def _read_rows(
    source: _SourceRows, tally: Tally, steps: dict[str, curation.Step], work: Path, progress: TaskProgress
) -> dict[str, str]:
    """Check, curate and divide the rows of a source into `content` of a folder, and count them.

    Returns:
        The SHA-256 of each split's file by its name.

    Raises:
        ConfigError, DataError: as `make`.
    """
    plan, content = tally.plan, work / publishing.CONTENT
    intake = _Intake(plan, tally, progress)
    head = source.head()
    check = intake.detect(head, content)
    every = [step for step in steps.values() if isinstance(step, Global)]
    maker = stage_one.maker_of(plan, check, steps, source.folder(head, work), source.files, source.most)
    functions: list[Callable[..., Any]] = [maker.make, removed_lines, beginnings, language.languages_of, write_lines]
    functions += (function for step in every for function in step.work)
    with owned(maker.folder.path), _workers(functions, source.files) as workers:
        parts = source.parts(maker, workers, progress.add_part)
        with Relation(parts, work / "relation", source.most) as rows:
            tally.valid = rows.valid
            write_rejected(rows, content / REJECTED, intake.see_rejected)
            ledger = Ledger(rows, [*steps])
            curation.judge(rows, steps, work / "curation", workers)
            ledger.write(content / REMOVED, workers)
            tally.curation, tally.curated_examples = ledger.steps, ledger.examples
            tally.rows = dividing.keep(rows)
            tally.count(RowCounts(rows), workers)
            dividing.check_strata(rows, plan.splits)
            tally.check_rows()
            counts = dividing.divide(rows, plan.splits, remembered.content_before(plan))
            tally.see_splits(counts, dividing.crossing(rows))
            hashes = write_splits(rows, content, workers)
            keys.write(rows, content)
            tally.see_shared(rows, plan.other_datasets)
            tally.see_languages()
    tally.check_splits()
    return hashes


def write_report(tally: Tally, result: DatasetResult, content: Path, hashes: Mapping[str, str]) -> None:
    """Report, description and manifest of rows; hashes: the SHA-256 of each split's file by its name."""
    report.write(tally, result, content)
    croissant.write(content, tally.plan.name, hashes, sources.shown(tally.plan.source.uri), result.croissant)
    manifest.write(content, hashes)


def _check_plan(plan: MaterializePlan) -> None:
    problems = []
    if percent(plan.splits.validation) + percent(plan.splits.test) > 1:
        problems.append("splits.validation and splits.test are together over 100%")
    if problems:
        raise ConfigError("; ".join(problems))


class _SourceRows:
    """The rows of the files, or those that are made of them."""

    def __init__(self, plan: MaterializePlan, files: list[DataFile], most: int) -> None:
        self.files, self.most = files, most
        self.made: Iterator[RawRow] | None = None
        self._plan = plan
        self._head: list[RawRow] = []

    def parsed(self) -> Iterator[RawRow]:
        """Those of the files, with their values."""
        return map(parsed, raw_rows(self.files, self.most))

    def head(self) -> list[RawRow]:
        """The first ones, with their values."""
        rows = self.made or self.parsed()
        self._head = list(map(parsed, itertools.islice(rows, detect.SAMPLE_ROWS)))
        return self._head

    def folder(self, head: Sequence[RawRow], work: Path) -> PartFolder:
        """The folder of their parts."""
        kept = None if self.made else stage_one.kept_folder(self._plan, self.files)
        identity = stage_one.identity(self._plan, head) if kept else ""
        return PartFolder(kept or work / "parts", identity)

    def parts(self, maker: PartMaker, workers: Workers, see: stage_one.See) -> list[CheckedPart]:
        """All of them as parts, each shown to a function."""
        if self.made:
            rows = itertools.chain(self._head, self.made)
            parts = [maker.of_rows(0, rows)]
            see(parts[0], 1)
            return parts
        return stage_one.parts(maker, self.files, workers, see, this_pod(self._plan.pods))


class _Intake:
    """What is known of rows while they are read."""

    def __init__(self, plan: MaterializePlan, tally: Tally, progress: TaskProgress) -> None:
        self._plan, self._tally, self._progress = plan, tally, progress

    def detect(self, head: Sequence[RawRow], content: Path) -> Check:
        """How rows are checked, by the first ones.

        Raises:
            ConfigError, DataError: as `detect.choose`.
        """
        plan = self._plan
        try:
            detected = _detected(plan, head)
        except DataError as error:
            with open(content / REJECTED, "w", encoding="utf-8") as file:
                for row, why in unreadable((row for row in head if row.error), plan):
                    self.see_rejected(row, why)
                    file.write(rejected_line(row, why))
            raise DataError(error.code, error.message, self._tally.result()) from None
        if detected:
            self._tally.format, self._tally.notes = str(detected)[:253], detected.notes
        return Check(plan, detected)

    def see_rejected(self, row: RawRow, error: RowError) -> None:
        """Note a refused row."""
        self._tally.reject(row, error)
        if self._tally.rejected <= _REJECTED_LOGGED:
            self._progress.log(f"row {row.number} rejected: {error.code}: {row.place}: {error}")


def _workers(functions: Sequence[Callable[..., Any]], files: Sequence[DataFile]) -> Workers:
    """One for each core; forks would start too late for a small source."""
    size = sum(file.size for file in files)
    return Workers(functions, min(parallel.cores(), MOST_WORKERS) if size >= SMALL_BYTES else 1, "checks rows")


def _summary(plan: MaterializePlan, result: DatasetResult) -> str:
    parts = ", ".join(f"{split.name} {split.rows:,}" for split in result.splits)
    return f"dataset {plan.name}: {parts} rows; {result.rejected} rejected; {result.digest}"
