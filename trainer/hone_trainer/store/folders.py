"""Folders of the store: made aside, and renamed into place when they are complete."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hone_trainer.errors import StoreError
from hone_trainer.store import manifest

_PREFIX = ".work-"
_STALE_SECONDS = 24 * 3600


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A new folder in parent, on the same volume so that the last rename is atomic; removed at the end.

    Those that killed pods left there go after a day.

    Raises:
        StoreError: StorageError when the store cannot be written.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for old in parent.glob(f"{_PREFIX}*"):
            if time.time() - old.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        work = parent / f"{_PREFIX}{uuid.uuid4().hex}"
        work.mkdir()
    except PermissionError as error:
        raise StoreError("StorageError", f"the store cannot be written: {error}") from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def is_intact(folder: Path) -> bool:
    """Whether the folder has a manifest and every file matches it."""
    try:
        manifest.verify(folder)
    except StoreError:
        return False
    return True


def replace(content: Path, target: Path) -> None:
    """Rename a folder to target, in place of what is there; of two at once, one stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        aside = target.with_name(f"{_PREFIX}{uuid.uuid4().hex}")
        target.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    content.rename(target)


def publish(content: Path, target: Path, intact: Callable[[Path], bool] = is_intact) -> None:
    """Rename a complete folder to target. Who comes second keeps the first one's; a damaged one is replaced.

    Raises:
        StoreError: StorageError when target is damaged again and again.
    """
    for _ in range(3):
        try:
            content.rename(target)
            return
        except OSError:
            if not target.is_dir():
                raise
        with suppress(FileNotFoundError):  # a sweep was faster: ours takes its place
            os.utime(target)  # before it is read: a sweep leaves alone what is found again
            if intact(target):
                return
            aside = target.with_name(f"{_PREFIX}{uuid.uuid4().hex}")
            target.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
    raise StoreError("StorageError", f"{target} is damaged and cannot be replaced")
