"""What decisions of several people come to, and what a sample says about the rest."""

from __future__ import annotations

from fractions import Fraction
from itertools import count
from math import comb
from typing import Any

import pytest

from hone_api.dataset.review import (
    Candidate,
    Decision,
    Provenance,
    Verdict,
    most_defective,
    row_id,
    sample,
    standings,
    verify,
)
from hone_api.dataset.synthesis import Synthesis

pytestmark = pytest.mark.pure

PROVENANCE = Provenance(
    template="Paraphrase", model="m", endpoint="h", seeds=[], revision="r", prompt="p", time="2026-01-01T00:00:00Z"
)


def candidates(number: int) -> list[Candidate]:
    rows = [{"prompt": f"question {i}", "completion": "answer"} for i in range(number)]
    return [Candidate(index=i, id=row_id(row), row=row, group="g", provenance=PROVENANCE) for i, row in enumerate(rows)]


def decided(*decisions: tuple[Candidate, str, str]) -> list[Decision]:
    """(row, verdict, reviewer) in the order in which they were taken."""
    clock = count()
    return [
        Decision(
            id=row.id,
            verdict=verdict,
            row={**row.row, "prompt": f"by {reviewer}"} if verdict == "Edit" else None,
            reviewer=reviewer,
            time=f"2026-01-01T00:00:{next(clock):02d}Z",
        )
        for row, verdict, reviewer in decisions
    ]


def request(rows: int, **review: Any) -> Synthesis:
    body = {"template": "Paraphrase", "endpoint": "https://example.org/v1", "rows": rows, "review": review}
    return Synthesis.model_validate(body)


def test_nothing_is_accepted_before_a_person_did():
    found = verify(candidates(3), [], request(3))
    assert (found.complete, found.accepted, len(found.asked)) == (False, [], 3)


def test_the_review_is_complete_when_every_row_is_decided_on():
    rows = candidates(2)
    found = verify(rows, decided((rows[0], "Accept", "ann"), (rows[1], "Reject", "ann")), request(2))
    assert found.complete
    assert [c.id for c, _ in found.accepted] == [rows[0].id]


def test_the_wanted_number_ends_it_and_the_rest_is_left_out():
    rows = candidates(5)
    found = verify(rows, decided((rows[3], "Accept", "ann"), (rows[1], "Accept", "bob")), request(5, accepted=2))
    assert found.complete
    assert {c.id for c, _ in found.accepted} == {rows[1].id, rows[3].id}


def test_a_rejection_wins_over_others_and_is_reported_as_a_conflict():
    rows = candidates(1)
    found = verify(rows, decided((rows[0], "Reject", "ann"), (rows[0], "Accept", "bob")), request(1))
    assert (found.accepted, found.rejected, found.conflicts) == ([], 1, 1)


def test_an_edit_wins_over_an_acceptance_and_the_later_edit_over_the_earlier():
    rows = candidates(1)
    decisions = decided((rows[0], "Edit", "ann"), (rows[0], "Edit", "bob"), (rows[0], "Accept", "cid"))
    assert standings(decisions)[rows[0].id].deciding.reviewer == "bob"


def test_the_last_word_of_a_reviewer_counts_and_can_be_taken_back():
    rows = candidates(2)
    decisions = decided(
        (rows[0], "Reject", "ann"), (rows[0], "Accept", "ann"), (rows[1], "Accept", "ann"), (rows[1], "Undo", "ann")
    )
    found = verify(rows, decisions, request(2))
    assert [c.id for c, _ in found.accepted] == [rows[0].id]
    assert [c.id for c in found.asked] == [rows[1].id]
    assert found.conflicts == 0


def test_decisions_on_rows_that_are_gone_count_for_nothing():
    rows = candidates(2)
    found = verify(rows[:1], decided((rows[1], "Accept", "ann")), request(1))
    assert (found.accepted, len(found.asked)) == ([], 1)


def test_without_review_every_row_that_nobody_rejected_is_taken():
    rows = candidates(3)
    found = verify(rows, decided((rows[0], "Reject", "ann")), request(3, required=False))
    assert found.complete
    assert [c.id for c, _ in found.accepted] == [row.id for row in rows[1:]]


