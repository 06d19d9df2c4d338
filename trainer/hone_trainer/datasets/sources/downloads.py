"""The folder for what an attempt at a source keeps on the disk: copies of files that cannot be read where they are, and
checked rows, which outlast the attempt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hone_api.plan import MaterializePlan
from hone_trainer.store import folders

CHECKED = "checked"
"""Folder of the plan's folder: parts of rows that were checked (`stage_one`)."""


@contextmanager
def folder_of(plan: MaterializePlan, otherwise: Path) -> Iterator[Path]:
    """The folder for files of the plan's source, which is `otherwise`.

    Of the plan's own folder, what earlier versions kept goes first; all goes when the block succeeds.
    """
    otherwise.mkdir(exist_ok=True)
    if plan.downloads_path is None:
        yield otherwise
        return
    top = Path(plan.downloads_path)
    top.mkdir(parents=True, exist_ok=True)
    _remove(path for path in top.iterdir() if path.name != CHECKED)
    with folders.in_use(top):
        yield otherwise
    _remove(top.iterdir())  # not the folder itself: it is a mount


def _remove(paths: Iterator[Path]) -> None:
    for path in list(paths):
        if path.is_dir() and not path.is_symlink():
            folders.remove(path)
        else:
            path.unlink(missing_ok=True)
