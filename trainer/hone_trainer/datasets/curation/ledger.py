"""What became of rows in the curation: counts for the status, every removed row for the store."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from hone_api.dataset.curation import CurationStep
from hone_trainer.datasets.curation.base import CuratedRow
from hone_trainer.datasets.spool import ValidRow

_ROWS_NAMED = 10
_EXAMPLE_CHARACTERS = 600
_EXAMPLES = 3
"""Rows of a step that are kept for the report."""


class Ledger:
    """Counts by step, in the order in which steps were added; removed rows go to a file, a JSON object a line.

    The file is made when a row was removed, and has the order of the source. Each step writes a file of its own until
    then: workers take rows ahead, so how far a step is before the next one begins depends on their number.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, IO[str]] = {}
        """Removed rows by step, each as '<number>\\t<line>'."""
        self._steps: list[CurationStep] = []
        self.examples: dict[str, list[dict[str, Any]]] = {}
        """The first rows that a step removed or changed, for the report; a changed one as it is kept."""

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        parts = [Path(file.name) for file in self._files.values()]
        for file in self._files.values():
            file.close()
        if parts:
            _merge(parts, self._path)

    @property
    def steps(self) -> list[CurationStep]:
        """What each step did until now."""
        return self._steps

    @property
    def removed(self) -> int:
        """Rows removed until now."""
        return sum(step.removed for step in self._steps)

    def kept(self, name: str, verdicts: Iterator[CuratedRow]) -> Iterator[ValidRow]:
        """The rows that the step called name lets pass; the others are noted."""
        entry = CurationStep(step=name)
        self._steps.append(entry)
        return self._passing(entry, verdicts)

    def _passing(self, entry: CurationStep, verdicts: Iterator[CuratedRow]) -> Iterator[ValidRow]:
        for row, removed, changed, other_answer in verdicts:
            if removed is not None:
                entry.removed += 1
                entry.other_answers += other_answer
                self._name(entry, row, removed)
                self._write({"row": row.number, "step": entry.step, "reason": removed, "value": row.record})
                continue
            if changed is not None:
                entry.changed += 1
                self._name(entry, row, changed)
            yield row

    def _write(self, entry: dict[str, Any]) -> None:
        step = entry["step"]
        if step not in self._files:
            part = self._path.with_name(f"{self._path.name}.{len(self._files)}")
            self._files[step] = open(part, "w", encoding="utf-8")  # noqa: SIM115
        self._files[step].write(f"{entry['row']}\t{json.dumps(entry, ensure_ascii=False)}\n")

    def _name(self, entry: CurationStep, row: ValidRow, reason: str) -> None:
        if entry.example is None:
            entry.example = f"row {row.number}: {reason}"[:_EXAMPLE_CHARACTERS]
        if len(entry.rows) < _ROWS_NAMED:
            entry.rows.append(row.number)
        examples = self.examples.setdefault(entry.step, [])
        if len(examples) < _EXAMPLES:
            cut = "…" if len(row.line) > _EXAMPLE_CHARACTERS else ""
            examples.append({"row": row.number, "reason": reason, "value": row.line[:_EXAMPLE_CHARACTERS] + cut})


def _merge(parts: list[Path], target: Path) -> None:
    """Merge the parts into one file in the order of the source, and remove them. Each part has that order."""
    with ExitStack() as stack:
        files = [stack.enter_context(open(part, encoding="utf-8", newline="\n")) for part in parts]
        lines = heapq.merge(*files, key=lambda line: int(line.partition("\t")[0]))
        with open(target, "w", encoding="utf-8") as file:
            file.writelines(line.partition("\t")[2] for line in lines)
    for part in parts:
        part.unlink()
