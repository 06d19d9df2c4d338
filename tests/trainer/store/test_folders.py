"""Folders of the store that several processes replace at the same moment."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from hone_trainer.store import folders, manifest

pytestmark = pytest.mark.pure
ROUNDS, WRITERS = 300, 3


def _replace_often(root: Path, writer: int) -> None:
    for number in range(ROUNDS):
        content = root / f"content-{writer}"
        content.mkdir()
        for name in ("report.html", "report.json"):
            (content / name).write_text(f"{writer} {number}")
        folders.replace(content, root / "reports" / "rows")
    os._exit(0)


def test_a_report_is_replaced_by_several_at_once(tmp_path: Path) -> None:
    """As by two Jobs of one Dataset: none of them fails, and what is there is of one of them."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_replace_often, args=(tmp_path, writer)) for writer in range(WRITERS)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(300)
    assert [process.exitcode for process in writers] == [0] * WRITERS
    assert [path.name for path in tmp_path.iterdir()] == ["reports"]
    (folder,) = (tmp_path / "reports").iterdir()
    texts = {(folder / name).read_text() for name in ("report.html", "report.json")}
    assert texts < {f"{writer} {ROUNDS - 1}" for writer in range(WRITERS)}
    assert len(texts) == 1


@pytest.mark.parametrize("gone", ["report.html", ""], ids=["file", "folder"])
def test_a_folder_that_is_removed_while_it_is_judged_is_not_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """As by the rank that replaces damaged packs while the others wait for whole ones."""
    folder = tmp_path / "reports"
    folder.mkdir()
    for name in ("report.html", "report.json"):
        (folder / name).write_text(name)
    manifest.write(folder)
    assert folders.is_intact(folder)

    def listed(root: Path) -> list[str]:
        present = _files(root)
        (folder / gone).rename(tmp_path / "aside")
        return present

    _files = manifest._files
    monkeypatch.setattr(manifest, "_files", listed)
    assert not folders.is_intact(folder)


@pytest.mark.faults("T12")
@pytest.mark.parametrize("resumed", [False, True])
def test_a_folder_that_is_in_use_stays_though_the_clock_is_days_ahead(tmp_path: Path, resumed: bool) -> None:
    """Another pod begins, on a node whose clock has jumped: what was written just now is days old there."""
    work = folders.resumed_folder(tmp_path / "rows") if resumed else folders.work_folder(tmp_path)
    with work as folder:
        (folder / "part").write_text("x")
        old = time.time() - 3 * 86400
        for path in (*folders.walk(folder), folder):
            os.utime(path, (old, old))
        with folders.work_folder(tmp_path) as other:
            assert other.is_dir()
        assert folders.take_aside(folder, time.time()) is None
        assert (folder / "part").read_text() == "x"
    assert list(tmp_path.iterdir()) == []
