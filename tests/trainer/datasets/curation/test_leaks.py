"""Contamination in English, German, Spanish and French: what is found of leaks that are planted here, what is lost."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from statistics import mean

import pytest

from hone_api.dataset.curation import Contamination
from hone_dev.campaigns.leaks import CLEAN, EXAM_ROWS, KINDS, LANGUAGES, SAME_FORM, VERBATIM, LeakCounts, plant, table
from hone_dev.campaigns.leaks import measured as measure

pytestmark = pytest.mark.trainer
DEFAULT = Contamination.model_fields["overlap"].default
SHOWN = ("first 60 % of the question", "1 word in 14 replaced", "1 word in 10 replaced", "other numbers")
LEAST_PRECISION, LEAST_RECALL = 0.98, 0.94


@cache
def measured(overlap: str, seed: int = 0) -> dict[str, LeakCounts]:
    """Several tests look at the same figures."""
    return measure(overlap, seed)


@pytest.fixture(scope="module", params=[0, 1], ids=lambda seed: f"seed {seed}")
def by_default(request: pytest.FixtureRequest) -> dict[str, LeakCounts]:
    return measured(DEFAULT, request.param) if request.param else measured(DEFAULT)


def test_leaks_are_found_in_every_language(by_default, capsys):
    with capsys.disabled():
        print("", *table(DEFAULT, by_default), sep="\n")
    assert by_default.keys() == LANGUAGES.keys()
    for language, found in by_default.items():
        assert found.precision >= LEAST_PRECISION, language
        assert found.recall() >= LEAST_RECALL, language
        assert found.removed[CLEAN] == 0, language
        assert found.removed[SAME_FORM] <= 8, language


def test_a_question_or_answer_word_for_word_is_always_found(by_default):
    """Whatever its case, punctuation and accents, and whatever stands around it."""
    for language, found in by_default.items():
        assert {kind: found.removed[kind] for kind in VERBATIM} == dict.fromkeys(VERBATIM, EXAM_ROWS), language


def test_a_larger_overlap_misses_edits_and_a_smaller_one_takes_what_is_clean():
    large, small = measured("50%"), measured("10%")
    for language in LANGUAGES:
        assert large[language].recall() < 0.8, language
        assert small[language].precision < 0.7, language


@pytest.mark.parametrize("overlap", ["50%", "25%", "20%", "15%", "10%"])
def test_the_table_of_the_guide_is_what_is_measured(overlap):
    page = (Path(__file__).parents[4] / "docs" / "guides" / "data" / "clean.md").read_text()
    (line,) = (line for line in page.splitlines() if line.replace("*", "").startswith(f"| {overlap} |"))
    shown = [float(cell.strip(" %")) for cell in line.strip("|").split("|")[1:]]
    found = list(measured(overlap).values())
    kinds = (VERBATIM, *((kind,) for kind in SHOWN), tuple(KINDS))
    recall = [100 * mean(one.recall(kind) for one in found) for kind in kinds]
    clean = sum(len(plant(language).rows[kind]) for language in LANGUAGES for kind in (CLEAN, SAME_FORM))
    lost = 100 * sum(one.removed[CLEAN] + one.removed[SAME_FORM] for one in found) / clean
    assert shown == pytest.approx([*recall, lost], abs=0.51)


def test_what_is_planted_is_what_it_says():
    leaks = plant("French")
    prompts = {row["prompt"] for row in leaks.exam}
    assert not prompts & {row["prompt"] for row in (*leaks.rows[CLEAN], *leaks.rows[SAME_FORM])}
    assert leaks.rows["as it is"] == leaks.exam[:EXAM_ROWS]
    assert any("é" in row["prompt"] for row in leaks.exam)
    assert not any("é" in row["prompt"] for row in leaks.rows["no accents"])
    assert plant("French", 1) != leaks
