"""Interrupted and killed runs go on as if nothing had happened: same rows, bit-identical losses."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.errors import TrainerError, to_outcome
from hone_trainer.run import rows
from hone_trainer.store import contents, manifest
from hone_trainer.training import checkpoints
from hone_trainer.training.callbacks import Report

pytestmark = pytest.mark.trainer
Capture = pytest.CaptureFixture[str]


def folder_of(plan: Any) -> Path:
    return Path(plan.work_path) / "checkpoints"


def weights(plan: Any, form: str, file: str) -> bytes:
    return (Path(plan.output_path) / form / file).read_bytes()


@pytest.mark.faults("T1")
@pytest.mark.parametrize(
    ("adapter", "training", "form", "file"),
    [
        ({"type": "LoRA", "dropout": "0.1"}, {}, "adapter", "adapter_model.safetensors"),
        ({"type": "None"}, {"l2ToStart": "5"}, "full", "model.safetensors"),
        (
            {"type": "None"},
            {"optimizer": "PagedAdamW8bit", "activationCheckpointing": "Auto"},
            "full",
            "model.safetensors",
        ),
    ],
)
def test_interrupted_twice_equals_undisturbed(
    runs: Any,
    make_plan: Any,
    interrupt: Any,
    adapter: dict[str, str],
    training: dict[str, str],
    form: str,
    file: str,
) -> None:
    """With dropout, so that the state of the random generators counts; over the border of an epoch (10 steps). Weights
    are held at those of the first attempt's start."""
    common = {"adapter": adapter, "training": {"maxSteps": 14, **training}, "evaluation": {"samples": 2}}
    whole, broken = make_plan("whole", **common), make_plan("broken", **common)
    expected = runs.finish(whole)
    assert interrupt(broken, 4).step == 5
    assert interrupt(broken, 8).step == 9
    result = runs.finish(broken)
    assert result.start_step == 9
    assert len(result.samples) == 2
    assert result.samples == expected.samples
    assert runs.curve(broken, form) == runs.curve(whole, form)
    assert weights(broken, form, file) == weights(whole, form, file)
    assert result.numbers[0].base is not None


