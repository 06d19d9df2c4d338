"""What comes of scores: win rates and pass@k."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from hone_trainer.scoring import paired
from hone_trainer.scoring.scores import Mean, Score

pytestmark = pytest.mark.pure


def scored(*values: float | None) -> Score:
    return Score({"reward_mine": Mean([v or 0.0 for v in values], [float(v is not None) for v in values])}, 10)


def test_a_win_is_a_higher_score_and_a_tie_half_of_one() -> None:
    base, tuned = (s.means["reward_mine"] for s in (scored(0, 1, 1, 3), scored(1, 1, 0, 4)))
    assert paired.wins(base, tuned) == Mean([1.0, 0.5, 0.0, 1.0], [1.0] * 4)


def test_numbers_are_of_the_rows_that_both_have_a_score_of() -> None:
    reward, rate = paired.numbers(["a/test"], [scored(0, None, 1, 4)], [scored(1, 1, None, 4)])
    assert (reward.name, reward.base, reward.tuned, reward.rows) == ("reward_mine", "2.000000", "2.500000", 2)
    assert (rate.name, rate.base, rate.tuned, rate.rows) == ("win_rate_mine", None, "0.750000", 2)
    assert (rate.low, rate.high, rate.change_low) == ("0.500000", "1.000000", None)


@pytest.mark.parametrize("base", [None, [scored(1, None)]], ids=["lost", "on other rows"])
def test_what_cannot_be_compared_stands_alone(base: Any) -> None:
    (reward,) = paired.numbers(["a/test"], base, [scored(None, 3)])
    assert (reward.base, reward.tuned, reward.rows) == (None, "3.000000", 1)


@pytest.mark.parametrize("right", range(6))
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(right: int, k: int) -> None:
    draws = list(combinations([True] * right + [False] * (5 - right), k))
    expected = sum(map(any, draws)) / len(draws)
    assert paired.pass_at(k, [5.0], [float(right)]).totals == pytest.approx([expected], abs=1e-12)


def test_samples_have_no_win_rate() -> None:
    after = Score({paired.pass_name(2, "code"): Mean([0.5, 1.0], [1.0, 1.0])}, 10)
    (number,) = paired.numbers(["a/test"], [after], [after])
    assert (number.name, number.base, number.tuned, number.tokens) == ("pass_at_2_code", "0.750000", "0.750000", None)


def test_a_row_with_fewer_scored_samples_than_k_does_not_count() -> None:
    found = paired.pass_at(4, [8.0, 3.0, 4.0], [0.0, 3.0, 1.0])
    assert found == Mean([0.0, 0.0, 1.0], [1.0, 0.0, 1.0])
