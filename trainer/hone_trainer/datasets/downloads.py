"""Files of a source while their rows are made: downloaded side by side, and kept for the next attempt if this one ends.

A kept file is used again only if its content has the SHA-256 that was recorded when it was complete, or that the hub
names.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hone_api.plan import MaterializePlan
from hone_api.words.failures import FailureCode
from hone_trainer.errors import SourceError
from hone_trainer.store import folders, manifest
from hone_trainer.store.deadline import Deadline, LateError

_RECORD = ".sha256"
_BY_FILES = ("hf://", "s3://")
"""Sources whose files are kept: of another one, nothing says whether a file is the same."""
CHECKED, CURATED = "checked", "curated"
"""Folders of the plan's folder: rows that were checked (`journal`), and what steps of the curation keep."""


class Download(NamedTuple):
    """A file to download, and what it was when it was listed: another version is another file."""

    name: str
    path: Path
    version: str
    get: Callable[[Path], None]
    """Writes it to a path."""


@contextmanager
def folder_of(plan: MaterializePlan, otherwise: Path) -> Iterator[Path]:
    """The folder for the files of the plan's source: one that outlasts the attempt, if the plan has one and the source
    is many files.

    Of that one, files of other sources go first. All that the plan keeps goes when the block succeeds.
    """
    if plan.downloads_path is None:
        otherwise.mkdir(exist_ok=True)
        yield otherwise
        return
    place = plan.source.s3.to_json() if plan.source.s3 else None
    top, key = Path(plan.downloads_path), hashlib.sha256(json.dumps([plan.source.uri, place]).encode()).hexdigest()[:16]
    top.mkdir(parents=True, exist_ok=True)
    _remove(path for path in top.iterdir() if path.name not in (key, CHECKED, CURATED))
    folder = top / key if plan.source.uri.startswith(_BY_FILES) else otherwise
    folder.mkdir(exist_ok=True)
    with folders.in_use(top):
        yield folder
    _remove(top.iterdir())  # not the folder itself: it is a mount


def fetch(wanted: Sequence[Download], deadline: Deadline) -> None:
    """Download the files that are not there yet, some of them at a time.

    Raises:
        SourceError: SourceUnreachable, when it took too long. What `Download.get` raises.
    """
    try:
        deadline.run([partial(_fetch, one) for one in wanted])
    except LateError as error:
        raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"{wanted[0].name} and others: {error}") from None


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(one: Download) -> None:
    record = one.path.with_name(one.path.name + _RECORD)
    if _is_kept(one, record):
        return
    record.unlink(missing_ok=True)
    part = one.path.with_name(one.path.name + ".part")
    one.get(part)
    digest = sha256_of(part)
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    part.rename(one.path)
    manifest.write_atomically(record, json.dumps([one.version, digest]).encode())


def _is_kept(one: Download, record: Path) -> bool:
    try:
        version, digest = json.loads(record.read_bytes())
        return bool(version == one.version and sha256_of(one.path) == digest)
    except (OSError, ValueError, TypeError):  # not there, or cut off
        return False


def _remove(paths: Iterator[Path]) -> None:
    for path in list(paths):
        if path.is_dir() and not path.is_symlink():
            folders.remove(path)
        else:
            path.unlink(missing_ok=True)
