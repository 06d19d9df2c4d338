"""Rows from the folder where they were made to their place in the store: by rename, and whole.

In a cluster two containers of one pod do it, one after the other. The first parses what strangers wrote, and of the
store it can write only a folder of incoming/. The second parses none of that: it compares every file with our own
manifest, and renames. On a laptop one process does both.
"""

from __future__ import annotations

import filecmp
import os
import stat
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from hone_api.contract.manifest import MANIFEST
from hone_api.contract.report import DatasetResult
from hone_api.contract.termination import TerminationMessage
from hone_api.plan import RowsPlan
from hone_api.words.failures import FailureCode
from hone_trainer.datasets import report
from hone_trainer.datasets.sources import croissant
from hone_trainer.errors import ConfigError, DataError, StoreError, to_outcome
from hone_trainer.secrets import scrub_in
from hone_trainer.store import contents, folders, manifest

CONTENT, OUTCOME = "content", "outcome.json"
_MAX_OUTCOME = 16 * 2**20
Make = Callable[[Path], DatasetResult]
"""Makes rows in `content` of the folder that it is given, with report and manifest; of rows that are not fit it leaves
report and manifest alone, and raises DataError."""


def at_once(plan: RowsPlan, make: Make) -> DatasetResult:
    """Make rows, and publish them.

    Raises:
        DataError: the rows are not fit; carries the counts.
        StoreError: the store cannot be written.
    """
    with folders.work_folder(Path(plan.store) / "datasets") as work:
        return _publish(plan, work / CONTENT, _make_content(make, work))


def hand_over(plan: RowsPlan, make: Make) -> None:
    """Make rows, and leave them in plan.incoming with their outcome.

    Raises:
        DataError: there is nothing to publish, not even a report.
        StoreError: the folder cannot be written.
    """
    assert plan.incoming is not None
    folder = Path(plan.incoming)
    with folders.work_folder(folder) as work:
        outcome = _make_content(make, work)
        if manifest.is_complete(work / CONTENT):
            folders.replace(work / CONTENT, folder / CONTENT)
    # Credentials are known to this process alone.
    scrubbed = TerminationMessage.model_validate(scrub_in(outcome.to_json()))
    manifest.write_atomically(folder / OUTCOME, scrubbed.model_dump_json(by_alias=True).encode())


def run(plan: RowsPlan) -> DatasetResult:
    """Publish what `hand_over` left, and remove the folder.

    Raises:
        ConfigError: the plan names no folder.
        DataError: as whoever made the rows raised it.
        StoreError: the content differs from its manifest, or is not an outcome.
    """
    if plan.incoming is None:
        raise ConfigError(f"the plan of Dataset {plan.name} has no `incoming`: the maker of the rows publishes them")
    folder = Path(plan.incoming)
    try:
        return _publish(plan, folder / CONTENT, _handed_over(folder))
    finally:
        folders.remove(folder)


def is_intact(folder: Path) -> bool:
    """Whether the folder is complete, and has the content that its name promises."""
    return folders.is_intact(folder) and contents.recorded(folder) == f"sha256:{folder.name}"


def _make_content(make: Make, work: Path) -> TerminationMessage:
    """The outcome to report; a failure only if it has a report."""
    (work / CONTENT).mkdir()
    try:
        return TerminationMessage(result=make(work))
    except DataError as error:
        if not manifest.is_complete(work / CONTENT):
            raise
        return to_outcome(error)


def _handed_over(folder: Path) -> TerminationMessage:
    """The outcome that the first container left; it may have been taken over by what it parsed."""
    try:
        # Neither through a link, nor waiting for the other end of a pipe.
        descriptor = os.open(folder / OUTCOME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            text = file.read(_MAX_OUTCOME + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
        if (folder / CONTENT).is_symlink() or len(text) > _MAX_OUTCOME:
            raise ValueError("a link, or too large")
        return TerminationMessage.model_validate_json(text)
    except (OSError, ValidationError, ValueError) as error:
        raise StoreError(
            FailureCode.STORAGE_ERROR, f"{folder} does not hold what was to be published: {error}"
        ) from None


def _publish(plan: RowsPlan, content: Path, outcome: TerminationMessage) -> DatasetResult:
    """The result, once rows and report are in the store.

    Rows that are there already stay in their folder, with the report of whoever read them first; another reading, of
    other rejected rows perhaps, keeps a report of its own.
    """
    result, failure = outcome.result, outcome.failure
    if failure:
        counted = result if isinstance(result, DatasetResult) else None
        if counted:
            _verify(content)
            counted.report = _keep_report(plan, content)
        raise DataError(FailureCode(failure.code), failure.message, counted)
    if not isinstance(result, DatasetResult) or not (result.digest or result.synthetic or result.unchanged):
        raise StoreError(FailureCode.STORAGE_ERROR, f"no result of Dataset {plan.name} was left to publish")
    result.path = result.report = None
    if result.digest:
        _verify(content)
        _into_place(plan, content, result)
    return result


def _verify(content: Path) -> None:
    """Check that the folder contains what its manifest lists, including a report, and no other folder.

    Other readings of the same rows compare their report with this one. A folder without write permission could not be
    removed, and one inside another without end could not even be read.
    """
    if content.is_dir():
        names = {path.name for path in content.iterdir() if not path.is_dir() or path.is_symlink()}
        others = sorted(path.name for path in content.iterdir() if path.name not in names)
        missing = sorted({report.DATA, report.PAGE} - names)
        if others or missing:
            problem = f"the folder {others[0]!r}" if others else f"no {missing[0]}"
            raise StoreError(
                FailureCode.MANIFEST_MISMATCH, f"{content} has {problem}: only files are published, with their report"
            )
    manifest.verify(content)


def _into_place(plan: RowsPlan, content: Path, result: DatasetResult) -> None:
    """Publish rows that match their manifest under their actual digest, whatever the result says."""
    digest = contents.recorded(content)
    if digest != result.digest:
        raise StoreError(
            FailureCode.MANIFEST_MISMATCH, f"the rows of Dataset {plan.name} are {digest}, and not {result.digest}"
        )
    folder = f"datasets/{digest.removeprefix('sha256:')}"
    there = Path(plan.store) / folder
    there.parent.mkdir(parents=True, exist_ok=True)
    folders.publish(content, there, is_intact)
    result.path, result.report = folder, f"{folder}/{report.PAGE}"
    result.size_bytes = manifest.size_of(there)
    if content.exists() and not _is_same(content / report.DATA, there / report.DATA):
        result.report = _keep_report(plan, content)


def _is_same(mine: Path, others: Path) -> bool:
    return others.is_file() and filecmp.cmp(mine, others, shallow=False)


def _keep_report(plan: RowsPlan, content: Path) -> str:
    """The report without rows, with those rejected and removed, in `store`/reports/<name>, until the next such one."""
    files = (f"{split}{end}" for split in contents.SPLITS for end in (".jsonl", contents.KEYS))
    for leftover in (*files, MANIFEST, croissant.NAME):
        (content / leftover).unlink(missing_ok=True)
    folders.replace(content, Path(plan.store) / "reports" / plan.name)
    return f"reports/{plan.name}/{report.PAGE}"
