"""A batch of generated rows on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone_api.dataset.review import Candidate, Decision, Provenance, ReviewRequest, row_id
from hone_api.dataset.synthesis import Synthesis


class Batch:
    """A folder as the Job leaves it."""

    def __init__(self, folder: Path, rows: list[dict[str, Any]], **review: Any):
        self.folder = folder
        (folder / "decisions").mkdir(parents=True)
        synthesis = Synthesis.model_validate(
            {"template": "SelfInstruct", "endpoint": "https://example.org/v1", "rows": len(rows), "review": review}
        )
        request = ReviewRequest(dataset="answers", synthesis=synthesis)
        (folder / "review.json").write_text(request.model_dump_json(by_alias=True))
        self.ids = [row_id(row) for row in rows]
        with open(folder / "candidates.jsonl", "w") as file:
            for index, row in enumerate(rows):
                file.write(self.candidate(index, row).model_dump_json(by_alias=True) + "\n")

    @staticmethod
    def candidate(index: int, row: dict[str, Any]) -> Candidate:
        provenance = Provenance(
            template="SelfInstruct",
            model="m",
            endpoint="example.org",
            seeds=["0" * 16],
            revision="r",
            prompt="0" * 64,
            time="2026-01-01T00:00:00Z",
        )
        return Candidate(
            index=index, id=row_id(row), row=row, group=row_id(row), context="a seed row", provenance=provenance
        )

    def decisions(self) -> list[Decision]:
        """All, in the order of the files' names."""
        files = sorted((self.folder / "decisions").glob("*.jsonl"))
        return [Decision.model_validate(json.loads(line)) for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def make_batch(tmp_path: Path) -> Callable[..., Batch]:
    """Makes a batch of rows 'question 0' … with their answers."""

    def make(count: int = 3, rows: list[dict[str, Any]] | None = None, **review: Any) -> Batch:
        numbered = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(count)]
        return Batch(tmp_path / "batch", numbered if rows is None else rows, **review)

    return make
