"""The pages, built once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hone_dev.generate.site import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; in place of the program that draws diagrams is an empty one."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    (folder / "script.js").touch()
    return build(folder, folder / "script.js")