def test_a_run_that_was_stopped_at_its_end_only_exports(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[str] = []
    monkeypatch.setattr("peft.PeftModel.create_or_update_model_card", lambda _, folder: rendered.append(folder))
    plan = make_plan()
    first = runs.finish(plan)
    files = {file.name for file in folder_of(plan).rglob("*")}
    assert "adapter_model.safetensors" in files
    assert not {"README.md", "training_args.bin"} & files, "nothing reads them"
    assert rendered == []
    shutil.rmtree(plan.output_path)
    again = runs.finish(plan)
    assert again.start_step == again.steps == 8
    assert [a.format for a in again.artifacts] == ["Adapter"]
    assert again.numbers == first.numbers


def test_early_stopping_keeps_its_patience_over_attempts(runs: Any, make_plan: Any, interrupt: Any) -> None:
    common = {
        "adapter": {"type": "None"},
        "training": {"maxSteps": 60, "learningRate": "2e-2", "scheduler": "Constant"},
        "evaluation": {"everySteps": 2, "samples": 0},
        "checkpoints": {"everySteps": 1},
        "earlyStopping": {"patience": 3},
    }
    whole, broken = make_plan("whole", **common), make_plan("broken", **common)
    expected = runs.finish(whole)
    assert expected.stopped_early
    interrupt(broken, expected.steps + 2)  # amid the patience
    result = runs.finish(broken)
    assert (result.steps, result.stopped_early) == (expected.steps, True)
    assert result.numbers == expected.numbers


@pytest.mark.faults("T4")
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "manifest", "extra"])
def test_a_damaged_checkpoint_is_not_used(
    runs: Any, make_plan: Any, interrupt: Any, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(training={"maxSteps": 12}, evaluation={"samples": 0})
    interrupt(plan, 8)
    store = checkpoints.RunCheckpoints(folder_of(plan), 2)
    assert store.steps() == [8, 9]
    file = store.path(9) / "optimizer.pt"
    if damage == "truncate":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "flip":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "delete":
        file.unlink()
    elif damage == "manifest":
        (store.path(9) / manifest.MANIFEST).unlink()
    else:
        (store.path(9) / "more.bin").write_bytes(b"x")
    result = runs.finish(plan)
    assert result.start_step == 8
    assert "CheckpointCorrupt: step-000009 is not used" in capsys.readouterr().err


def test_checkpoints_of_another_plan_are_never_resumed(runs: Any, make_plan: Any) -> None:
    runs.finish(make_plan(training={"maxSteps": 2}))
    with pytest.raises(TrainerError, match="checkpoints of another plan"):
        runs.finish(make_plan(training={"maxSteps": 3}))


def test_checkpoints_of_an_earlier_release_are_resumed(make_plan: Any) -> None:
    """Its plan had no field that is absent today, so that its digest is another one."""
    plan = make_plan(training={"maxSteps": 2})
    rows.claim(plan)
    folder = Path(plan.work_path)
    (folder / "plan.json").write_text(plan.model_dump_json(by_alias=True, exclude_none=True))
    (folder / "plan.sha256").write_text("0" * 64)
    rows.claim(plan)
    with pytest.raises(TrainerError, match="checkpoints of another plan"):
        rows.claim(make_plan(training={"maxSteps": 3}))


def test_kept_are_the_newest_and_the_best() -> None:
    assert checkpoints.to_remove([2, 4, 6, 8], keep=2, best=None) == [2, 4]
    assert checkpoints.to_remove([2, 4, 6, 8], keep=2, best=4) == [2]
    assert checkpoints.to_remove([2], keep=2, best=None) == []


@pytest.mark.faults("T5")
def test_a_full_disk_leaves_the_previous_checkpoint(runs: Any, make_plan: Any, interrupt: Any) -> None:
    """The volume of the checkpoints is a file system that has room for one and a half of them."""
    plan = make_plan(training={"maxSteps": 12}, evaluation={"samples": 0})
    interrupt(plan, 4)
    size = sum(f.stat().st_size for f in folder_of(plan).rglob("*") if f.is_file()) // 2
    saved = {p.name: p for p in folder_of(plan).iterdir() if p.is_dir()}
    small = folder_of(plan).with_name("small")
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={int(size * 2.5)}", "tmpfs", str(small)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        for name, path in saved.items():
            shutil.copytree(path, small / name)
        shutil.rmtree(folder_of(plan))
        folder_of(plan).symlink_to(small)
        with pytest.raises((OSError, TrainerError)) as caught:
            runs.finish(plan)
        outcome = to_outcome(caught.value)
        assert outcome.failure is not None
        assert (outcome.failure.code, outcome.exit_code) == ("DiskFull", 74)
        store = checkpoints.RunCheckpoints(folder_of(plan), 2)
        assert store.newest_valid(print) == store.path(5)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_training_goes_on_while_a_checkpoint_becomes_complete(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, goes_on, met = make_plan(evaluation={"samples": 0}), threading.Event(), []
    write, end_step = manifest.write, Report.on_step_end

    def write_later(folder: Path, *args: Any) -> str:
        if folder.name == checkpoints.PARTIAL:
            met.append(goes_on.wait(60))
        return write(folder, *args)

    def end(*args: Any, **kwargs: Any) -> None:
        end_step(*args, **kwargs)
        if checkpoints.RunCheckpoints(folder_of(plan), 2).partial.exists():
            goes_on.set()

    monkeypatch.setattr(manifest, "write", write_later)
    monkeypatch.setattr(Report, "on_step_end", end)
    runs.finish(plan)
    assert met == [True, True]
    assert checkpoints.RunCheckpoints(folder_of(plan), 2).steps() == [4, 8]


@pytest.mark.faults("T5")
@pytest.mark.parametrize("failing", [2, 4])
def test_a_disk_that_is_full_when_files_are_flushed(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """As a network file system says it: all writes succeeded. Also for the last checkpoint."""
    plan = make_plan(training={"maxSteps": 8}, evaluation={"samples": 0}, checkpoints={"everySteps": 2, "keep": 9})
    write, written = manifest.write, []

    def write_or_fail(folder: Path, *args: Any) -> str:
        if folder.name == checkpoints.PARTIAL:
            written.append(folder)
            if len(written) == failing:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, *args)

    monkeypatch.setattr(manifest, "write", write_or_fail)
    with pytest.raises(OSError, match="No space left") as caught:
        runs.finish(plan)
    outcome = to_outcome(caught.value)
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.exit_code) == ("DiskFull", 74)
    assert not list(Path(plan.output_path).rglob("*.safetensors"))
    monkeypatch.undo()
    assert checkpoints.RunCheckpoints(folder_of(plan), 9).steps() == list(range(2, 2 * failing, 2))
    assert runs.finish(plan).start_step == 2 * (failing - 1)


def test_an_error_leaves_a_checkpoint_under_way_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, completion, write = checkpoints.RunCheckpoints(tmp_path, 2), checkpoints.Completion(), manifest.write

    def write_late(folder: Path) -> str:
        time.sleep(0.2)
        return write(folder)

    monkeypatch.setattr(manifest, "write", write_late)
    (store.begin() / "weights").write_bytes(b"x")

    def fail() -> None:
        with completion.before_error():
            completion.begin(store, 3, None, ())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.newest_valid(print) == store.path(3)
    assert completion.settle() is None


@pytest.mark.faults("T3")
@pytest.mark.parametrize("point", checkpoints.POINTS)
def test_killed_inside_the_writing_of_a_checkpoint(runs: Any, make_plan: Any, interrupt: Any, point: str) -> None:
    common = {"training": {"maxSteps": 12}, "evaluation": {"samples": 0}}
    plan, whole = make_plan("killed", **common), make_plan("whole", **common)
    interrupt(plan, 4)
    process = runs.start(plan, HONE_FAILPOINT=point)
    assert runs.wait(plan, process, -signal.SIGKILL) is None
    result = runs.finish(plan)
    assert result.start_step == (8 if point == "after-rename" else 5)
    runs.finish(whole)
    assert runs.curve(plan) == runs.curve(whole)
    assert not checkpoints.RunCheckpoints(folder_of(plan), 2).partial.exists()


def test_sigterm_to_the_process_saves_and_exits_75(runs: Any, make_plan: Any) -> None:
    plan = make_plan(training={"maxSteps": 100000}, evaluation={"samples": 0, "everySteps": 100000})
    started = time.time()
    process = runs.start_program(plan)
    runs.wait_for(checkpoints.RunCheckpoints(folder_of(plan), 2).path(8), process)
    process.send_signal(signal.SIGTERM)
    outcome = runs.wait(plan, process, 75)
    failure = outcome.failure
    assert failure is not None
    assert failure.code == "Interrupted"
    assert set(outcome.phases) == {"loading", "encoding", "evaluatingBase", "firstStep", "training", "saving"}
    assert sum(outcome.phases.values()) == pytest.approx(time_of(plan, started), abs=2)
    assert checkpoints.RunCheckpoints(folder_of(plan), 2).steps()[-1] == failure.step


@pytest.mark.parametrize("ranks", [1, 2])
def test_sigterm_before_the_first_step_ends_the_process_at_once(runs: Any, make_plan: Any, ranks: int) -> None:
    """Also in the midst of a stage: here the rows come from a pipe that never ends."""
    plan = make_plan(processesPerNode=ranks)
    rows = Path(plan.datasets[0].path)
    pipe = Path(plan.work_path).parent / "rows.jsonl"
    pipe.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(pipe)
    unknown = plan.datasets[0].model_copy(update={"path": str(pipe), "digest": contents.UNKNOWN})
    plan = plan.model_copy(update={"datasets": [unknown]})
    started = time.time()
    process = runs.start(plan)
    with writer(pipe, process) as stream:
        stream.write(rows.read_bytes().splitlines(keepends=True)[0])
        until_blocked(stream, process)
        process.send_signal(signal.SIGTERM)
        outcome = runs.wait(plan, process, 75)
    failure = outcome.failure
    assert failure.code == "Interrupted"
    assert set(outcome.phases) <= {"loading", "encoding"}
    assert sum(outcome.phases.values()) == pytest.approx(time_of(plan, started), abs=2)
    assert "before the first step" in failure.message
    while has_reader(pipe):  # what the process had started ends with it
        time.sleep(0.01)


def time_of(plan: Any, started: float) -> float:
    """Seconds from `started` until the process wrote its outcome."""
    return (Path(plan.work_path).parent / "termination-log-0").stat().st_mtime - started


def until_blocked(stream: Any, process: Any) -> None:
    """Until what was written has been read, and the process sleeps.

    Python runs handlers between instructions, or when a system call is interrupted. A signal just before a read that
    never ends would wait for the data, so this test must not send one there.
    """
    asleep, unread = 0, array.array("i", [1])
    while asleep < 3 or unread[0]:
        fcntl.ioctl(stream, termios.FIONREAD, unread)
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0
        time.sleep(0.02)


def has_reader(pipe: Path) -> bool:
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


@contextlib.contextmanager
def writer(pipe: Path, process: Any) -> Iterator[Any]:
    """The pipe's other end, from when the process reads it."""
    while True:
        assert process.poll() is None, f"the run ended with {process.returncode}"
        try:
            handle = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads yet
                raise
            time.sleep(0.01)
            continue
        with open(handle, "wb", buffering=0) as stream:
            yield stream
        return
