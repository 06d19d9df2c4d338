"""Materialize a Dataset: source -> valid rows -> curated -> splits -> `store`/datasets/<digest>, complete or not there.

Two passes over the rows, both one row at a time: the first normalises and curates into a spool with a hash, the
second divides the spool. The digest addresses the content of the split files alone: the same rows give the same folder,
whenever and from wherever they came.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from hone_api.plan import MaterializePlan
from hone_api.report import DatasetResult
from hone_trainer.datasets import (
    changes,
    croissant,
    curation,
    detect,
    freshness,
    publishing,
    remembered,
    report,
    sources,
    synthesis,
)
from hone_trainer.datasets.curation import personal_data
from hone_trainer.datasets.read import read_rows
from hone_trainer.datasets.row_statistics import Tally, percent
from hone_trainer.datasets.rows import RawRow, RowError, canonical
from hone_trainer.datasets.spool import Row
from hone_trainer.datasets.statistics import check_length
from hone_trainer.endpoints import http
from hone_trainer.errors import ConfigError, DataError, to_outcome
from hone_trainer.reporting.task import Progress
from hone_trainer.store import contents, manifest
from hone_trainer.store.contents import SPLITS

REJECTED, REMOVED = "rejected.jsonl", "removed.jsonl"
_REJECTED_LOGGED = 20


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
    steps = curation.steps(plan)
    download, content = work / "source", work / publishing.CONTENT
    download.mkdir()
    with Progress(f"dataset {plan.name}") as progress:
        try:
            fetched = sources.of_files(files, plan) if files else freshness.fetch(plan, download, progress)
        except http.UnchangedError:
            progress.say(f"dataset {plan.name}: the source has not changed")
            return DatasetResult(unchanged=True)
        rows = read_rows(fetched.files, plan.limits.max_source_bytes)
        synthesized = synthesis.run(plan, rows, fetched.revision, progress) if plan.synthesis else None
        if synthesized and not synthesized.counts.complete:
            progress.say(f"dataset {plan.name}: {synthesized.counts.pending} rows wait for review")
            return DatasetResult(revision=fetched.revision, synthetic=synthesized.counts)
        if synthesized:
            plan, rows = synthesized.plan, synthesized.rows()
            synthesized.write_provenance(content, partial(personal_data.redacted, plan=plan))
        elif plan.raft:
            plan, rows = synthesis.raft.built(plan, rows)
        tally = Tally(plan, fetched.revision, pages=fetched.left_out, before=remembered.Before.of(plan))
        try:
            with open(content / REJECTED, "w") as rejected, curation.Ledger(content / REMOVED) as ledger:
                tally.curation, tally.curated_examples = ledger.steps, ledger.examples
                valid = _normalise(plan, rows, tally, rejected, progress)
                _spool(curation.curate(valid, steps, work / "curation", ledger), tally, work / "spool")
            tally.check_rows()
            tally.splits = _divide(work / "spool", content, tally)
            tally.check_splits()
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
        progress.say(_summary(plan, result))
    return result


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


def _normalise(
    plan: MaterializePlan,
    rows: Iterator[RawRow],
    tally: Tally,
    rejected: IO[str],
    progress: Progress,
) -> Iterator[Row]:
    """The valid rows; the others go into rejected."""

    def refuse(row: RawRow, error: RowError) -> None:
        error = RowError(error.code, personal_data.told(str(error), plan))
        place = personal_data.told(row.place, plan)
        row = replace(row, value=personal_data.redacted(row.value, plan), place=place)
        tally.reject(row, error)
        _write_rejected(rejected, row, error)
        if tally.rejected <= _REJECTED_LOGGED:
            progress.say(f"row {row.number} rejected: {error.code}: {row.place}: {error}")

    head = list(itertools.islice(rows, detect.SAMPLE_ROWS))
    # Messages quote the columns, so they are detected from rows without personal data.
    sample = [personal_data.redacted(row.value, plan) for row in head if row.value is not None]
    if not sample:  # nothing, or nothing that can be read
        for row in itertools.chain(head, rows):
            refuse(row, row.error or RowError("WrongType", "the row is empty"))
        return
    try:
        detected = detect.choose(plan.format, plan.columns, sample, plan.ignore_columns)
    except DataError as error:
        for row in head:
            if row.error:
                refuse(row, row.error)
        raise DataError(error.code, error.message, tally.result()) from None
    tally.format = str(detected)[:253]
    for row in itertools.chain(head, rows):
        progress.add_row()
        try:
            if row.value is None:
                raise row.error or RowError("WrongType", "the row is empty")
            record = detected.normalise(row.value)
            check_length(record, plan.checks.max_tokens)
            keys = (_group(plan, row.value), _label(plan, row.value), _stratum(plan, row.value))
            valid = Row(row.number, canonical(record), *keys)
        except RowError as error:
            refuse(row, _shown(error, detected, row, plan))
            continue
        tally.valid += 1
        yield valid


def _shown(error: RowError, detected: detect.Detected, row: RawRow, plan: MaterializePlan) -> RowError:
    """The error as the row without personal data has it: messages quote the beginning of what they are about."""
    value = personal_data.redacted(row.value, plan)
    if value is row.value:
        return error
    try:
        detected.normalise(value)
    except RowError as clean:
        return clean
    return error


def _spool(rows: Iterator[Row], tally: Tally, path: Path) -> None:
    """First pass: every row into a file as '<hash of its group>\\t<record>'."""
    with open(path, "w", encoding="utf-8") as spool:
        for row in rows:
            value = tally.accept(row.record, row.line, row.group_key, row.stratum)
            spool.write(f"{value:016x}\t{row.line}\n")


def _divide(spool: Path, folder: Path, tally: Tally) -> dict[str, int]:
    """Second pass: the spool into one file a split. Gives the rows of each; order is that of the source."""
    split_of = _split_of_rows(tally)
    counts: dict[str, int] = {}
    files: dict[str, IO[str]] = {}
    try:
        with open(spool, encoding="utf-8") as lines:
            for number, entry in enumerate(lines):
                value, _, line = entry.partition("\t")
                name = split_of(number, int(value, 16))
                if name not in files:
                    files[name] = open(folder / f"{name}.jsonl", "w", encoding="utf-8")  # noqa: SIM115
                files[name].write(line)
                counts[name] = counts.get(name, 0) + 1
    finally:
        for file in files.values():
            file.close()
    return {name: counts[name] for name in SPLITS if name in counts}


def _split_of_rows(tally: Tally) -> Callable[[int, int], str]:
    """What gives the split of a row, by its number among those kept, from 0, and the hash of its group."""
    places = tally.strata.places() if tally.strata else None
    if tally.before:
        codes = tally.before.codes_of(tally.duplicates.hashes, tally.groups)
        divided = remembered.divided(tally.plan.splits, places or tally.groups, codes)
        return lambda number, _: divided[number]
    for place in places or ():
        tally.division.see(place)
    tally.division.settle()
    return lambda number, value: tally.division.split_of(places[number] if places else value)


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


def _write_rejected(file: IO[str], row: RawRow, error: RowError) -> None:
    entry = {"row": row.number, "place": row.place, "code": error.code, "message": str(error), "value": row.value}
    file.write(json.dumps(entry, default=str) + "\n")


def _summary(plan: MaterializePlan, result: DatasetResult) -> str:
    parts = ", ".join(f"{split.name} {split.rows:,}" for split in result.splits)
    return f"dataset {plan.name}: {parts} rows; {result.rejected} rejected; {result.digest}"
