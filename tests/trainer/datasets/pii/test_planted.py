"""Planted defects: what the curation finds of them, and what it takes for one that is none."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from hone_api.plan import MaterializePlan
from hone_dev.campaigns.planted import DECOYS, Planted, plant, similarity
from hone_trainer.datasets import materialize

pytestmark = pytest.mark.trainer
HELD = {"NearDuplicates": 0.9}
"""Least precision and recall of classes that are not exact; 0.98 for the others."""
EXACT = 0.98


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(rows=2000, seed=7)


@pytest.fixture(scope="module")
def found(planted, tmp_path_factory) -> dict[str, set[int]]:
    """Row numbers by what became of them: <step>, <step>/<kind> or Rejected/<code>."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "rows.jsonl").write_bytes(b"".join(planted.lines))
    exam = [{"prompt": row["question"], "completion": row["answer"]} for row in planted.exam]
    (folder / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in exam))
    plan = MaterializePlan.model_validate(
        {
            "name": "planted",
            "store": str(folder / "store"),
            "source": {"uri": "pvc://claim/rows.jsonl"},
            "sourcePath": str(folder / "rows.jsonl"),
            "columns": {"prompt": "question", "completion": "answer"},
            "checks": {"maxRejected": "10%"},
            "curation": {
                "personalData": "Refuse",
                "deduplicate": "Near",
                "contamination": {"datasets": [{"name": "exam"}]},
            },
            "evaluationSets": [
                {
                    "name": "exam",
                    "split": "test",
                    "path": str(folder / "exam.jsonl"),
                    "digest": "sha256:" + "0" * 64,
                }
            ],
        }
    )
    return _by_class(folder / "store" / str(materialize.run(plan).path))


def _by_class(folder: Path) -> dict[str, set[int]]:
    found = defaultdict(set)
    for line in (folder / "rejected.jsonl").open():
        row = json.loads(line)
        found[f"Rejected/{row['code']}"].add(row["row"])
    for line in (folder / "removed.jsonl").open():
        row = json.loads(line)
        if row["step"] == "PersonalData":
            for part in row["reason"].removeprefix("holds ").split(", "):
                found[f"PersonalData/{part.split()[1]}"].add(row["row"])
        else:
            found[row["step"]].add(row["row"])
    return found


def test_planted_defects_are_found_and_nothing_else(planted, found, capsys):
    lines, short = [], []
    for name in sorted((planted.rows.keys() | found.keys()) - {DECOYS}):
        planted_rows, found_rows = planted.rows.get(name, set()), found[name]
        right = len(planted_rows & found_rows)
        precision = right / len(found_rows) if found_rows else 0.0
        recall = right / len(planted_rows) if planted_rows else 0.0
        lines.append(f"{name:26} {len(planted_rows):8} {len(found_rows):6} {precision:10.3f} {recall:7.3f}")
        least = HELD.get(name, EXACT)
        short += [name] if precision < least or recall < least else []
    with capsys.disabled():
        print(f"\n{'defect':26} {'planted':>8} {'found':>6} {'precision':>10} {'recall':>7}", *lines, sep="\n")
    assert len(lines) == 15
    assert not short, f"{short}: below what is held\n" + "\n".join(lines)


def test_what_only_looks_like_a_defect_stays(planted, found):
    assert len(planted.rows[DECOYS]) == 300
    taken = {name: sorted(rows & planted.rows[DECOYS]) for name, rows in found.items()}
    assert sum(map(len, taken.values())) <= 0.02 * 300, {name: rows for name, rows in taken.items() if rows}


def test_near_duplicates_are_planted_at_the_similarity_that_is_promised(planted):
    rows = [json.loads(line) for line in planted.lines[:200]]
    copies = [json.loads(planted.lines[number - 1]) for number in sorted(planted.rows["NearDuplicates"])]
    nearest = [max(similarity(row, copy) for row in rows) for copy in copies]
    assert all(0.8 <= value < 1 for value in nearest)
    assert min(nearest) < 0.83, "some are near the bound"
