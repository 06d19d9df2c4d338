"""Work folders of runs: what a sweep removes, what it leaves, and what it measures."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hone_api.plan import SweepPlan
from hone_trainer.datasets import sweep

pytestmark = pytest.mark.pure
LONG_AGO = time.time() - 7200


def run(store: Path, uid: str, newest: float = LONG_AGO) -> Path:
    """A run with a checkpoint, whose last file was written then."""
    folder = store / "runs" / uid
    checkpoint = folder / "checkpoints" / "step-000004"
    checkpoint.mkdir(parents=True)
    for file in (folder / "result.json", folder / "plan.json", checkpoint / "optimizer.pt"):
        file.write_text("0123456789")
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (LONG_AGO, LONG_AGO))
    os.utime(checkpoint / "optimizer.pt", (newest, newest))
    return folder


def plan(store: Path, **fields: object) -> SweepPlan:
    return SweepPlan.model_validate({"store": str(store), "remove": [], "asOf": time.time(), **fields})


def names(store: Path) -> set[str]:
    return {path.name for path in (store / "runs").iterdir()}


def test_runs_of_jobs_that_are_gone_go_and_others_stay(tmp_path: Path) -> None:
    run(tmp_path, "there")
    run(tmp_path, "gone")
    run(tmp_path, "writes", newest=time.time() - 60)
    assert sweep.run(plan(tmp_path)).removed == 0, "a plan of an older operator names no jobs"
    run(tmp_path, ".work-interrupted")
    result = sweep.run(plan(tmp_path, jobs=["there"]))
    assert (result.removed, result.size_bytes) == (2, 60)
    assert names(tmp_path) == {"there", "writes"}
    assert sweep.run(plan(tmp_path, jobs=["there"])).removed == 0


def test_a_list_of_long_ago_spares_a_run_that_began_after_it(tmp_path: Path) -> None:
    run(tmp_path, "new", newest=time.time())
    assert sweep.run(plan(tmp_path, jobs=[], asOf=time.time() - 7200)).removed == 0


def test_of_a_run_that_has_succeeded_the_checkpoints_go_and_its_record_stays(tmp_path: Path) -> None:
    folder = run(tmp_path, "done")
    result = sweep.run(plan(tmp_path, jobs=["done"], checkpoints=["done", "never-was"]))
    assert result.removed == 1
    assert {path.name for path in folder.iterdir()} == {"result.json", "plan.json"}


def test_models_are_never_removed_and_a_link_is_not_followed(tmp_path: Path) -> None:
    model = tmp_path / "models" / "gone" / "attempt-1" / "adapter"
    model.mkdir(parents=True)
    (model / "weights").write_text("0123456789")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "models" / "gone")
    for path in (*(tmp_path / "models").rglob("*"), tmp_path / "models" / "gone"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    os.utime(tmp_path / "runs" / "link", (LONG_AGO, LONG_AGO), follow_symlinks=False)
    sweep.run(plan(tmp_path, jobs=[], checkpoints=["link"]))
    assert (model / "weights").read_text() == "0123456789"


def test_what_is_left_is_measured_by_folder(tmp_path: Path) -> None:
    run(tmp_path, "there")
    run(tmp_path, "gone")
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "mine").write_text("12345")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "weights").write_text("123")
    stored = sweep.run(plan(tmp_path, jobs=["there"])).stored
    assert {name: size for name, size in stored.items() if size} == {"runs": 30, "models": 3, "other": 5}
    assert set(stored) == set(sweep.KINDS)
