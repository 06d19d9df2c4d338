"""Which split a row was in before: a Dataset that grows keeps each of its rows where it was, in small data as well.

A hash alone cannot: while a wanted split is empty, a bound moves to give it a row (`splits`), and the rows that are
appended later move it back. So the content before, which is in the store, decides about the rows that it has; the
hash decides about the others. It does so only if it was divided by the same settings: an edit of spec.splits is
meant to divide again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone_api.dataset.dataset import Splits
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.splits import Division, hash_of, wanted
from hone_trainer.store import manifest
from hone_trainer.store.contents import REPORT, SPLITS

NEW = 0
"""Code of a row that was in no split; the others are 1 plus the index in SPLITS."""
_TRAIN = 1 + SPLITS.index("train")


def settings_of(splits: Splits) -> str:
    """A short hash of the settings that divide rows."""
    return hashlib.sha256(json.dumps(splits.to_json(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Before:
    """The rows of the content before: 9 bytes of memory each."""

    hashes: Any
    """Of the rows' lines, sorted, each once; uint64."""
    codes: Any
    """The split of each; uint8. NEW for a row that was in several: it held out nothing."""

    @classmethod
    def of(cls, plan: MaterializePlan) -> Before | None:
        """None where there was none, it is not in the store, or other settings divided it."""
        folder = Path(plan.store) / "datasets" / (plan.previous or "").removeprefix("sha256:")
        if not plan.previous or not manifest.is_complete(folder):
            return None
        if (plan.previous_split_settings or _reported(folder)) != settings_of(plan.splits):
            return None
        import numpy

        hashes, codes = [], []
        for code, split in enumerate(SPLITS, 1):
            path = folder / f"{split}.jsonl"
            if path.is_file():
                with open(path, "rb") as lines:
                    distinct = numpy.unique(numpy.array([hash_of(line[:-1], 0) for line in lines], dtype=numpy.uint64))
                hashes.append(distinct)
                codes.append(numpy.full(len(distinct), code, dtype=numpy.uint8))
        every, first, count = numpy.unique(numpy.concatenate(hashes), return_index=True, return_counts=True)
        return cls(every, numpy.where(count == 1, numpy.concatenate(codes)[first], NEW).astype(numpy.uint8))

    def codes_of(self, lines: Sequence[int], groups: Sequence[int], joined: Sequence[int]) -> Any:
        """The code of each row, by the hashes of its line, of its group, and of its group with those of its question.

        A group has one split. Where its rows were in several, as when a new row joins two groups, what was held out
        stays so: test goes before validation, and validation before train. A question only decides where its new rows
        go: the content before may have been divided before questions counted.
        """
        import numpy

        hashes = numpy.array(lines, dtype=numpy.uint64)
        at = numpy.minimum(numpy.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        codes = numpy.where(self.hashes[at] == hashes, self.codes[at], NEW)
        codes = _highest(codes, groups)
        return numpy.where(codes == NEW, _highest(codes, joined), codes)


def _highest(codes: Any, groups: Sequence[int]) -> Any:
    """The highest code of each row's group."""
    import numpy

    _, group = numpy.unique(numpy.array(groups, dtype=numpy.uint64), return_inverse=True)
    highest = numpy.zeros(len(codes), dtype=numpy.uint8)
    numpy.maximum.at(highest, group, codes)
    return highest[group]


def _reported(folder: Path) -> str | None:
    """The settings by the report of the content: those of whoever read it first. For a status from before there were
    any."""
    try:
        return settings_of(Splits.model_validate(json.loads((folder / REPORT).read_text(encoding="utf-8"))["splits"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def divided(splits: Splits, places: Sequence[int], codes: Any) -> list[str]:
    """The split of each row, by its place among the hashes where its code is NEW.

    Where new rows alone cannot fill a wanted split, e.g. as its one row has gone from the source, rows of train do.
    """
    import numpy

    for kept in (codes, numpy.where(codes == _TRAIN, NEW, codes)):
        division = Division.of(splits)
        for row in numpy.flatnonzero(kept == NEW).tolist():
            division.see(places[row])
        division.settle({SPLITS[code - 1] for code in numpy.unique(kept) if code != NEW})
        assigned = [
            SPLITS[code - 1] if code != NEW else division.split_of(place)
            for place, code in zip(places, kept.tolist(), strict=True)
        ]
        if set(wanted(splits)) <= set(assigned):
            break
    return assigned
