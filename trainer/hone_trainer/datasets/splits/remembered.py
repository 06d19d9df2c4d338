"""Which split a row was in before: a Dataset that grows keeps each of its rows where it was, in small data as well.

A hash alone cannot: while a wanted split is empty, a bound moves to give it a row (`splits`), and the rows that are
appended later move it back. So the content before, which is in the store, decides about the rows that it has; the
hash decides about the others. It does so only if it was divided by the same settings: an edit of spec.splits is
meant to divide again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from hone_api.dataset.dataset import Splits
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.splits.splits import hash_of
from hone_trainer.store import manifest
from hone_trainer.store.contents import REPORT, SPLITS

NEW = 0
"""Code of a row that was in no split; the others are 1 plus the index in SPLITS."""
TRAIN = 1 + SPLITS.index("train")
_HASHED = 2**15


def settings_of(splits: Splits) -> str:
    """A short hash of the settings that divide rows."""
    return hashlib.sha256(json.dumps(splits.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def content_before(plan: MaterializePlan) -> Path | None:
    """The folder of the content before; None where there was none, it is not in the store, or other settings divided
    it."""
    folder = Path(plan.store) / "datasets" / (plan.previous or "").removeprefix("sha256:")
    if not plan.previous or not manifest.is_complete(folder):
        return None
    return folder if (plan.previous_split_settings or _reported(folder)) == settings_of(plan.splits) else None


def rows_before(folder: Path) -> Iterator[tuple[list[int], int]]:
    """Hashes of the lines of the content before, some at a time, and the code of the split that they are in."""
    for code, split in enumerate(SPLITS, 1):
        path = folder / f"{split}.jsonl"
        if path.is_file():
            with open(path, "rb") as lines:
                while hashes := [hash_of(line[:-1], 0) for line in itertools.islice(lines, _HASHED)]:
                    yield hashes, code


def _reported(folder: Path) -> str | None:
    """The settings by the report of the content: those of whoever read it first. For a status from before there were
    any."""
    try:
        return settings_of(Splits.model_validate(json.loads((folder / REPORT).read_text(encoding="utf-8"))["splits"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
