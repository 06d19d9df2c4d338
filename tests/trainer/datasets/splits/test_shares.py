"""Mixtures: how much of each Dataset, which rows, and that both are the same every time."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from hone_trainer.datasets.splits.shares import WeightedRows, amounts, pick, pick_rows
from hone_trainer.errors import ConfigError

pytestmark = pytest.mark.pure


def rows(name: str, count: int, share: str | None = None) -> WeightedRows:
    return WeightedRows(name, [1] * count, share)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([rows("a", 10), rows("b", 30)], [10, 30]),
        ([rows("own", 900), rows("general", 10_000, "10%")], [900, 100]),
        ([rows("own", 900), rows("general", 40, "10%")], [900, 100]),
        ([rows("own", 900, "90%"), rows("general", 10_000, "10%")], [900, 100]),
        ([rows("own", 300), rows("more", 600), rows("general", 5, "10%")], [300, 600, 100]),
        ([rows("general", 100, "50%"), rows("own", 10, "50%")], [100, 100]),
        ([rows("a", 100, "33.333%"), rows("b", 100, "33.333%"), rows("c", 100, "33.333%")], [100, 100, 100]),
        ([rows("own", 10), rows("general", 1000, "0.001%")], [10, 1]),
        ([rows("only", 7, "100%")], [7]),
    ],
)
def test_what_has_no_share_is_used_once_and_the_rest_follows(parts: list[WeightedRows], expected: list[int]) -> None:
    assert amounts(parts) == expected


def test_a_total_is_divided_by_the_shares() -> None:
    assert amounts([rows("a", 5, "80%"), rows("b", 5000, "20%")], total=1000) == [800, 200]


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        (("60%", "60%"), "120% together, not 100%"),
        (("10%", "20%"), "30% together, not 100%"),
        ((None, "100%"), "nothing is left for a"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares: tuple[str | None, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        amounts([rows("a", 10, shares[0]), rows("b", 10, shares[1])])
    assert caught.value.code == "ConflictingFields"


def test_rows_are_repeated_as_evenly_as_can_be() -> None:
    counts = Counter(pick(rows("general", 40), 100, seed=1))
    assert sorted(counts) == list(range(40))
    assert sorted(Counter(counts.values()).items()) == [(2, 20), (3, 20)]


def test_a_smaller_amount_is_part_of_a_larger_one_and_another_seed_is_another_choice() -> None:
    part = rows("general", 1000)
    few, many = pick(part, 50, seed=7), pick(part, 200, seed=7)
    assert (len(few), len(set(few))) == (50, 50)
    assert set(few) < set(many)
    assert pick(part, 50, seed=7) == few == sorted(few)
    assert set(pick(part, 50, seed=8)) != set(few)


@pytest.mark.parametrize(("rows", "amount"), [(1, 1), (40, 1), (40, 39), (40, 40), (300, 1007), (70_000, 30_001)])
def test_many_rows_are_picked_as_few(rows: int, amount: int) -> None:
    for seed in (0, 7):
        expected = pick(WeightedRows("größe", [1] * rows), amount, seed)
        assert pick_rows("größe", rows, amount, seed).tolist() == expected


def test_by_tokens_the_sum_comes_as_near_as_a_row_allows() -> None:
    random_ = random.Random(3)
    part = WeightedRows("general", [random_.randint(1, 200) for _ in range(500)])
    for amount in (1000, 10_000, sum(part.sizes) + 5000, 3 * sum(part.sizes)):
        got = sum(part.sizes[i] for i in pick(part, amount, seed=0))
        assert abs(got - amount) <= 100
