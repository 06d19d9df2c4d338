"""Folders of the store: built in a temporary folder, and renamed into place when complete."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from hone_api.words.failures import FailureCode
from hone_trainer.errors import DataError, StoreError
from hone_trainer.store import manifest

_PREFIX = ".work-"
_STALE_SECONDS = 24 * 3600
_SIGN_SECONDS = 60
"""Between two signs of life, for whoever removes what was left behind."""
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A new folder in parent, on the same volume so that the final rename is atomic; removed at the end.

    Folders that killed pods left behind are removed after a day.

    Raises:
        StoreError: StorageError when the store cannot be written.
    """
    _prepare(parent)
    work = parent / f"{_PREFIX}{uuid.uuid4().hex}"
    with _naming_what_cannot_be_written():
        work.mkdir()
    try:
        with _held(work, fcntl.LOCK_SH):
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def resumed_folder(
    target: Path, keep: Callable[[BaseException], bool] = lambda error: not isinstance(error, DataError)
) -> Iterator[Path]:
    """The work folder in which target is built, with what an earlier call left in it; removed at the end.

    If another process works in the folder, this one gets its own.

    Args:
        keep: whether the folder stays for the next call after this error. After a DataError the next attempt would find
            the same fault in the same data.

    Raises:
        StoreError: StorageError when the store cannot be written.
    """
    _prepare(target.parent)
    folder = target.with_name(f"{_PREFIX}{target.name}")
    with _naming_what_cannot_be_written():
        lock = _locked(folder)
    if lock is None:
        with work_folder(target.parent) as work:
            yield work
        return
    with lock, in_use(folder), _held(folder, fcntl.LOCK_SH):
        try:
            yield folder
        except BaseException as error:
            if not keep(error):
                _discard(folder)
            raise
        _discard(folder)


@contextmanager
def joined_folder(target: Path) -> Iterator[Path]:
    """The work folder of `resumed_folder`, for a process of another pod that adds files to it; it stays at the end."""
    _prepare(target.parent)
    folder = target.with_name(f"{_PREFIX}{target.name}")
    with _naming_what_cannot_be_written():
        folder.mkdir(exist_ok=True)
    with in_use(folder):
        yield folder


def _discard(folder: Path) -> None:
    """Remove a folder under another name: while its lock is removed file by file, the next process could make its own
    in the same folder, and lose what it writes there."""
    aside = folder.with_name(f"{_PREFIX}{uuid.uuid4().hex}")
    with suppress(OSError):
        folder = folder.rename(aside)
    remove(folder)


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Touch the folder every minute until the block ends: a sweep leaves it, however long nothing is written."""
    ended = threading.Event()

    def show() -> None:
        while not ended.wait(_SIGN_SECONDS):
            with suppress(OSError):  # a disk that fails for a moment, or the folder is removed already
                os.utime(folder)

    threading.Thread(target=show, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _locked(folder: Path) -> IO[bytes] | None:
    """The file by which this process alone has the folder; None if another one has it, or the file system has no locks,
    or the folder is another user's."""
    folder.mkdir(exist_ok=True)
    path = folder / "lock"
    with ExitStack() as stack, suppress(OSError):
        file = stack.enter_context(path.open("ab"))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The process that had the folder, or a sweep, may have removed it meanwhile, with the file.
        if touch(folder) and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            stack.pop_all()
            return file
    return None


def _prepare(parent: Path) -> None:
    """Create the folder, and remove what killed pods left in it a day ago."""
    with _naming_what_cannot_be_written():
        parent.mkdir(parents=True, exist_ok=True)
        since = time.time() - _STALE_SECONDS
        for old in parent.glob(f"{_PREFIX}*"):
            if last_written(old) < since and (aside := take_aside(old, since)):
                shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _naming_what_cannot_be_written() -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise StoreError(FailureCode.STORAGE_ERROR, f"the store cannot be written: {error}") from None


def touch(folder: Path) -> bool:
    """Show sweeps that the folder is used from now on. False: there is none, or a sweep has just taken it."""
    with suppress(FileNotFoundError), _held(folder, fcntl.LOCK_SH) as is_there:
        if is_there:
            os.utime(folder)
            return True
    return False


