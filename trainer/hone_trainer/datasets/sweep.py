"""Remove from the store what nothing refers to any more: contents of Datasets that were edited or deleted.

The list of what is referred to is of one moment. What was made or found again after it, or shortly before, stays: its
Dataset may not have been on the list yet. So an old list, of a pod that waited for hours, does no harm.
"""

from __future__ import annotations

import re
import shutil
import uuid
from pathlib import Path

from hone_api.plan import SweepPlan
from hone_api.report import SweepResult

_CONTENT = re.compile(r"[0-9a-f]{64}")


def run(plan: SweepPlan) -> SweepResult:
    """Remove every content that is not kept and was not touched since `grace_seconds` before `as_of`."""
    root = Path(plan.store) / "datasets"
    keep = {digest.removeprefix("sha256:") for digest in plan.keep}
    removed, size = 0, 0
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if folder.name in keep or not _CONTENT.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue
        if (aside := _taken(folder, plan.as_of - plan.grace_seconds)) is None:
            continue
        size += sum(path.stat().st_size for path in aside.rglob("*") if path.is_file())
        shutil.rmtree(aside, ignore_errors=True)
        removed += 1
    print(f"{removed} contents removed, {size} bytes")
    return SweepResult(removed=removed, size_bytes=size)


def _taken(folder: Path, since: float) -> Path | None:
    """The folder, renamed so that nobody finds half of it; None when it was touched since."""
    if folder.stat().st_mtime >= since:
        return None
    aside = folder.with_name(f".work-{uuid.uuid4().hex}")
    folder.rename(aside)
    # A second look: who found it between the first one and the renaming has touched it, and relies on it.
    if aside.stat().st_mtime >= since and not folder.exists():
        aside.rename(folder)
        return None
    return aside
