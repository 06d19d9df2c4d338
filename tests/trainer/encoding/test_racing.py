"""Jobs that link, write, read and sweep the same encoded folder at the same moment, as processes that can be killed."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone_api.contract import encoding
from hone_api.plan import SweepPlan
from hone_trainer.datasets import sweep
from hone_trainer.encoding import reuse
from hone_trainer.encoding.mapped import Mapped
from hone_trainer.run import encode
from hone_trainer.store import folders, manifest, part_folder
from hone_trainer.store.part_folder import PartFolder

pytestmark = pytest.mark.trainer
FORK = multiprocessing.get_context("fork")
ROUNDS = pytest.mark.parametrize("rounds", [4, pytest.param(40, marks=pytest.mark.long)])
HANG = 300.0
HOUR = 3600
LONG_AGO = 2 * HOUR


class Racers:
    """Processes of one round; what goes wrong in one of them is kept in a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.is_over = folder / "over"
        folder.mkdir()
        self._running: list[Any] = []

    def start(self, name: str, work: Callable[[], object]) -> Any:
        """Begin a process."""

        def run() -> None:
            code = 1
            try:
                work()
                code = 0
            except BaseException as error:
                (self._folder / f"{len(self._running)}.error").write_text(f"{name}: {error!r}")
            finally:
                os._exit(code)

        process = FORK.Process(target=run, name=name)
        process.start()
        self._running.append(process)
        return process

    def until_over(self, work: Callable[[], object]) -> Callable[[], None]:
        """The work again and again until `end` was called."""

        def repeat() -> None:
            while not self.is_over.exists():
                work()

        return repeat

    def wait(self, *processes: Any) -> None:
        for process in processes:
            process.join(HANG)
            assert process.exitcode is not None, f"{process.name} hangs"

    def end(self) -> list[str]:
        """Wait for all; gives what went wrong."""
        self.is_over.touch()
        self.wait(*self._running)
        return [file.read_text() for file in sorted(self._folder.glob("*.error"))]


class Store:
    """Encoded rows of one model, and plans of another one with the same tokenizer."""

    def __init__(self, make_plan: Any, tmp_path: Path, model: Path) -> None:
        shutil.copytree(model, tmp_path / "other")
        self.folder = tmp_path / "store"
        fields = {"encodedPath": str(self.folder / "encoded")}
        plan = make_plan("first", **fields)
        encode.run(plan)
        self.plan = make_plan("again", modelPath=str(tmp_path / "other"), modelCommit="other", **fields)
        self.keys = encoding.keys(self.plan) or []
        self.targets = [self.folder / "encoded" / key for key in self.keys]
        first = [self.folder / "encoded" / key for key in encoding.keys(plan) or ()]
        self.expected = {target: _content(folder) for target, folder in zip(self.targets, first, strict=True)}

    def link(self) -> None:
        """As a job whose rows are there for another model."""
        encode.run(self.plan)

    def write(self) -> None:
        """As a job that finds no rows of another model."""
        pytest.MonkeyPatch().setattr(reuse, "reused", lambda *_: False)
        encode.run(self.plan)

    def sweep(self) -> None:
        """As one whose list has the folders: when it was made, no job wanted them."""
        plan = SweepPlan(store=str(self.folder), remove=[], encoded=self.keys, as_of=time.time(), grace_seconds=HOUR)
        sweep.run(plan)

    def reader(self) -> Callable[[], None]:
        """Maps what is there as a job's ranks do: a folder that was there stays, whole and right."""
        was_there = set[Path]()

        def read() -> None:
            for target in self.targets:
                if target in was_there or target.exists():
                    was_there.add(target)
                    assert manifest.is_complete(target)
                    assert _content(target) == self.expected[target]

        return read

    def age(self) -> None:
        """The folders as a job left them that ended long ago."""
        for target in self.targets:
            then = time.time() - LONG_AGO
            os.utime(target, (then, then))

    def remove(self) -> None:
        for folder in [*self.targets, *self.folder.glob("encoded/.work-*")]:
            shutil.rmtree(folder)

    def assert_whole(self) -> None:
        """The folders are there, and whoever encodes them next can go on from what a killed process left."""
        for target in self.targets:
            manifest.verify(target)
            assert _content(target) == self.expected[target]
            with folders.resumed_folder(target) as work:
                assert work == target.with_name(f".work-{target.name}"), "a killed process holds the lock"


