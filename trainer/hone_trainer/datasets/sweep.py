"""Remove from the store what nothing refers to any more: contents of Datasets that were edited, refreshed or deleted,
the reports of deleted ones, which hold their rejected rows, the work folders of runs that are gone, and what `exports`
says of models.

That nothing refers to them was true at one moment. What was made or found again after it, or shortly before, stays: its
Dataset may not have said so yet. So an old list, of a pod that waited for hours, does no harm.
"""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from pathlib import Path

from hone_api.contract.report import MAX_UNCLAIMED, SweepResult
from hone_api.plan import SweepPlan
from hone_trainer.datasets.exports import Exports
from hone_trainer.store import folders

KINDS = (
    "datasets",
    "encoded",
    "incoming",
    "source-files",
    "base-models",
    "evaluation-tasks",
    "runs",
    "models",
    "reports",
    "tracking",
    "other",
)
"""Folders of a store; `other` is what users keep there, e.g. exports."""
_DOWNLOAD_SECONDS = 24 * 3600
"""What an interrupted download left is there for the next attempt."""
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


def run(plan: SweepPlan) -> SweepResult:
    """Remove the contents of `remove`, the reports of no Dataset, the runs of no job, models and exports, and what
    ended Jobs left in incoming/ and source-files/, that were not touched since `grace_seconds` before `as_of`; then
    measure the store."""
    removed, size, since = 0, 0, plan.as_of - plan.grace_seconds
    exports = Exports(plan)
    models = [folder for folder in exports.removable() if folders.last_written(folder) < since]
    left = [*_incoming(plan), *_source_files(plan), *_downloads(plan)]
    for folder in [*_contents(plan), *_unused_encoded(plan), *_reports(plan), *_runs(plan), *left, *models]:
        aside = folders.take_aside(folder, since)
        if aside is None:
            continue
        files = (path.stat() for path in folders.walk(aside) if path.is_file())
        size += sum(file.st_size for file in files if file.st_nlink == 1)  # others have another name
        folders.remove(aside)
        removed += 1
    exports.remove_empty(since)
    unclaimed = exports.unclaimed()
    print(f"{removed} folders removed, {size} bytes")
    for path in unclaimed:
        print(f"{path} stays: no object names it")
    named = [path for path in unclaimed if re.fullmatch(r"[!-~]{1,253}", path)][:MAX_UNCLAIMED]
    stored = _measure_folders(Path(plan.store))
    return SweepResult(removed=removed, size_bytes=size, stored=stored, unclaimed=named, unclaimed_count=len(unclaimed))


def _downloads(plan: SweepPlan) -> list[Path]:
    """What interrupted downloads of base models left a day ago, which no later one has used."""
    left = Path(plan.store).glob("base-models/*/.work-*")
    since = plan.as_of - max(plan.grace_seconds, _DOWNLOAD_SECONDS)
    return sorted(folder for folder in left if folder.is_dir() and folders.last_written(folder) < since)


def _contents(plan: SweepPlan) -> list[Path]:
    return [Path(plan.store) / "datasets" / digest.removeprefix("sha256:") for digest in plan.remove]


def _unused_encoded(plan: SweepPlan) -> list[Path]:
    """Encoded splits that no run reads any more, and what interrupted Jobs left."""
    root, since = Path(plan.store) / "encoded", plan.as_of - plan.grace_seconds
    left = [folder for folder in root.glob(".*") if folder.is_dir() and folders.last_written(folder) < since]
    return [*(root / key for key in plan.encoded), *sorted(left)]


def _reports(plan: SweepPlan) -> list[Path]:
    """Those of Datasets that are gone; folders that are being written have a dot before their name."""
    if plan.datasets is None:
        return []
    reports = Path(plan.store).glob("reports/*")
    return sorted(path for path in reports if path.name not in plan.datasets and not path.name.startswith("."))


def _runs(plan: SweepPlan) -> list[Path]:
    """Work folders of deleted runs, and checkpoints that are no longer needed; of both only those unchanged for the
    grace period, whoever wrote it. How a run that is there ended stays known: its files are small."""
    root, since = Path(plan.store) / "runs", plan.as_of - plan.grace_seconds
    gone = [] if plan.jobs is None else [f for f in root.glob("[!.]*") if f.name not in plan.jobs]
    gone += root.glob(".work-*")  # of a sweep that was interrupted
    kept = [root / uid for uid in plan.checkpoints if not (root / uid).is_symlink()]
    checkpoints = [inner for folder in kept for inner in folder.glob("*") if inner.is_dir() and not inner.is_symlink()]
    return [folder for folder in sorted([*gone, *checkpoints]) if folders.last_written(folder) < since]


def _incoming(plan: SweepPlan) -> list[Path]:
    """What killed pods left; a Job that runs may be silent for long while it waits for a model's answers."""
    if plan.making is None:
        return []
    candidates = (path for path in Path(plan.store).glob("incoming/*") if path.name not in plan.making)
    return [folder for folder in sorted(candidates) if folders.last_written(folder) < plan.as_of - plan.grace_seconds]


def _source_files(plan: SweepPlan) -> list[Path]:
    """Files of sources that no attempt goes on with: one that runs touches its folder every minute."""
    since, uids = plan.as_of - plan.grace_seconds, (p for p in Path(plan.store).glob("source-files/*") if _UID(p.name))
    return [folder for folder in sorted(uids) if folders.last_written(folder) < since]


def _measure_folders(store: Path) -> dict[str, int]:
    """Bytes by folder of the store; what others keep there is `other`. A file with several names counts once."""
    sizes, linked = dict.fromkeys(KINDS, 0), set[tuple[int, int]]()
    for path in folders.walk(store):
        with suppress(FileNotFoundError):
            mode = path.lstat()
            same = (mode.st_dev, mode.st_ino)
            if stat.S_ISREG(mode.st_mode) and same not in linked:
                if mode.st_nlink > 1:
                    linked.add(same)
                top = path.relative_to(store).parts[0]
                sizes[top if top in KINDS else "other"] += mode.st_size
    return sizes
