"""Splits: stable, by content, never empty where a few rows can help it."""

import random
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from support.rows import counting

from hone_api.dataset.dataset import Splits
from hone_trainer.datasets.curation.near import Clusters
from hone_trainer.datasets.engine import dividing
from hone_trainer.datasets.engine.arrays import column
from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.datasets.splits.splits import Division, hash_of, wanted
from hone_trainer.errors import ConfigError
from hone_trainer.store.contents import SPLITS

pytestmark = pytest.mark.trainer


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


@pytest.mark.parametrize("rows", [3, 4, 6])
@pytest.mark.parametrize("held_out", ["5%", "20%", "40%", "50%"])
def test_three_rows_are_enough_for_three_splits(rows, held_out):
    """Of seed 0 to 200 some have all rows in the lowest part, and some all but one in validation."""
    asked = {"train", "validation", "test"} - ({"train"} if held_out == "50%" else set())
    for seed in range(200):
        found = divide(KEYS[:rows], Splits(validation=held_out, test=held_out, seed=seed))
        assert set(found.values()) == asked


def test_small_data_moves_as_few_rows_as_possible():
    for seed in range(50):
        found = divide(KEYS[:10], Splits(validation="0.001%", test="0.001%", seed=seed))
        assert sorted(found.values()) == ["test"] + ["train"] * 8 + ["validation"]


def test_one_row_cannot_be_in_two_splits():
    assert len(set(divide(KEYS[:1], Splits()).values())) == 1


def stratify(rows: list[tuple[str, str]], splits: Splits) -> list[str]:
    """The split of each (group, value of the column)."""
    import pyarrow

    with counting.relation([]) as made:
        groups = pyarrow.array([hash_of(key.encode(), splits.seed) for key, _ in rows], pyarrow.uint64())
        columns = {"row": range(len(rows)), "grp": groups, "content": groups, "question": groups}
        made.execute("CREATE TABLE kept (row BIGINT, grp UBIGINT, content UBIGINT, question UBIGINT, stratum VARCHAR)")
        made.insert("kept", {**columns, "stratum": [value for _, value in rows]})
        dividing.check_strata(made, splits)
        dividing.divide(made, splits, None)
        return [SPLITS[code - 1] for _, code in made.all("SELECT row, code FROM divided ORDER BY row")]


STRATIFIED = Splits(validation="10%", test="20%", stratify_by="kind")
MANY = [(f"row {i}", "rare" if i % 50 == 7 else "odd" if i % 3 else "even") for i in range(5000)]


def test_every_stratum_has_its_share_in_every_split():
    found = stratify(MANY, STRATIFIED)
    for kind in ("rare", "odd", "even"):
        of_kind = [split for split, (_, value) in zip(found, MANY, strict=True) if value == kind]
        assert of_kind.count("validation") == pytest.approx(0.1 * len(of_kind), abs=2.5)
        assert of_kind.count("test") == pytest.approx(0.2 * len(of_kind), abs=2.5)


@pytest.mark.parametrize("period", [2, 3, 5, 10, 20])
def test_an_order_that_repeats_itself_is_not_met(period):
    found = stratify([(key, "one") for key, _ in MANY], STRATIFIED)
    for phase in range(period):
        every = found[phase::period]
        assert every.count("validation") == pytest.approx(0.1 * len(every), rel=0.25)


def test_appended_rows_move_no_other_of_a_stratum():
    assert stratify(MANY[:3000], STRATIFIED) == stratify(MANY, STRATIFIED)[:3000]
    assert stratify(MANY, STRATIFIED) != stratify(MANY, STRATIFIED.model_copy(update={"seed": 1}))


def test_a_group_over_several_strata_stays_whole():
    rows = [(f"group {i // 4}", f"value {i % 2}") for i in range(2000)]
    found = stratify(rows, STRATIFIED)
    assert all(len(set(found[i : i + 4])) == 1 for i in range(0, 2000, 4))
    assert set(found) == {"train", "validation", "test"}


def test_a_column_of_too_many_values_is_reported():
    with pytest.raises(ConfigError, match=r"splits.stratifyBy: column kind has over 10000 values"):
        stratify([(str(i), str(i)) for i in range(10_001)], STRATIFIED)


def joined(folder: Path, groups: list[int], questions: list[int]) -> tuple[list[int], int]:
    """The group of each row with those that ask the same, and how many rounds that took."""
    with Relation([], folder / "relation", 2**30) as rows:
        rows.execute("CREATE TABLE kept (row BIGINT, grp UBIGINT, question UBIGINT)")
        columns = {"row": range(1, len(groups) + 1), "grp": groups, "question": questions}
        rows.insert("kept", {name: column(values, pyarrow.uint64()) for name, values in columns.items()})
        execute, statements = rows.execute, list[str]()

        def noted(statement: str, *values: Any) -> Any:
            statements.append(statement)
            return execute(statement, *values)

        rows.execute = noted
        dividing._join_questions(rows, Splits(validation="50%", test="50%"))
        return [group for (group,) in rows.all("SELECT joined FROM grouped ORDER BY row")], sum(
            "DROP TABLE firsts" in statement for statement in statements
        )


def by_union(groups: list[int], questions: list[int]) -> list[int]:
    clusters = Clusters()
    for keys in (groups, questions):
        first: dict[int, int] = {}
        for row, key in enumerate(keys):
            clusters.join(first.setdefault(key, row), row)
    return [groups[clusters.first(row)] for row in range(len(groups))]


@pytest.mark.parametrize("seed", range(20))
def test_groups_that_ask_the_same_are_one_group(tmp_path: Path, seed: int) -> None:
    chosen = random.Random(seed)
    many = chosen.choice((10, 60, 200))
    groups = [chosen.randrange(many) for _ in range(200)]
    questions = [chosen.randrange(chosen.choice((30, 300))) for _ in range(200)]
    assert joined(tmp_path, groups, questions)[0] == by_union(groups, questions)


def test_a_chain_of_groups_takes_few_rounds(tmp_path: Path) -> None:
    """Group n and group n + 1 share question n."""
    groups = [number // 2 for number in range(1, 2001)]
    found, rounds = joined(tmp_path, groups, [number // 2 for number in range(2000)])
    assert set(found) == {0}
    assert 0 < rounds < 15
