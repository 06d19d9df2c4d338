"""Remove from the store what nothing refers to any more: contents of Datasets that were edited or deleted.

A content that was made or found again a moment ago stays, whoever refers to it: its Dataset may not have said so yet.
"""

from __future__ import annotations

import re
import shutil
import time
import uuid
from pathlib import Path

from hone_api.plan import SweepPlan
from hone_api.report import SweepResult

_CONTENT = re.compile(r"[0-9a-f]{64}")


def run(plan: SweepPlan) -> SweepResult:
    """Remove every content that is not kept and was not touched within the grace."""
    root = Path(plan.store) / "datasets"
    keep = {digest.removeprefix("sha256:") for digest in plan.keep}
    removed, size = 0, 0
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not _CONTENT.fullmatch(folder.name) or folder.name in keep or not folder.is_dir():
            continue
        if time.time() - folder.stat().st_mtime < plan.grace_seconds:
            continue
        size += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        # Renamed first: nobody finds half of it.
        aside = root / f".work-{uuid.uuid4().hex}"
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        removed += 1
    print(f"{removed} contents removed, {size} bytes")
    return SweepResult(removed=removed, size_bytes=size)