# -- by a sample ---------------------------------------------------------------------------------


def sampled(rows: list[Candidate], verdicts: str, **sampling: Any) -> Any:
    """The state after so many decisions on the sample, A or R each."""
    asked = request(len(rows), sampling=sampling)
    names = {"A": "Accept", "R": "Reject"}
    chosen = sample(rows, asked.review.sampling.size, asked.seed)
    decisions = decided(*((row, names[v], "ann") for row, v in zip(chosen, verdicts, strict=False)))
    return verify(rows, decisions, asked)


def test_people_are_asked_for_the_sample_alone():
    found = sampled(candidates(100), "", size=10)
    assert len(found.asked) == 10
    assert not found.complete
    assert "10 of 10 sampled rows wait" in found.sample


def test_a_sample_that_passes_accepts_the_rest_and_states_the_confidence():
    found = sampled(candidates(1000), "A" * 59, size=59)
    assert found.complete
    assert len(found.accepted) == 1000
    bad = most_defective(1000, 59, 0, 0.95)
    assert found.sample == (
        f"0 of 59 sampled rows are bad: with 95% confidence at most {bad} of all 1000 rows ({bad / 10:.1f}%) were."
    )


def test_bad_rows_of_a_sample_that_passes_are_left_out():
    found = sampled(candidates(100), "R" + "A" * 19, size=20, maxDefects=1)
    assert found.complete
    assert len(found.accepted) == 99


def test_a_sample_that_fails_makes_every_row_wait():
    found = sampled(candidates(100), "RR", size=20, maxDefects=1)
    assert not found.complete
    assert len(found.asked) == 98
    assert "review every row" in found.sample


def test_the_sample_depends_on_the_seed_and_the_rows_not_on_their_order():
    rows = candidates(200)
    assert sample(rows, 20, 1) == sample(rows[::-1], 20, 1)
    assert {c.id for c in sample(rows, 20, 1)} != {c.id for c in sample(rows, 20, 2)}


def chance(found: int, rows: int, bad: int, size: int) -> Fraction:
    """P(at most `found` bad ones in the sample), by counting samples."""
    ways = sum(comb(bad, k) * comb(rows - bad, size - k) for k in range(found + 1))
    return Fraction(ways, comb(rows, size))


@pytest.mark.parametrize("rows", [1, 2, 7, 30])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_the_bound_is_the_exact_one(rows, confidence):
    """The largest number of bad rows for which so few in the sample are not rarer than 1 - confidence."""
    limit = 1 - Fraction(str(confidence))
    for size in range(1, rows + 1):
        for found in range(size + 1):
            possible = range(found, rows - (size - found) + 1)
            expected = max((bad for bad in possible if chance(found, rows, bad, size) >= limit), default=found)
            assert most_defective(rows, size, found, confidence) == expected


@pytest.mark.parametrize(("rows", "size", "bad"), [(60, 20, 9), (200, 30, 20)])
def test_the_bound_holds_as_often_as_it_says(rows, size, bad):
    """Over all samples that there are, each with its own bound."""
    covered = sum(
        comb(bad, found) * comb(rows - bad, size - found)
        for found in range(min(bad, size) + 1)
        if most_defective(rows, size, found, 0.9) >= bad
    )
    assert Fraction(covered, comb(rows, size)) >= Fraction(9, 10)


def test_of_a_large_batch_the_bound_is_that_of_clopper_and_pearson():
    """59 rows without a bad one: at most 5 % with 95 % confidence, 1 - 0.05 ** (1 / 59)."""
    rows = 10_000_000
    assert most_defective(rows, 59, 0, 0.95) / rows == pytest.approx(1 - 0.05 ** (1 / 59), rel=1e-4)


def test_a_sample_of_all_rows_leaves_no_doubt():
    assert most_defective(50, 50, 3, 0.999) == 3


def test_verdicts_are_those_of_the_tools():
    assert {v.value for v in Verdict} == {"Accept", "Edit", "Reject", "Undo"}
