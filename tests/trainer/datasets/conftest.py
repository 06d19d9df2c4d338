"""Datasets of a test, materialized."""

from __future__ import annotations

import json

import pytest

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize


@pytest.fixture
def curated(tmp_path):
    """Materializes rows under a plan's fields; gives the result and what is in the store."""

    def run(rows, **fields):
        source = tmp_path / "rows.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        fields = {"splits": {"validation": "0%"}, **fields}
        plan = {"name": "rows", "store": str(tmp_path / "store"), "source": {"uri": "pvc://claim/rows.jsonl"}}
        result = materialize.run(MaterializePlan.model_validate({**plan, "sourcePath": str(source), **fields}))
        folder = tmp_path / "store" / result.path
        return result, {p.stem: [json.loads(line) for line in p.open()] for p in folder.glob("*.jsonl")}

    return run
