"""What a sweep removes below models/ of a store, which has a folder <run>/<attempt> for each export.

A model goes only when the plan lists it: its ModelVersion had deletionPolicy Delete and is gone. An export goes by
itself when it was never completed, its run is over, and nothing names it. All else stays, and is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hone_api.contract.manifest import MANIFEST
from hone_api.plan import SweepPlan
from hone_trainer.store.finished import MARK

MODELS = "models"
_ATTEMPT = re.compile(r"attempt-\d+(-\d+)?")


class Exports:
    """The folders below models/ as a plan sees them."""

    def __init__(self, plan: SweepPlan):
        self._root = Path(plan.store) / MODELS
        self._stay = None if plan.exports is None else frozenset(plan.exports)
        self._models = [self._root / place for place in plan.models if not self._stays(place)]

    def removable(self) -> list[Path]:
        """Models that are to go, and exports that were never completed. Of folders that are links, nothing."""
        if self._root.is_symlink():
            return []
        models = [folder for folder in self._models if _is_folder(folder.parent) and _is_folder(folder)]
        partial = [] if self._stay is None else [folder for folder in self._unnamed() if _is_partial(folder)]
        return sorted({*models, *partial, *self._interrupted()})

    def unclaimed(self) -> list[str]:
        """What stays although nothing names it, as paths below the store."""
        return [] if self._stay is None else [f"{MODELS}/{path.relative_to(self._root)}" for path in self._unnamed()]

    def remove_empty(self, since: float) -> None:
        """Remove the folders of runs that are over and have nothing left in them, untouched since then."""
        for run in self._runs():
            if _is_folder(run) and run.stat().st_mtime < since and not any(run.iterdir()):
                with suppress(OSError):  # somebody wrote there at this moment, or it is not ours to remove
                    run.rmdir()

    def _runs(self) -> Iterator[Path]:
        """Folders of runs that are over."""
        if self._stay is not None and _is_folder(self._root):
            yield from (run for run in sorted(self._root.iterdir()) if run.name not in self._stay)

    def _unnamed(self) -> Iterator[Path]:
        """Entries in folders of finished runs that nothing refers to; a link or a file is returned unchanged."""
        for run in self._runs():
            if not _is_folder(run):
                yield run
                continue
            for path in sorted(run.iterdir()):
                if not self._stays(f"{run.name}/{path.name}") and not path.name.startswith("."):
                    yield path

    def _interrupted(self) -> Iterator[Path]:
        """What a sweep that was killed had taken aside."""
        runs = [] if self._stay is None else [run for run in self._root.glob("[!.]*") if _is_folder(run)]
        yield from (path for run in runs for path in run.glob(".work-*") if _is_folder(path))

    def _stays(self, place: str) -> bool:
        return self._stay is None or place in self._stay or place.partition("/")[0] in self._stay


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_partial(folder: Path) -> bool:
    """Whether an attempt began to export there and did not come to the end."""
    if not _ATTEMPT.fullmatch(folder.name) or not _is_folder(folder):
        return False
    return (folder / MARK).exists() or not any(folder.glob(f"*/{MANIFEST}"))
