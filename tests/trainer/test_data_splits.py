"""Splits: stable, by content, never empty where a few rows can help it."""

import pytest

from hone_api.dataset import Splits
from hone_trainer.datasets.splits import Division, hash_of, wanted

pytestmark = pytest.mark.pure


def divide(keys, splits: Splits) -> dict[str, str]:
    division = Division.of(splits)
    hashes = {key: hash_of(key.encode(), splits.seed) for key in keys}
    for value in hashes.values():
        division.see(value)
    division.settle()
    return {key: division.split_of(value) for key, value in hashes.items()}


def shares(found: dict[str, str]) -> dict[str, float]:
    return {name: list(found.values()).count(name) / len(found) for name in set(found.values())}


KEYS = [f"row {i}" for i in range(5000)]


def test_shares_are_about_what_was_asked_for():
    found = shares(divide(KEYS, Splits(validation="10%", test="20%")))
    assert found["validation"] == pytest.approx(0.1, abs=0.02)
    assert found["test"] == pytest.approx(0.2, abs=0.02)


def test_appended_rows_move_no_other():
    splits = Splits(validation="5%", test="5%")
    before, after = divide(KEYS[:3000], splits), divide(KEYS, splits)
    assert all(after[key] == name for key, name in before.items())


def test_raising_the_share_moves_rows_from_train_alone():
    less, more = divide(KEYS, Splits(validation="5%")), divide(KEYS, Splits(validation="10%"))
    assert all(more[key] == "validation" for key, name in less.items() if name == "validation")


def test_the_seed_makes_another_division():
    one, other = divide(KEYS, Splits()), divide(KEYS, Splits(seed=1))
    both = [key for key in KEYS if one[key] == other[key] == "validation"]
    assert len(both) < 50


def test_no_share_no_split():
    assert set(divide(KEYS, Splits(validation="0%")).values()) == {"train"}
    assert set(divide(KEYS, Splits(validation="100%")).values()) == {"validation"}
    assert wanted(Splits(validation="0%")) == ["train"]
    assert wanted(Splits(validation="100%")) == ["validation"]
    assert wanted(Splits(validation="5%", test="5%")) == ["train", "validation", "test"]


@pytest.mark.parametrize("rows", [2, 3, 5, 10])
@pytest.mark.parametrize("validation", ["1%", "50%", "99%"])
def test_small_data_still_has_validation_and_train(rows, validation):
    for seed in range(50):
        found = divide(KEYS[:rows], Splits(validation=validation, seed=seed))
        assert set(found.values()) == {"train", "validation"}


def test_small_data_moves_as_few_rows_as_possible():
    for seed in range(50):
        found = divide(KEYS[:10], Splits(validation="0.001%", test="0.001%", seed=seed))
        assert sorted(found.values()) == ["test"] + ["train"] * 8 + ["validation"]


def test_one_row_cannot_be_in_two_splits():
    assert len(set(divide(KEYS[:1], Splits()).values())) == 1
