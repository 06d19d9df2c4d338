"""Folders as a source: which files are found, however the folders are nested."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.sources import sources
from hone_trainer.errors import SourceError
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import folders

pytestmark = pytest.mark.pure
ROW = '{"prompt": "a", "completion": "b"}\n'


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """Where to make a folder; it is removed, for what is too deep stays in pytest's way."""
    yield tmp_path / "source"
    folders.remove(tmp_path / "source")


def fetch(source: Path) -> list[str]:
    """Names of the files that a Dataset of this folder reads."""
    plan = {"name": "rows", "store": "/store", "source": {"uri": "pvc://claim/rows"}, "sourcePath": str(source)}
    found = sources.fetch(MaterializePlan.model_validate(plan), source, TaskProgress("rows"))
    return [file.name for file in found.files]


def deepen(folder: Path, levels: int) -> None:
    """Folders in folders, and a file in the last."""
    folder.mkdir()
    at = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    file = os.open("deep.jsonl", os.O_CREAT | os.O_WRONLY, dir_fd=at)
    os.write(file, ROW.encode())
    os.close(file)
    os.close(at)


@pytest.mark.attack("data files")
def test_a_file_is_found_below_more_folders_than_python_may_recurse(source: Path) -> None:
    deepen(source, 1500)
    (source / "a.jsonl").write_text(ROW)
    assert fetch(source) == ["a.jsonl", "d/" * 1500 + "deep.jsonl"]


@pytest.mark.attack("data files")
def test_a_name_that_is_not_utf8_is_read(source: Path) -> None:
    source.mkdir()
    for name in (b"a.jsonl", b"z\xff.jsonl"):
        (source / os.fsdecode(name)).write_text(ROW)
    assert fetch(source) == ["a.jsonl", "z\udcff.jsonl"]


@pytest.mark.attack("data files")
def test_a_file_whose_path_is_too_long_is_refused_and_not_left_out(source: Path) -> None:
    deepen(source, 2100)
    (source / "a.jsonl").write_text(ROW)
    with pytest.raises(SourceError, match="nested too deeply") as caught:
        fetch(source)
    assert caught.value.code == "SourceRefused"
    assert len(caught.value.message) < 500
