"""Parts are Parquet as others read it: every column has the same values for each reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas
import pyarrow.parquet
import pytest

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize
from hone_trainer.datasets.readers import pieces
from hone_trainer.datasets.sources import downloads
from hone_trainer.workers.pods import Pod

pytestmark = pytest.mark.trainer
ROWS = [
    {"question": f"What is {n}?", "answer": f"{n} ü 名 \U0001f600 \x00" * (n % 9), "of": f"group {n % 3}"}
    for n in range(200)
]


def _pandas(path: Path) -> dict[str, list[Any]]:
    frame = pandas.read_parquet(path, dtype_backend="pyarrow")
    return {name: [None if value is pandas.NA else value for value in frame[name]] for name in frame}


READERS = {
    "datasets": lambda path: datasets.Dataset.from_parquet(str(path), keep_in_memory=True).to_dict(),
    "pandas": _pandas,
    "DuckDB": lambda path: duckdb.read_parquet(str(path)).to_arrow_table().to_pydict(),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_part_has_the_same_values_for_every_reader(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "BYTES", 5_000)
    source, kept = tmp_path / "rows.jsonl", tmp_path / "kept"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    kept.mkdir()
    plan = {
        "name": "rows",
        "store": str(tmp_path / "store"),
        "source": {"uri": "pvc://claim/rows.jsonl"},
        "sourcePath": str(source),
        "downloadsPath": str(kept),
        "columns": {"prompt": "question", "completion": "answer"},
        "splits": {"stratifyBy": "of"},
        "curation": {"deduplicate": "Near"},
        "pods": 2,
    }
    materialize.share(MaterializePlan.model_validate(plan), Pod(1, 2))
    paths = sorted((kept / downloads.CHECKED).glob("*.parquet"))
    assert len(paths) > 2
    for path in paths:
        ours = pyarrow.parquet.read_table(path).to_pydict()
        theirs = READERS[reader](path)
        assert theirs.keys() == ours.keys()
        assert {name: theirs[name] == ours[name] for name in ours} == dict.fromkeys(ours, True)
