"""Runs that are written for TensorBoard, Trackio and W&B, read back by these: one run over all attempts."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import socket
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone_api.plan import TrackingInput
from hone_trainer.endpoints import tracker as trackers
from hone_trainer.endpoints import tracker_files
from hone_trainer.endpoints.mlflow.run import Point
from hone_trainer.endpoints.tracker import QueuedTracker
from hone_trainer.endpoints.tracker_files import FILES, FileRun, TensorBoardFiles

pytestmark = pytest.mark.trainer
UID = "0f1e2d3c-0000-4000-8000-000000000001"
Curves = dict[str, list[tuple[int, float]]]
EACH = pytest.mark.parametrize("kind", FILES)


def asked(folder: Path, kind: str, **fields: Any) -> TrackingInput:
    uri = f"pvc://hone-store/tracking/{kind.lower()}"
    return TrackingInput(type=kind, uri=uri, path=str(folder), experiment="faq", uid=UID, **fields)


def tensorboard(folder: Path) -> Curves:
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    reader = EventMultiplexer({"all": str(next(folder.rglob("events.*")).parent)})
    reader.Reload()
    run = reader.GetAccumulator("all")
    return {tag: [(event.step, event.value) for event in run.Scalars(tag)] for tag in run.Tags()["scalars"]}


def trackio(folder: Path) -> Curves:
    from trackio.sqlite_storage import SQLiteStorage

    [run] = SQLiteStorage.get_runs("faq")
    curves: Curves = {}
    for row in SQLiteStorage.get_logs("faq", run):
        step = row.pop("step")
        for key, value in row.items():
            if key != "timestamp":
                curves.setdefault(key, []).append((step, value))
    return curves


def wandb(folder: Path) -> Curves:
    """What `wandb sync` would send: the records of the run's one file, which is a log of LevelDB."""
    from wandb.proto.wandb_internal_pb2 import Record

    [file] = folder.rglob("*.wandb")
    data, at, parts, curves = file.read_bytes(), 7, b"", Curves()
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # a header does not cross blocks
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts, at = parts + data[at + 7 : at + 7 + length], at + 7 + length
        if kind not in (1, 4):  # the last part of a record
            continue
        record, parts = Record.FromString(parts), b""
        values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for key, value in values.items():
            if not key.startswith("_"):
                curves.setdefault(key, []).append((values["_step"], value))
    return curves


READERS: dict[str, Callable[[Path], Curves]] = {"TensorBoard": tensorboard, "Trackio": trackio, "WandB": wandb}


@pytest.fixture(autouse=True)
def own_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trackio reads its folder's name once in a process, and a trainer has one run."""
    from trackio import sqlite_storage, utils

    for module in (sqlite_storage, utils):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "tracking")
    monkeypatch.setattr(trackers, "SETTLE_SECONDS", 3600.0)


@EACH
def test_a_run_that_is_interrupted_goes_on_as_one_run(
    kind: str, runs: Any, make_plan: Any, interrupt: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "tracking"
    plan = make_plan(tracking=asked(folder, kind).to_json())
    interrupt(plan, 4)
    result = runs.finish(plan.model_copy(update={"attempt": 2}))

    assert not any("spec.tracking" in sentence for sentence in result.advice)
    assert result.tracking.run_id == f"{plan.run}-{UID[:8]}"
    assert result.tracking.uri == f"pvc://hone-store/tracking/{kind.lower()}"
    curves = READERS[kind](folder)
    assert [step for step, _ in curves["loss"]] == list(range(1, result.steps + 1))
    assert [step for step, _ in curves["eval_loss"]] == sorted({step for step, _ in curves["eval_loss"]})
    assert curves["eval_loss"][0][0] == 0
    tuned = next(n for n in result.numbers if n.name == "loss")
    assert curves[f"tuned.loss.{tuned.dataset}"] == [(result.steps, pytest.approx(float(tuned.tuned)))]


@EACH
def test_steps_that_are_trained_again_are_there_once(kind: str, tmp_path: Path) -> None:
    """The first attempt is killed after step 6, in the middle of a line; its last checkpoint was that of step 4."""
    folder = tmp_path / "tracking"
    first = FileRun.open(asked(folder, kind), "job")
    first.describe({"method": "SFT"}, 1, 0)
    first.log([Point("loss", 10.0 + step, step, 1000 * step) for step in range(1, 7)])
    first.end("SCHEDULED")
    journal = next(folder.rglob("points.jsonl"))
    journal.write_text(journal.read_text() + '["loss", 1')

    second = FileRun.open(asked(folder, kind), "job")
    second.describe({"method": "SFT"}, 2, 4)
    for step in range(5, 9):
        second.log([Point("loss", 20.0 + step, step, 1000 * step)])
    second.end("FINISHED")
    expected = [(step, (10.0 if step <= 4 else 20.0) + step) for step in range(1, 9)]
    assert READERS[kind](folder) == {"loss": expected}


@EACH
def test_runs_of_a_sweep_share_a_group_and_no_tracker_looks_up_a_host(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: hosts.append(host))
    folders = []
    for uid in ("aaaaaaaa-1", "bbbbbbbb-2"):
        about = asked(tmp_path / "tracking", kind, group="lr/../..").model_copy(update={"uid": uid})
        run = FileRun.open(about, "job")
        run.describe({}, 1, 0)
        run.log([Point("loss", 1.0, 1, 1000)])
        run.end("FINISHED")
        folders.append(run.run_id)
    assert hosts == []
    assert folders == ["job-aaaaaaaa", "job-bbbbbbbb"]
    written = sorted(path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("points.jsonl"))
    assert written == [f"tracking/faq/lr------/{name}" for name in folders]
    if kind == "Trackio":
        from trackio.sqlite_storage import SQLiteStorage

        configs = [SQLiteStorage.get_run_config("faq", name) or {} for name in folders]
        assert [config["_Group"] for config in configs] == ["lr/../.."] * 2


class FullDisk(TensorBoardFiles):
    """Whose second write stops in the middle."""

    writes = 0

    def write(self, points: Any) -> None:
        type(self).writes += 1
        if self.writes == 2:
            super().write(points[:1])
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(points)


def test_a_full_disk_costs_one_warning_and_no_value_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tracker_files.FILES, "TensorBoard", FullDisk)
    about, said = asked(tmp_path, "TensorBoard"), list[str]()
    tracker = QueuedTracker(about, lambda: FileRun.open(about, "job"), 1, said.append, 3600, pause=0.01)
    tracker.describe({"method": "SFT"})
    for step in range(1, 4):
        tracker.measure(step, {"loss": float(step), "grad_norm": 0.5})
        run, missing = tracker.settle()
        assert missing is None
    tracker.close("FINISHED")
    assert run is not None
    assert [sentence.partition(";")[0] for sentence in said] == ["warning: spec.tracking: no space left for the output"]
    assert tensorboard(tmp_path) == {
        "loss": [(1, 1.0), (2, 2.0), (3, 3.0)],
        "grad_norm": [(1, 0.5), (2, 0.5), (3, 0.5)],
    }


