"""What a new content of a Dataset changed: rows that came and rows that went, whatever their split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hone_api.dataset.dataset_status import Changes
from hone_trainer.datasets.splits.splits import hash_of


def since(previous: str | None, root: Path, content: Path, digest: str) -> Changes | None:
    """The difference to the content before, 16 bytes of memory a row; None when there is none in the store, or it is
    the same."""
    if previous in (None, digest) or not (root / previous.removeprefix("sha256:")).is_dir():
        return None
    import numpy

    before, after = _counts(root / previous.removeprefix("sha256:")), _counts(content)
    hashes = numpy.concatenate([before[0], after[0]])
    counts = numpy.concatenate([-before[1], after[1]])
    _, where = numpy.unique(hashes, return_inverse=True)
    difference = numpy.bincount(where, weights=counts)
    added, removed = int(difference[difference > 0].sum()), int(-difference[difference < 0].sum())
    return Changes(previous=previous, added=added, removed=removed)


def _counts(folder: Path) -> tuple[Any, Any]:
    """Distinct rows by hash, and how often each occurs."""
    import numpy

    hashes = []
    for path in sorted(folder.glob("*.jsonl")):
        if path.stem in ("train", "validation", "test"):
            with open(path, "rb") as lines:
                hashes += [hash_of(line, 0) for line in lines]
    return numpy.unique(numpy.array(hashes, dtype=numpy.uint64), return_counts=True)
