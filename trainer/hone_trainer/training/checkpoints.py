"""Checkpoints that are complete or absent.

A checkpoint is written into `.partial`, gets a manifest of sizes and SHA-256, is flushed to disk and renamed to
`step-<n>`: a crash at any moment leaves either a whole checkpoint or none under that name. Resuming takes the newest
one whose every file matches its manifest, and never unpickles another. (transformers writes in place and resumes
from an incomplete folder without a word.)

A step waits until the files are written, which is a copy into the host's page cache. Hash, flush and rename follow in
a thread, for one checkpoint at a time.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.store import fence, manifest

_NAME = re.compile(r"^step-(\d+)$")
PARTIAL = ".partial"
FAILPOINT_ENV = "HONE_FAILPOINT"
"""Tests only: the point at which the process kills itself, one of POINTS."""
POINTS = ("before-manifest", "before-rename", "after-rename")


@dataclass(frozen=True)
class RunCheckpoints:
    """The checkpoints of one run, in `folder`."""

    folder: Path
    keep: int
    plan: TrainingPlan | None = None
    """Of the attempt that writes; None for who only reads."""

    @property
    def partial(self) -> Path:
        """Where the next checkpoint is written; each attempt has its own."""
        attempt = self.plan.attempt if self.plan else 1
        return self.folder / (PARTIAL if attempt == 1 else f"{PARTIAL}-{attempt}")

    def _check(self) -> None:
        if self.plan is not None:
            fence.check(self.plan)

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of `step`; six digits keep the names in order."""
        return self.folder / f"step-{step:06d}"

    def steps(self) -> list[int]:
        """Steps with a checkpoint, valid or not, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(int(m.group(1)) for p in self.folder.iterdir() if (m := _NAME.match(p.name)))

    def size_bytes(self) -> int:
        """Size of the checkpoints' files, whether a checkpoint is valid or not."""
        return sum(
            file.stat().st_size for step in self.steps() for file in self.path(step).rglob("*") if file.is_file()
        )

    def begin(self) -> Path:
        """An empty folder for the next checkpoint. On the first rank only.

        Raises:
            TrainerError: Interrupted, if a later attempt has taken over.
        """
        self._check()
        self.clear_partial()
        self.partial.mkdir(parents=True)
        return self.partial

    def complete(self, step: int, best: int | None, drop: Iterable[str] = ()) -> Path:
        """Make the partial checkpoint the one of `step`, and remove checkpoints that are no longer kept.

        On the first rank only, after all ranks have written.

        Args:
            best: step that is kept in addition to the newest ones.
            drop: names of files that nothing reads.
        """
        target = self.path(step)
        _flatten(self.partial)
        for name in drop:
            (self.partial / name).unlink(missing_ok=True)
        _failpoint("before-manifest")
        manifest.write(self.partial)
        _failpoint("before-rename")
        self._check()
        if target.exists():  # a run that was resumed from an older checkpoint passes this step again
            shutil.rmtree(target)
        self.partial.rename(target)
        _sync(self.folder)
        _failpoint("after-rename")
        for old in to_remove(self.steps(), self.keep, best):
            shutil.rmtree(self.path(old))
        return target

    def newest_valid(self, report: Callable[[str], None]) -> Path | None:
        """The newest checkpoint whose every file matches its manifest; reports those that do not."""
        for step in reversed(self.steps()):
            path = self.path(step)
            try:
                manifest.verify(path)
            except TrainerError as error:
                report(f"CheckpointCorrupt: {path.name} is not used: {error}")
                continue
            return path
        return None

    def clear_partial(self) -> None:
        """Remove what a crash, a full disk, or an earlier attempt left half written."""
        for folder in self.folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Complete:
    """A checkpoint that is complete."""

    step: int
    size_bytes: int
    """Of all checkpoints then."""


class Completion:
    """Makes checkpoints complete in a thread, while training goes on: one at a time. On the first rank only."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._running: Future[Complete] | None = None

    def begin(self, store: RunCheckpoints, step: int, best: int | None, drop: Iterable[str]) -> None:
        """Begin with the partial checkpoint; arguments are those of `RunCheckpoints.complete`."""

        def complete() -> Complete:
            with naming_disk_errors(store.folder):
                store.complete(step, best, drop)
            return Complete(step, store.size_bytes())

        self._running = self._thread.submit(complete)

    def settle(self, *, wait: bool = True) -> Complete | None:
        """What has become complete since the last call; None for nothing.

        Raises:
            TrainerError, OSError: what has failed in the thread.
        """
        running = self._running
        if running is None or not (wait or running.done()):
            return None
        complete = running.result()
        self._running = None
        return complete

    @contextmanager
    def before_error(self) -> Iterator[None]:
        """An error of the block leaves it when no thread writes any more."""
        try:
            yield
        except BaseException:
            with suppress(Exception):  # the first error counts
                self.settle()
            raise


@contextmanager
def naming_disk_errors(folder: Path) -> Iterator[None]:
    """Turn what writers raise on a full disk into DiskFull (torch's raises a RuntimeError about a stream)."""
    try:
        yield
    except (TrainerError, OSError):
        raise
    except Exception as error:
        if _is_full(folder):
            raise TrainerError(FailureCode.DISK_FULL, f"no space left while writing {folder}: {error}") from error
        raise


def _is_full(folder: Path, probe_bytes: int = 1 << 20) -> bool:
    """Whether another mebibyte cannot be written; unlike free space, this also knows of quotas."""
    probe = folder / ".probe"
    try:
        probe.write_bytes(bytes(probe_bytes))
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    finally:
        probe.unlink(missing_ok=True)
    return False


def to_remove(steps: Iterable[int], keep: int, best: int | None) -> list[int]:
    """Steps whose checkpoints go: all but the newest `keep` and the best."""
    return [step for step in sorted(steps)[:-keep] if step != best]


def ranks_of(path: Path) -> int:
    """Number of ranks that saved a checkpoint: each left its random state. 0: unknown."""
    return len(list(path.glob("rng_state*.pth")))


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    match = _NAME.match(path.name)
    if not match:
        raise ValueError(f"{path} is not a checkpoint")
    return int(match.group(1))


def _flatten(partial: Path) -> None:
    """transformers writes into `checkpoint-<n>` below the folder it is given."""
    for inner in list(partial.glob("checkpoint-*")):
        for file in inner.iterdir():
            file.rename(partial / file.name)
        inner.rmdir()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failpoint(point: str) -> None:
    if os.environ.get(FAILPOINT_ENV) == point:
        os.kill(os.getpid(), 9)
