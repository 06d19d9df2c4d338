"""What the engine counts of normalised records, and how it divides them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.checked import Normalised, PartMaker
from hone_trainer.datasets.engine.counts import RowCounts
from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.datasets.readers.rows import RawRow
from hone_trainer.store.part_folder import PartFolder

PLAN = {"name": "rows", "store": "/nowhere", "source": {"uri": "pvc://claim/rows.jsonl"}}


@contextmanager
def relation(records: Sequence[dict[str, Any]]) -> Iterator[Relation]:
    """The relation of records."""
    with tempfile.TemporaryDirectory() as name:
        plan = MaterializePlan.model_validate(PLAN)
        maker = PartMaker(Normalised(plan, None), plan, {}, None, True, PartFolder(Path(name) / "parts", ""), 0)
        rows = (RawRow(at, "", line=json.dumps(record).encode()) for at, record in enumerate(records, 1))
        with Relation([maker.of_rows(0, rows)], Path(name) / "relation", 0) as made:
            yield made


@contextmanager
def counts(records: Sequence[dict[str, Any]]) -> Iterator[RowCounts]:
    """What is counted of records."""
    with relation(records) as rows:
        yield RowCounts(rows)
