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
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


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


def remove(folder: Path) -> None:
    """Remove a folder as `shutil.rmtree` does, also one that is too deep for it, or that lacks write permission.

    Foreign code may have made it. What cannot be removed stays.
    """
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        _remove_level_by_level(folder)


def walk(folder: Path) -> Iterator[Path]:
    """Everything below the folder but what has too long a path for the system; links are not followed."""
    todo = [folder]
    while todo:
        with suppress(OSError):  # it went meanwhile, or its path is too long
            for path in list(todo.pop().iterdir()):
                if _is_folder(path):
                    todo.append(path)
                yield path


def _remove_level_by_level(folder: Path) -> None:
    """Move each inner folder to the top, where its path is short, and empty it there."""
    top = os.open(folder, _OPEN_FOLDER)
    try:
        names = ["."]
        for name in names:  # grows
            with suppress(OSError):
                os.chmod(name, 0o700, dir_fd=top)
                names += _moved_up(name, top)
        for name in names[1:]:
            with suppress(OSError):
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    folder.rmdir()


def _moved_up(name: str, top: int) -> Iterator[str]:
    """Names of the folders that were in this one, in the top; its files are removed."""
    inner = os.open(name, _OPEN_FOLDER, dir_fd=top)
    try:
        with os.scandir(inner) as found:
            entries = list(found)
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=inner)
                continue
            moved = f"{_PREFIX}{uuid.uuid4().hex}"
            os.chmod(entry.name, 0o700, dir_fd=inner)  # to be moved, it must be writable itself
            os.rename(entry.name, moved, src_dir_fd=inner, dst_dir_fd=top)
            yield moved
    finally:
        os.close(inner)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


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