def _content(folder: Path) -> str:
    """A hash of all that a run reads of encoded rows."""
    rows = Mapped(folder)
    text = repr([list(rows), rows.lengths.tolist(), rows.tokens.tolist(), rows.total, rows.most, rows.counts])
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def store(make_plan: Any, tmp_path: Path, tiny_model: Path) -> Store:
    return Store(make_plan, tmp_path, tiny_model)


@ROUNDS
def test_jobs_that_link_and_write_at_once_leave_whole_folders(store: Store, tmp_path: Path, rounds: int) -> None:
    """While one of them is killed, a third reads, and a sweep has the folders on its list."""
    draw = random.Random(rounds)
    for number in range(rounds):
        racers = Racers(tmp_path / f"round-{number}")
        racers.start("reads", racers.until_over(store.reader()))
        racers.start("sweeps", racers.until_over(store.sweep))
        jobs = [racers.start(work.__name__, work) for work in draw.sample([store.link, store.write, store.write], 3)]
        killed = racers.start("killed", draw.choice([store.link, store.write]))
        time.sleep(draw.random() * 0.4)
        os.kill(killed.pid, signal.SIGKILL)
        racers.wait(*jobs)
        assert racers.end() == [], f"round {number}"
        store.assert_whole()
        store.remove()


@ROUNDS
def test_a_job_that_begins_during_a_sweep_has_its_rows(store: Store, tmp_path: Path, rounds: int) -> None:
    """Nobody wanted the folders for long, and a sweep takes them, until a job and another one want them."""
    draw = random.Random(rounds)
    store.link()
    for number in range(rounds):
        store.age()
        racers = Racers(tmp_path / f"round-{number}")
        jobs = [racers.start("links", store.link)]
        time.sleep(draw.random() * 0.2)
        racers.start("sweeps", racers.until_over(store.sweep))
        jobs.append(racers.start("links as well", store.link))
        racers.wait(*jobs)
        assert racers.end() == [], f"round {number}"
        store.assert_whole()


def _in_another_process(work: Callable[[], object]) -> None:
    process = FORK.Process(target=work)
    process.start()
    process.join(HANG)
    assert process.exitcode == 0


def test_what_a_job_has_begun_to_verify_is_not_swept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """To hash gigabytes takes minutes, in which a sweep may come to a folder that no job wanted when it began."""
    store.link()
    store.age()
    verify = manifest.verify

    def swept(*args: Any, **named: Any) -> Any:
        verified = verify(*args, **named)
        _in_another_process(store.sweep)
        return verified

    monkeypatch.setattr(manifest, "verify", swept)
    result = encode.run(store.plan)
    assert result.reused == 2
    monkeypatch.undo()
    store.assert_whole()


def test_what_a_job_goes_on_from_is_not_swept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier attempt encoded was last written long ago; to read it takes a while."""
    store.link()
    (target, _), found = store.targets, list[set[str]]()
    monkeypatch.setattr(reuse, "reused", lambda *_: False)
    for folder in store.targets:
        shutil.rmtree(folder)
    put, look = part_folder.put, PartFolder.look

    def stopped(*arguments: Any) -> None:
        put(*arguments)
        raise OSError("the node went down")

    monkeypatch.setattr(part_folder, "put", stopped)
    with pytest.raises(OSError, match="went down"):
        encode.run(store.plan)
    monkeypatch.setattr(part_folder, "put", put)
    work = target.with_name(f".work-{target.name}")
    for path in [*work.rglob("*"), work]:
        os.utime(path, (time.time() - LONG_AGO,) * 2)

    def swept(this: PartFolder) -> None:
        _in_another_process(store.sweep)
        look(this)
        found.append({*this.files})

    monkeypatch.setattr(PartFolder, "look", swept)
    encode.run(store.plan)
    assert found[0], "it goes on from what the earlier attempt encoded"
    store.assert_whole()


def test_a_folder_that_replaced_a_damaged_one_stays(store: Store, tmp_path: Path) -> None:
    """Two jobs have seen the damage. The second one must not take away what the first one has published by then."""
    store.link()
    target = store.targets[0]
    contents = [tmp_path / name for name in ("one", "two")]
    for content in contents:
        shutil.copytree(target, content)
    (target / "rows.arrow").unlink()
    first, *_ = inodes = [content.stat().st_ino for content in contents]
    assert len(set(inodes)) == 2
    judged = list[bool]()

    def judge(folder: Path) -> bool:
        judged.append(folders.is_intact(folder))
        if len(judged) == 1:
            _in_another_process(lambda: folders.publish(contents[0], target))
        return judged[-1]

    folders.publish(contents[1], target, judge)
    assert judged == [False, True]
    assert target.stat().st_ino == first
    manifest.verify(target)
