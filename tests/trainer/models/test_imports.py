"""Imports that the collector of garbage leaves alone."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone_trainer.models.imports import uncollected

pytestmark = pytest.mark.pure


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a module that nobody has imported, with one list."""
    (tmp_path / "a_new_library.py").write_text("made = [[] for _ in range(100)]\nimport gc\nenabled = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "a_new_library"
    sys.modules.pop("a_new_library", None)
    gc.unfreeze()


def test_what_was_imported_is_not_looked_at_again(module: str) -> None:
    assert gc.isenabled()
    with uncollected():
        enabled = __import__(module).enabled
    assert not enabled
    assert gc.isenabled()
    assert gc.get_freeze_count() >= 100


def test_without_a_new_module_nothing_is_kept(module: str) -> None:
    gc.unfreeze()
    with uncollected():
        import json  # noqa: F401
    assert gc.get_freeze_count() == 0


def test_an_error_of_an_import_leaves_the_collector_as_it_was() -> None:
    with pytest.raises(ImportError), uncollected():
        __import__("no_such_library_of_anybody")
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