def claim(folder: Path) -> bool:
    """Whether the folder is intact; if it is, no sweep takes it from now on."""
    with suppress(FileNotFoundError):  # a sweep took it before it was touched
        return touch(folder) and is_intact(folder)
    return False


def take_aside(folder: Path, since: float) -> Path | None:
    """Rename a folder that is to be removed, so that nothing reads half of it. None: it is missing, or was touched
    since."""
    if not _is_folder(folder):
        return None
    with suppress(FileNotFoundError), _held(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_there:
        if not is_there or folder.stat().st_mtime >= since:
            return None
        aside = folder.with_name(f"{_PREFIX}{uuid.uuid4().hex}")
        folder.rename(aside)
        # A second look, for a volume without locks: who touched it between the first one and the renaming relies on it.
        return aside if aside.stat().st_mtime < since or not _put_back(aside, folder) else None
    return None


def _put_back(aside: Path, folder: Path) -> bool:
    with suppress(OSError):  # another one has been published meanwhile
        aside.rename(folder)
        return True
    return False


@contextmanager
def _held(folder: Path, operation: int) -> Iterator[bool]:
    """Hold a lock of the folder itself: who touches it and who takes it aside do so one after the other, and what a
    process works in is not taken, whatever the clocks of the nodes say.

    Gives whether the folder is there, and no other process holds a lock that excludes this one. Where the file system
    has no locks of folders, e.g. NFS, or the folder cannot be read, nothing is held.
    """
    try:
        descriptor = os.open(folder, _OPEN_FOLDER)
    except PermissionError:
        yield True
        return
    try:
        is_free = True
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError:
            is_free = False
        except OSError:
            pass
        yield is_free and os.path.samestat(os.fstat(descriptor), folder.stat())
    finally:
        os.close(descriptor)


def last_written(folder: Path) -> float:
    """When anything in the folder was last written, as `time.time()`; infinity while another process changes it."""
    with suppress(FileNotFoundError):
        return max(path.lstat().st_mtime for path in [folder, *walk(folder)])
    return float("inf")


def remove(folder: Path) -> None:
    """Remove a folder like `shutil.rmtree`, even if its paths are too long or it lacks write permission.

    Untrusted code may have created it. What cannot be removed stays.
    """
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        _remove_level_by_level(folder)


def walk(folder: Path) -> Iterator[Path]:
    """Everything below the folder, except paths that are too long for the system. Links are not followed."""
    todo = [folder]
    while todo:
        with suppress(OSError):  # removed meanwhile, or its path is too long
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
    """Remove the files of the folder, move its subfolders to the top, and return their new names."""
    inner = os.open(name, _OPEN_FOLDER, dir_fd=top)
    try:
        with os.scandir(inner) as scan:
            entries = list(scan)
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=inner)
                continue
            moved = f"{_PREFIX}{uuid.uuid4().hex}"
            os.chmod(entry.name, 0o700, dir_fd=inner)  # a folder must be writable to be moved
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
    """Rename a folder to target, replacing what is there. Of two concurrent calls, the last one wins."""
    target.parent.mkdir(parents=True, exist_ok=True)
    while True:
        aside = target.with_name(f"{_PREFIX}{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            target.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        if _renamed(content, target):
            return


def _renamed(content: Path, target: Path) -> bool:
    """Rename a folder to target; False if there is one with files."""
    try:
        content.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def publish(content: Path, target: Path, intact: Callable[[Path], bool] = is_intact) -> None:
    """Rename a complete folder to target. The second of two callers keeps the first one's folder; a damaged one is
    replaced.

    Raises:
        StoreError: StorageError when target is damaged again and again.
    """
    for _ in range(3):
        if _renamed(content, target):
            return
        with suppress(FileNotFoundError):  # a sweep removed it first: publish ours
            judged = target.stat()
            if touch(target) and intact(target):  # before it is read: a sweep keeps recently used folders
                return
            _remove_damaged(target, judged)
    raise StoreError(FailureCode.STORAGE_ERROR, f"{target} is damaged and cannot be replaced")


def _remove_damaged(folder: Path, judged: os.stat_result) -> None:
    """Remove the folder that was judged, and not the one that another process has published in its place."""
    with _held(folder, fcntl.LOCK_EX) as is_there:
        if not is_there or not os.path.samestat(folder.stat(), judged):
            return
        aside = folder.with_name(f"{_PREFIX}{uuid.uuid4().hex}")
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
