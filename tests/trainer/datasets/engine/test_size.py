"""Rows in little memory: a process has what it had for a tenth of them, and what DuckDB may have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.trainer
ROWS = 200_000
CONTAINER = 192
"""MiB: DuckDB has a quarter of it."""
RUN = """
import json, resource, sys
from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize
from hone_trainer.datasets.readers import memory
from hone_trainer.workers import parallel

memory.budget = lambda: int(sys.argv[2]) * 2**20 // 2
parallel.cores = lambda: 2
materialize.SMALL_BYTES = 0
result = materialize.run(MaterializePlan.model_validate(json.loads(sys.argv[1])))
peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps([{split.name: split.rows for split in result.splits}, result.curation[0].removed, *peaks]))
"""


def _materialized(rows: int, folder: Path) -> tuple[dict[str, int], int, float, float]:
    """Rows of each split, and how many were removed; MiB of the first process, and of the largest worker."""
    (kept := folder / "kept").mkdir(parents=True)
    with open(folder / "rows.jsonl", "w") as file:
        answer = "It is what it is. " * 20
        for n in range(rows):
            file.write(f'{{"prompt": "What is {n % (rows - 1000)}?", "completion": "{answer}"}}\n')
    plan = {
        "name": "rows",
        "store": str(folder / "store"),
        "source": {"uri": "pvc://claim/rows.jsonl"},
        "sourcePath": str(folder / "rows.jsonl"),
        "splits": {"validation": "5%"},
        "curation": {"deduplicate": "Exact"},
        "downloadsPath": str(kept),
    }
    command = [sys.executable, "-c", RUN, json.dumps(plan), str(CONTAINER)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    splits, removed, first, worker = json.loads(done.stdout.splitlines()[-1])
    return splits, removed, first, worker


def test_rows_that_are_more_than_the_memory_are_divided(tmp_path: Path) -> None:
    _, _, few_first, few_worker = _materialized(ROWS // 10, tmp_path / "few")
    splits, removed, first, worker = _materialized(ROWS, tmp_path / "many")
    assert (sum(splits.values()), removed) == (ROWS - 1000, 1000)
    assert abs(splits["validation"] / ROWS - 0.05) < 0.005
    assert first < few_first + CONTAINER / 4
    assert worker < few_worker + 100
