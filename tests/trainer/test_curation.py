"""Curation: what each step removes, that the first of equal rows stays, and that order and digest are steady."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize
from hone_trainer.errors import DataError

pytestmark = pytest.mark.trainer
WORDS = [f"word{i}" for i in range(5000)]


def sentence(seed: int, length: int = 60) -> list[str]:
    return random.Random(seed).choices(WORDS, k=length)


def without(words: list[str], at: int) -> list[str]:
    return [*words[:at], "changed", *words[at + 1 :]]


@pytest.fixture
def curated(tmp_path):
    """Materialises rows under a plan's fields; gives the result and what lies in the store."""

    def run(rows, **fields):
        source = tmp_path / "rows.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        fields = {"splits": {"validation": "0%"}, **fields}
        plan = {"name": "rows", "store": str(tmp_path / "store"), "source": {"uri": "pvc://claim/rows.jsonl"}}
        result = materialize.run(MaterializePlan.model_validate({**plan, "sourcePath": str(source), **fields}))
        folder = tmp_path / "store" / result.path
        return result, {p.stem: [json.loads(line) for line in p.open()] for p in folder.glob("*.jsonl")}

    return run


def step(result, name):
    return next(step for step in result.curation if step.step == name)


def test_without_curation_nothing_is_removed(curated):
    result, files = curated([{"text": "same"}] * 3)
    assert (result.rows, result.duplicates, result.curation) == (3, 2, [])
    assert "removed" not in files


def test_rows_that_differ_in_case_spacing_and_unicode_form_alone_are_duplicates(curated):
    rows = [
        {"prompt": "What is a caf\u00e9?", "completion": "A bar."},
        {"prompt": "Who?", "completion": "Me."},
        {"prompt": "  what is a  CAFE\u0301?\n", "completion": "a bar."},
        {"prompt": "What is a caf\u00e9?", "completion": "A bar!"},
        {"prompt": "What is a caf\u00e9? A bar.", "completion": "."},
        {"prompt": "Who?", "completion": "Me."},
    ]
    result, files = curated(rows, curation={"deduplicate": "Exact"})
    assert files["train"] == [rows[0], rows[1], rows[3], rows[4]]
    assert step(result, "ExactDuplicates").model_dump() == {
        "step": "ExactDuplicates",
        "removed": 2,
        "changed": 0,
        "rows": [3, 6],
        "example": "row 3: repeats row 1",
    }
    assert files["removed"] == [
        {"row": 3, "step": "ExactDuplicates", "reason": "repeats row 1", "value": rows[2]},
        {"row": 6, "step": "ExactDuplicates", "reason": "repeats row 2", "value": rows[5]},
    ]


def test_the_first_of_near_duplicates_stays_and_the_others_are_told(curated):
    first, other = sentence(1), sentence(2)
    rows = [{"text": " ".join(words)} for words in (first, other, without(first, 30), sentence(3), without(first, 10))]
    result, files = curated(rows, curation={"deduplicate": "Near"})
    assert files["train"] == [rows[0], rows[1], rows[3]]
    near = step(result, "NearDuplicates")
    assert (near.removed, near.rows) == (2, [3, 5])
    assert near.example == "row 3: is like row 1 (Jaccard similarity 90%)", "55 of 61 different 3-grams are in both"


@pytest.mark.parametrize(("similarity", "left"), [("91%", 2), ("90%", 1)])
def test_similarity_is_exact(curated, similarity, left):
    words = sentence(1)
    rows = [{"text": " ".join(words)}, {"text": " ".join(without(words, 30))}]
    wanted = {"deduplicate": "Near", "nearDuplicates": {"similarity": similarity}}
    result, _ = curated(rows, curation=wanted)
    assert result.rows == left


def test_texts_without_spaces_are_compared_by_characters(curated):
    text = "".join(random.Random(1).choices("人之初性本善性相近习相远苟不教性乃迁教之道贵以专", k=200))
    rows = [{"text": text}, {"text": text[:100] + "新" + text[101:]}, {"text": text[::-1]}]
    _, files = curated(rows, curation={"deduplicate": "Near"})
    assert files["train"] == [rows[0], rows[2]]


def test_near_duplicates_never_cross_splits(curated):
    rows = []
    for seed in range(60):
        words = sentence(seed)
        rows += [{"text": " ".join(words)}, {"text": " ".join(without(words, 20))}]
    division = {"validation": "30%", "nearDuplicates": "Group"}
    result, files = curated(rows, splits=division)
    families = {name: {row["text"][:20] for row in files[name]} for name in ("train", "validation")}
    assert not families["train"] & families["validation"]
    assert all(len(files[name]) == 2 * len(families[name]) for name in families), "each family is whole"
    assert result.rows == 120
    assert step(result, "NearDuplicateGroups").changed == 60
    _, scattered = curated(rows, splits={"validation": "30%"})
    assert {r["text"][:20] for r in scattered["train"]} & {r["text"][:20] for r in scattered["validation"]}


def test_groups_that_a_near_duplicate_connects_stay_together(curated):
    rows = []
    for seed in range(0, 120, 2):
        words = sentence(seed)
        pages = [words, sentence(seed + 1), without(words, 20), sentence(seed + 10_000)]
        rows += [{"text": " ".join(page), "book": f"{seed}-{n // 2}", "family": seed} for n, page in enumerate(pages)]
    division = {"validation": "30%", "nearDuplicates": "Group", "groupBy": "book"}
    _, files = curated(rows, splits=division)
    family = {row["text"]: row["family"] for row in rows}
    train, held_out = ({family[row["text"]] for row in files[name]} for name in ("train", "validation"))
    assert train
    assert held_out
    assert not train & held_out, "the two books of a family share a page but for one word"


def test_appended_near_duplicates_move_no_row(curated):
    rows = [{"text": " ".join(sentence(seed))} for seed in range(80)]
    more = [{"text": " ".join(without(sentence(seed), 20))} for seed in range(80)]
    division = {"validation": "30%", "nearDuplicates": "Group"}
    _, before = curated(rows, splits=division)
    _, after = curated(rows + more, splits=division)
    for name in ("train", "validation"):
        assert before[name] == after[name][: len(before[name])]


def test_the_same_rows_give_the_same_digest(curated):
    rows = [{"text": " ".join(without(sentence(seed // 3), seed % 3))} for seed in range(90)]
    first, _ = curated(rows, curation={"deduplicate": "Near"})
    second, _ = curated(rows, curation={"deduplicate": "Near"})
    assert first == second
    assert first.rows == 30


def test_too_few_rows_that_are_left_are_told_by_step(curated):
    with pytest.raises(DataError) as caught:
        curated([{"text": "same"}] * 5, curation={"deduplicate": "Exact"}, checks={"minRows": 2})
    assert caught.value.code == "TooFewRows"
    assert "1 of 5 valid rows are left (removed: ExactDuplicates 4), checks.minRows is 2" in caught.value.message


def test_nothing_of_the_curation_is_left_on_disk(curated, tmp_path: Path):
    curated([{"text": " ".join(sentence(seed))} for seed in range(9)], curation={"deduplicate": "Near"})
    (folder,) = (tmp_path / "store" / "datasets").iterdir()
    assert sorted(p.name for p in folder.iterdir() if p.suffix != ".html") == [
        "manifest.json",
        "rejected.jsonl",
        "report.json",
        "train.jsonl",
    ]
