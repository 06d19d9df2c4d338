"""Remove from the store what nothing refers to any more: contents of Datasets that were edited, refreshed or deleted,
and the reports of deleted ones, which hold their rejected rows.

That nothing refers to them was true at one moment. What was made or found again after it, or shortly before, stays: its
Dataset may not have said so yet. So an old list, of a pod that waited for hours, does no harm.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from hone_api.plan import SweepPlan
from hone_api.report import SweepResult


def run(plan: SweepPlan) -> SweepResult:
    """Remove the contents of `remove`, and the reports of no Dataset, that were not touched since `grace_seconds`
    before `as_of`."""
    removed, size = 0, 0
    for folder in [*_contents(plan), *_reports(plan)]:
        aside = _taken(folder, plan.as_of - plan.grace_seconds)
        if aside is None:
            continue
        size += sum(path.stat().st_size for path in aside.rglob("*") if path.is_file())
        shutil.rmtree(aside, ignore_errors=True)
        removed += 1
    print(f"{removed} contents and reports removed, {size} bytes")
    return SweepResult(removed=removed, size_bytes=size)


def _contents(plan: SweepPlan) -> list[Path]:
    return [Path(plan.store) / "datasets" / digest.removeprefix("sha256:") for digest in plan.remove]


def _reports(plan: SweepPlan) -> list[Path]:
    """Those of Datasets that are gone; folders that are being written have a dot before their name."""
    if plan.datasets is None:
        return []
    found = Path(plan.store).glob("reports/*")
    return sorted(path for path in found if path.name not in plan.datasets and not path.name.startswith("."))


def _taken(folder: Path, since: float) -> Path | None:
    """The folder, renamed so that nobody finds half of it; None when it is not there, or was touched since."""
    if folder.is_symlink() or not folder.is_dir() or folder.stat().st_mtime >= since:
        return None
    aside = folder.with_name(f".work-{uuid.uuid4().hex}")
    folder.rename(aside)
    # A second look: who found it between the first one and the renaming has touched it, and relies on it.
    if aside.stat().st_mtime >= since and not folder.exists():
        aside.rename(folder)
        return None
    return aside