@EACH
def test_a_tracker_takes_the_longest_name_of_an_experiment(kind: str, tmp_path: Path) -> None:
    about = asked(tmp_path / "tracking", kind).model_copy(update={"experiment": "\u0436" * 250})
    run = FileRun.open(about, "job")
    run.describe({}, 1, 0)
    run.log([Point("loss", 1.0, 1, 1000)])
    run.end("FINISHED")


def test_long_names_that_begin_alike_are_folders_of_their_own() -> None:
    folders = {tracker_files.as_folder("\u0436" * 200 + end) for end in "ab"}
    assert len(folders) == 2
    assert all(len(folder.encode()) <= tracker_files.LONGEST_NAME for folder in folders)
    assert tracker_files.as_folder("x" * tracker_files.LONGEST_NAME) == "x" * tracker_files.LONGEST_NAME


def test_tries_that_fail_add_nothing_to_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: Any) -> Any:
        raise RuntimeError("no such tracker")

    run, point = FileRun.open(asked(tmp_path, "TensorBoard"), "job"), Point("loss", 1.0, 1, 1000)
    run.describe({}, 1, 0)
    with monkeypatch.context() as patched:
        patched.setitem(tracker_files.FILES, "TensorBoard", broken)
        sizes = []
        for _ in range(4):
            with pytest.raises(RuntimeError):
                run.log([point])
            sizes.append(next(tmp_path.rglob("points.jsonl")).stat().st_size)
    assert sizes[1:] == sizes[1:2] * 3
    run.log([point])
    assert tensorboard(tmp_path) == {"loss": [(1, 1.0)]}


def test_trackio_writes_to_the_store_whoever_has_imported_it(tmp_path: Path) -> None:
    """TRL does, and its folder is that of this time."""
    from trackio.utils import TRACKIO_DIR

    store = tmp_path / "store"
    assert store != TRACKIO_DIR
    run = FileRun.open(asked(store, "Trackio"), "job")
    run.describe({}, 1, 0)
    run.log([Point("loss", 1.0, 1, 1000)])
    assert (store / "faq.db").exists()


def test_a_process_of_wandb_that_is_killed_costs_no_value(tmp_path: Path) -> None:
    def log(step: int) -> None:
        run.log([Point("loss", float(step), step, 1000)])

    run, steps = FileRun.open(asked(tmp_path, "WandB"), "job"), itertools.count(1)
    run.describe({}, 1, 0)
    log(next(steps))
    children = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    (server,) = [pid for pid in children if "wandb" in Path(f"/proc/{pid}/comm").read_text()]
    os.kill(int(server), signal.SIGKILL)
    with pytest.raises(ConnectionError):  # at the latest when its socket is closed
        deque(map(log, steps), maxlen=0)
    failed = next(steps) - 1
    log(failed)
    run.end("FINISHED")
    assert wandb(tmp_path) == {"loss": [(step, float(step)) for step in range(1, failed + 1)]}


def test_a_store_that_cannot_be_written_costs_a_run_its_curve_and_nothing_else(
    runs: Any, make_plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "SETTLE_SECONDS", 0.5)
    (tmp_path / "file").write_text("")
    result = runs.finish(make_plan(tracking=asked(tmp_path / "file" / "x", "WandB").to_json()))
    assert (result.steps, result.tracking) == (8, None)
    [sentence] = [sentence for sentence in result.advice if "spec.tracking" in sentence]
    assert "did not reach WandB in pvc://hone-store/tracking/wandb" in sentence
    assert capsys.readouterr().err.count("warning: spec.tracking") == 1
