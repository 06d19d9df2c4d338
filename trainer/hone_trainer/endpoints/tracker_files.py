"""Files of trackers that need no server: events of TensorBoard, a database of Trackio, an offline run of W&B.

What a run measured is kept in its `points.jsonl`. Each attempt writes the tracker's own files again from there, without
the steps that it trains again. So a run is one run in the tracker and each step is there once, also after a disk that
was full in the middle of a write.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Protocol

from hone_api.plan import TrackingInput
from hone_trainer.endpoints.mlflow.run import Point

JOURNAL = "points.jsonl"
LONGEST_NAME = 120
"""Bytes of a folder's name: W&B takes 128 characters, a file system 255 bytes, and Trackio's files get a suffix."""


class Tracked(NamedTuple):
    """What a tracker needs to know about a run."""

    folder: Path
    """Of the run; its name is the id of the run."""
    about: TrackingInput
    params: Mapping[str, str]


class Files(Protocol):
    """The files of one tracker for one run, which replace those of an earlier attempt."""

    def __init__(self, run: Tracked) -> None: ...

    def write(self, points: Sequence[Point]) -> None:
        """Add points, in the order of their steps."""

    def end(self, is_finished: bool) -> None:
        """Close the files."""


class TensorBoardFiles:
    """A file of events: https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto."""

    def __init__(self, run: Tracked) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter
        from tensorboardX.summary import text

        for old in run.folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._event = Event
        self._writer = RecordWriter(str(run.folder / f"events.out.tfevents.{time.time_ns()}.hone"))
        rows = [f"| {name} | {value} |" for name, value in {**run.about.tags, **run.params}.items()]
        table = "\n".join(["| parameter | value |", "| --- | --- |", *rows])
        # A TensorBoard that has read the earlier file drops its values.
        restart = SessionLog(status=SessionLog.START)
        for body in ({"file_version": "brain.Event:2"}, {"session_log": restart}, {"summary": text("run", table)}):
            self._writer.write(Event(wall_time=time.time(), **body).SerializeToString())

    def write(self, points: Sequence[Point]) -> None:
        for point in points:
            event = self._event(wall_time=point.milliseconds / 1000, step=point.step)
            event.summary.value.add(tag=point.key, simple_value=point.value)
            self._writer.write(event.SerializeToString())
        self._writer.flush()

    def end(self, is_finished: bool) -> None:
        self._writer.close()


class TrackioFiles:
    """A run in the project's SQLite database, which its other runs share."""

    def __init__(self, run: Tracked) -> None:
        # The store may be NFS, where SQLite's write-ahead log does not work.
        os.environ["TRACKIO_SQLITE_JOURNAL_MODE"] = "delete"
        from trackio import sqlite_storage, utils
        from trackio.sqlite_storage import SQLiteStorage

        # They read TRACKIO_DIR once, when TRL imports them.
        sqlite_storage.TRACKIO_DIR = utils.TRACKIO_DIR = Path(str(run.about.path))
        self._storage, self._run = SQLiteStorage, run
        self._project = as_folder(run.about.experiment)
        labels = {"_Group": run.about.group, "_Created": datetime.now(UTC).isoformat()}
        self._config = {**run.params, **{name: value for name, value in labels.items() if value}}
        SQLiteStorage.delete_run(self._project, run.folder.name, run.folder.name)

    def write(self, points: Sequence[Point]) -> None:
        rows = list(_by_step(points))
        self._storage.bulk_log(
            self._project,
            self._run.folder.name,
            [values for _, _, values in rows],
            [step for step, _, _ in rows],
            [datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat() for _, milliseconds, _ in rows],
            self._config,
            run_id=self._run.folder.name,
        )

    def end(self, is_finished: bool) -> None:
        pass


