"""Rows encoded by several pods, here processes of one machine: the same files as by one, also if a pod is killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.runs.forks import Fork, Forks

from hone_api.contract import encoding
from hone_api.plan import POD_INDEX_ENV, TrainingPlan
from hone_trainer.encoding import chunks
from hone_trainer.errors import ConfigError
from hone_trainer.run import encode, launch
from hone_trainer.store import part_folder

pytestmark = pytest.mark.trainer
POD = """
from hone_trainer.encoding import chunks
from hone_trainer.run import encode

chunks.LEAST, encode.cores = 300, lambda: 1
"""
"""Python that cuts a few rows into many parts, and does them in one process."""
Start = Callable[[Path, int], Fork]


@pytest.fixture
def start(forks: Callable[[], Forks], tmp_path: Path) -> Start:
    """Starts the pod of this index of the plan in a file."""

    def pod(plan: Path, index: int) -> Fork:
        log = tmp_path / f"log-{plan.stem}-{index}"
        return forks().start(["encode", str(plan)], {POD_INDEX_ENV: str(index)}, log, before=POD)

    return pod


def _files(plan: TrainingPlan) -> dict[str, bytes]:
    folder = Path(str(plan.encoded_path))
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _plan(make_plan: Any, folder: Path, pods: int | None) -> tuple[TrainingPlan, Path]:
    plan = make_plan("run", encodedPath=str(folder)).model_copy(update={"pods": pods})
    path = folder.with_suffix(".json")
    path.write_text(plan.model_dump_json(by_alias=True, exclude_none=True))
    return plan, path


@pytest.fixture
def alone(make_plan: Any, tmp_path: Path, start: Start) -> dict[str, bytes]:
    """The files as one pod writes them."""
    plan, path = _plan(make_plan, tmp_path / "one", None)
    assert start(path, 0).wait() == 0
    assert len({name.partition("/")[0] for name in _files(plan)}) == len(encoding.keys(plan) or ()) == 2
    return _files(plan)


@pytest.mark.parametrize("pods", [2, 3])
def test_several_pods_encode_the_same_as_one_although_all_are_killed(
    make_plan: Any, tmp_path: Path, start: Start, alone: dict[str, bytes], pods: int
) -> None:
    """At a random moment each, after some parts are there; then each of them is replaced."""
    plan, path = _plan(make_plan, tmp_path / "shared", pods)
    first = [start(path, index) for index in range(pods)]
    while not list((tmp_path / "shared").glob(".work-*/parts/000000-*")):
        assert first[0].poll() is None
        time.sleep(0.01)
    for process in random.sample(first, pods):
        time.sleep(random.random() / 20)
        os.kill(process.pid, signal.SIGKILL)
    assert [process.wait() for process in first] == [-signal.SIGKILL] * pods
    second = [start(path, index) for index in range(pods)]
    assert [process.wait() for process in second] == [0] * pods
    # A pod that began to add a part when the first one had just ended leaves it for the sweep.
    assert {name: data for name, data in _files(plan).items() if not name.startswith(".work-")} == alone


def test_the_first_pod_waits_for_nobody(make_plan: Any, tmp_path: Path, start: Start, alone: dict[str, bytes]) -> None:
    plan, path = _plan(make_plan, tmp_path / "shared", 3)
    assert start(path, 0).wait() == 0
    assert _files(plan) == alone
    assert start(path, 1).wait() == 0, "a pod that is late has nothing to do"
    assert _files(plan) == alone


def test_another_pod_leaves_only_its_share(make_plan: Any, tmp_path: Path, start: Start) -> None:
    _, path = _plan(make_plan, tmp_path / "shared", 3)
    assert start(path, 1).wait() == 0
    made = [int(file.name.partition("-")[0]) for file in (tmp_path / "shared").glob(".work-*/parts/*")]
    assert made
    assert {index % 3 for index in made} == {1}


def test_a_pod_whose_first_one_has_ended_stops(make_plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that it adds to is gone: the rows are published, or nobody wants them."""
    plan, _ = _plan(make_plan, tmp_path / "shared", 2)

    def gone(folder: Path, *_: Any) -> None:
        folder.parent.rename(tmp_path / "aside")
        raise FileNotFoundError(folder)

    monkeypatch.setattr(part_folder, "put", gone)
    monkeypatch.setattr(encode, "cores", lambda: 1)
    monkeypatch.setattr(chunks, "LEAST", 300)
    monkeypatch.setenv(POD_INDEX_ENV, "1")
    assert encode.run(plan.model_copy(update={"evaluation_datasets": []})) is None
    assert (tmp_path / "aside").exists()


def test_a_run_has_no_other_pods(make_plan: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`pods` of a plan is for `encode`"):
        launch.run(make_plan().model_copy(update={"pods": 2}), tmp_path)
