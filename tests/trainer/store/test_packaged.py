"""Files of packages are what was chosen, and the packages' code is not run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hone_trainer.store import packaged

pytestmark = pytest.mark.pure
NAME, CONTENT = "data/model.bin", b"weights"
FILES = {NAME: hashlib.sha256(CONTENT).hexdigest()}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "of_a_stranger"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('its code ran')")
    (folder / NAME).write_bytes(CONTENT)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_its_files_are_found_and_its_code_does_not_run(package: Path) -> None:
    assert packaged.folder_of(package.name, FILES) == package


@pytest.mark.parametrize("content", [b"", b"Weights", None])
def test_another_file_is_refused(package: Path, content: bytes | None) -> None:
    (package / NAME).unlink() if content is None else (package / NAME).write_bytes(content)
    with pytest.raises(RuntimeError, match=r"model\.bin is not the file that was chosen"):
        packaged.folder_of(package.name, FILES)


def test_an_absent_package_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="of_nobody is not installed"):
        packaged.folder_of("of_nobody", FILES)
