"""Work folders of runs: what a sweep removes, what it leaves, and what it measures."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import ValidationError

from hone_api.plan import SweepPlan
from hone_trainer.datasets import sweep
from hone_trainer.store import folders

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


def export(store: Path, place: str, *, manifest: bool = True, mark: bool = False, newest: float = LONG_AGO) -> Path:
    """What an attempt left below models/: with the manifest of its adapter, or with the mark of an export under way."""
    folder = store / "models" / place
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "weights").write_text("0123456789")
    if manifest:
        (folder / "adapter" / "manifest.json").write_text("{}")
    if mark:
        (folder / ".exporting").write_text("x")
    for path in (*folder.rglob("*"), folder, folder.parent):
        os.utime(path, (LONG_AGO, LONG_AGO))
    os.utime(folder / "adapter" / "weights", (newest, newest))
    return folder


def models(store: Path) -> set[str]:
    """What is below models/, as <run>/<attempt>."""
    return {f"{path.parent.name}/{path.name}" for path in (store / "models").glob("*/*")}


def test_a_model_goes_only_when_the_plan_lists_it(tmp_path: Path) -> None:
    for place in ("a/attempt-1", "b/attempt-1", "c/attempt-1", "d/attempt-1", "e/adapter"):
        export(tmp_path, place)
    listed = ["a/attempt-1", "c/attempt-1", "d/attempt-1", "never/was", "e/adapter"]
    assert sweep.run(plan(tmp_path, models=listed)).removed == 0, "nobody said what stays"
    result = sweep.run(plan(tmp_path, models=listed, exports=["c/attempt-1", "d"]))
    assert (result.removed, result.size_bytes) == (2, 24)
    assert models(tmp_path) == {"b/attempt-1", "c/attempt-1", "d/attempt-1"}
    assert (result.unclaimed, result.unclaimed_count) == (["models/b/attempt-1"], 1), "what stays is told"


def test_half_an_export_goes_when_its_run_is_over(tmp_path: Path) -> None:
    export(tmp_path, "over/attempt-1", manifest=False)
    export(tmp_path, "over/attempt-2", mark=True)
    export(tmp_path, "over/attempt-3-2", manifest=False)
    for place in ("over/attempt-4", "over/mine", "runs/attempt-1", "over/attempt-5", "over/attempt-6"):
        newest = time.time() - 60 if place == "over/attempt-6" else LONG_AGO
        export(tmp_path, place, manifest=place == "over/attempt-4", mark=place == "over/attempt-5", newest=newest)
    assert sweep.run(plan(tmp_path, jobs=["over"])).removed == 0, "a plan of an older operator says nothing of exports"
    result = sweep.run(plan(tmp_path, jobs=["over"], exports=["runs", "over/attempt-5"]))
    assert result.removed == 3
    stay = {"over/attempt-4", "over/mine", "runs/attempt-1", "over/attempt-5", "over/attempt-6"}
    assert models(tmp_path) == stay, "complete, unknown, of a run that is not over, of a model, being written"
    assert result.unclaimed == ["models/over/attempt-4", "models/over/attempt-6", "models/over/mine"]


def test_the_empty_folder_of_a_run_that_is_over_goes(tmp_path: Path) -> None:
    for name in ("over", "runs", "new"):
        (tmp_path / "models" / name).mkdir(parents=True)
        os.utime(tmp_path / "models" / name, (LONG_AGO, time.time() if name == "new" else LONG_AGO))
    sweep.run(plan(tmp_path, exports=["runs"]))
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"runs", "new"}


def test_below_models_a_link_is_not_followed(tmp_path: Path) -> None:
    kept = export(tmp_path, "kept/attempt-1", manifest=False)
    (tmp_path / "models" / "link").symlink_to(kept.parent)
    (tmp_path / "models" / "other").mkdir()
    (tmp_path / "models" / "other" / "attempt-1").symlink_to(kept)
    for path in (tmp_path / "models" / "other" / "attempt-1", tmp_path / "models" / "link"):
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    listed = ["link/attempt-1", "other/attempt-1"]
    result = sweep.run(plan(tmp_path, models=listed, exports=["kept"]))
    assert result.removed == 0
    assert (kept / "adapter" / "weights").exists()
    assert result.unclaimed == ["models/link", "models/other/attempt-1"]


@pytest.mark.attack("plans")
@pytest.mark.parametrize("place", ["../x", "a", "a/b/c", "/a/b", "a/..", "./a", "a/", "a\n/b"])
def test_a_plan_names_no_other_folder_as_a_model(tmp_path: Path, place: str) -> None:
    with pytest.raises(ValidationError, match="models"):
        plan(tmp_path, models=[place])


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


def test_what_killed_pods_left_of_rows_goes_and_what_is_being_made_stays(tmp_path: Path) -> None:
    for name, newest in (("killed", LONG_AGO), ("silent", LONG_AGO), ("writes", time.time())):
        file = tmp_path / "incoming" / name / ".work-1" / "source"
        file.parent.mkdir(parents=True)
        file.write_text("0123456789")
        for path in (file, *list(file.parents)[:2]):
            os.utime(path, (newest, newest))
    assert sweep.run(plan(tmp_path)).removed == 0, "a plan of an older operator names no Jobs"
    result = sweep.run(plan(tmp_path, making=["silent"]))
    assert (result.removed, result.size_bytes, result.stored["incoming"]) == (1, 10, 20)
    assert {path.name for path in (tmp_path / "incoming").iterdir()} == {"silent", "writes"}


def test_files_of_sources_go_an_hour_after_the_last_attempt(tmp_path: Path) -> None:
    left, used, mine = "0000aaaa-1111-2222-3333-0123456789ab", "0000aaaa-1111-2222-3333-0123456789ac", "mine"
    for name in (left, used, mine):
        file = tmp_path / "source-files" / name / "0123" / "rows.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("0123456789")
        for path in (file, *list(file.parents)[:2]):
            os.utime(path, (LONG_AGO, LONG_AGO))
    os.utime(tmp_path / "source-files" / used)
    result = sweep.run(plan(tmp_path))
    assert (result.removed, result.stored["source-files"]) == (1, 20)
    assert {path.name for path in (tmp_path / "source-files").iterdir()} == {used, mine}


def encoded(store: Path, name: str, newest: float = LONG_AGO) -> Path:
    """A folder of encoded rows, or of rows that are being encoded, whose last file was written then."""
    folder = store / "encoded" / name
    (folder / "files").mkdir(parents=True)
    for file in (folder / "manifest.json", folder / "files" / "rows.arrow"):
        file.write_text("0123456789")
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (LONG_AGO, LONG_AGO))
    os.utime(folder / "files" / "rows.arrow", (newest, newest))
    return folder


def test_encoded_rows_go_when_no_run_refers_to_them(tmp_path: Path) -> None:
    unused, needed, reused, never_was = (digit * 40 for digit in "abcd")
    for key in (unused, needed, reused):
        encoded(tmp_path, key)
    os.utime(tmp_path / "encoded" / reused)  # as the Job of a new run does that wants them
    assert sweep.run(plan(tmp_path)).removed == 0, "a plan of an older operator names none"
    result = sweep.run(plan(tmp_path, encoded=[unused, reused, never_was]))
    assert (result.removed, result.size_bytes, result.stored["encoded"]) == (1, 20, 40)
    assert {path.name for path in (tmp_path / "encoded").iterdir()} == {needed, reused}


def test_rows_that_are_being_encoded_stay_and_what_nobody_goes_on_with_goes(tmp_path: Path) -> None:
    working, left, complete = (digit * 40 for digit in "abc")
    encoded(tmp_path, f".work-{working}", newest=time.time() - 60)
    encoded(tmp_path, f".work-{left}")
    encoded(tmp_path, complete)
    listed = [working, left]
    early = sweep.run(plan(tmp_path, encoded=listed, asOf=LONG_AGO))
    assert early.removed == 0, "written since the list was made"
    result = sweep.run(plan(tmp_path, encoded=listed))
    assert (result.removed, result.size_bytes) == (1, 20)
    assert {path.name for path in (tmp_path / "encoded").iterdir()} == {f".work-{working}", complete}


def test_the_work_of_an_encoder_that_was_killed_stays_until_the_grace_period_is_over(tmp_path: Path) -> None:
    target = tmp_path / "encoded" / ("a" * 40)
    with suppress(KeyboardInterrupt), folders.resumed_folder(target) as work:
        (work / "journal").write_text("{}")
        raise KeyboardInterrupt
    sweep.run(plan(tmp_path, encoded=[target.name]))
    with folders.resumed_folder(target) as work:
        assert (work / "journal").read_text() == "{}", "the next attempt goes on"
        (work / "rows.arrow").write_text("0123456789")
        os.utime(work, (LONG_AGO, LONG_AGO))  # a file that grows does not touch its folder
        during = sweep.run(plan(tmp_path, encoded=[target.name]))
        assert during.removed == 0
        assert (work / "rows.arrow").exists()


def test_the_work_of_an_encoder_that_writes_nothing_for_hours_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_SIGN_SECONDS", 0.02)
    target = tmp_path / "encoded" / ("a" * 40)
    with folders.resumed_folder(target) as work:
        (work / "journal").write_text("{}")
        for path in (*work.iterdir(), work):
            os.utime(path, (LONG_AGO, LONG_AGO))
        deadline = time.monotonic() + 60
        while work.stat().st_mtime == LONG_AGO and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sweep.run(plan(tmp_path)).removed == 0
        assert (work / "journal").exists()


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


def deepen(folder: Path, levels: int = 1500) -> None:
    """Folders in folders: deeper than Python may recurse."""
    folder.mkdir(parents=True)
    path = str(folder)
    for _ in range(levels):
        path += "/a"
        Path(path).mkdir()


@pytest.mark.attack("manifests")
def test_a_folder_without_end_goes_and_keeps_nothing_else(tmp_path: Path) -> None:
    """A parser that was taken over made it: nobody's rows stay because of it."""
    rows = tmp_path / "datasets" / ("0" * 64)
    rows.mkdir(parents=True)
    os.utime(rows, (LONG_AGO, LONG_AGO))
    deepen(tmp_path / "incoming" / "rows-1")
    locked = tmp_path / "incoming" / "rows-2" / "locked"
    locked.mkdir(parents=True)
    (locked / "train.jsonl").write_text("{}")
    locked.chmod(0o500)
    later = time.time() + 2 * 3600
    result = sweep.run(plan(tmp_path, remove=[f"sha256:{rows.name}"], making=[], asOf=later, graceSeconds=60))
    assert result.removed == 3
    assert not any((tmp_path / "incoming").iterdir())
    assert not rows.exists()


def test_what_is_behind_a_link_stays(tmp_path: Path) -> None:
    kept = run(tmp_path, "kept")
    deepen(tmp_path / "incoming" / "rows-1")
    (tmp_path / "incoming" / "rows-1" / "a" / "link").symlink_to(kept)
    sweep.run(plan(tmp_path, making=[], asOf=time.time() + 2 * 3600, graceSeconds=60))
    assert not any((tmp_path / "incoming").iterdir())
    assert sum(path.is_file() for path in kept.rglob("*")) == 3