class WandbFiles:
    """A run in W&B's offline mode, without anything that it would find out about the machine."""

    def __init__(self, run: Tracked) -> None:
        # It asks W&B's server for a place for its own telemetry, also offline.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        for old in run.folder.glob("wandb/offline-run-*"):
            shutil.rmtree(old)
        settings = wandb.Settings(
            mode="offline",
            console="off",
            silent=True,
            symlink=False,
            disable_code=True,
            disable_git=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self._run = wandb.init(
            project=as_folder(run.about.experiment),
            id=run.folder.name,
            name=run.folder.name,
            group=run.about.group,
            dir=run.folder,
            config={**run.about.tags, **run.params},
            reinit="create_new",
            settings=settings,
        )
        self._teardown = wandb.teardown
        self._last = 0

    def write(self, points: Sequence[Point]) -> None:
        for step, _, values in _by_step(points):
            if step >= self._last:
                self._run.log(values, step=step)
                self._last = step
            else:  # W&B takes no earlier step: scores of the best step, after the last one
                self._run.summary.update(values)

    def end(self, is_finished: bool) -> None:
        try:
            self._run.finish(exit_code=0 if is_finished else 1)
        finally:
            self._teardown()  # waits until its process has written the file


FILES: dict[str, type[Files]] = {"TensorBoard": TensorBoardFiles, "Trackio": TrackioFiles, "WandB": WandbFiles}


class FileRun:
    """A run whose tracker reads files.

    Args:
        folder: its own.
    """

    def __init__(self, folder: Path, about: TrackingInput) -> None:
        self.run_id = folder.name
        self._folder, self._about = folder, about
        self._params: Mapping[str, str] = {}
        self._files: Files | None = None

    @classmethod
    def open(cls, about: TrackingInput, name: str) -> FileRun:
        """The run of the job with this uid, in a folder below those of its experiment and of its chain or sweep."""
        parts = map(as_folder, filter(None, (about.experiment, about.group, f"{name[:52]}-{about.uid[:8]}")))
        folder = Path(str(about.path)).joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, about)

    def describe(self, params: Mapping[str, str], attempt: int, step: int) -> None:
        """Begin an attempt that goes on from a step: what an earlier one measured after it does not count."""
        self._keep(point for point in self._read() if point.step <= step)
        self._params = {**params, "attempt": str(attempt)}
        self._files = None

    def log(self, points: Sequence[Point]) -> None:
        """Add points; after a failure, all files of the tracker are written again."""
        files, self._files = self._files, None
        if files is None:  # what failed may have been written, so it is not added
            self._keep([*self._read(), *points])
            points = self._read()
            files = FILES[self._about.type](Tracked(self._folder, self._about, self._params))
        else:
            try:
                with (self._folder / JOURNAL).open("a") as journal:
                    journal.write("".join(["\n", *map(_line, points)]))  # the last line may be half
            except OSError:
                self._files = files  # they miss nothing so far
                raise
        try:
            files.write(points)
        except Exception:
            with suppress(Exception):  # the first error counts
                files.end(False)
            raise
        self._files = files

    def end(self, status: str) -> None:
        """Close the files."""
        if self._files is not None:
            self._files.end(status == "FINISHED")

    def _keep(self, points: Iterable[Point]) -> None:
        journal = self._folder / JOURNAL
        whole = journal.with_suffix(".new")
        whole.write_text("".join(map(_line, points)))
        whole.replace(journal)

    def _read(self) -> list[Point]:
        """By step; of several values for one step, the last."""
        journal = self._folder / JOURNAL
        lines = journal.read_text().splitlines() if journal.exists() else []
        points = {(point.step, point.key): point for line in lines if (point := _point(line))}
        return sorted(points.values(), key=lambda point: point.step)


def as_folder(name: str) -> str:
    """The name as that of one folder, also for W&B and Trackio."""
    folder = re.sub(r"[^-\w]", "-", name).encode()
    if len(folder) > LONGEST_NAME:  # names that begin alike are not the same
        folder = folder[: LONGEST_NAME - 13] + f"-{hashlib.sha256(name.encode()).hexdigest()[:12]}".encode()
    return folder.decode(errors="ignore")


def _line(point: Point) -> str:
    return json.dumps([point.key, point.value, point.step, point.milliseconds]) + "\n"


def _point(line: str) -> Point | None:
    """None: half a line."""
    try:
        return Point(*json.loads(line))
    except (ValueError, TypeError):
        return None


def _by_step(points: Iterable[Point]) -> Iterator[tuple[int, int, dict[str, float]]]:
    """(step, time of its first value in milliseconds, values)."""
    for step, group in groupby(points, key=lambda point: point.step):
        values = list(group)
        yield step, values[0].milliseconds, {point.key: point.value for point in values}
