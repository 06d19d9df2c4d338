"""A Dataset that grows: each row stays in its split, in small data as well, until spec.splits is edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone_api.contract.report import DatasetResult
from hone_api.dataset.dataset import Splits
from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize
from hone_trainer.datasets.readers.rows import canonical
from hone_trainer.datasets.splits.splits import Division, hash_of
from hone_trainer.errors import DataError, SourceError
from hone_trainer.store import manifest

pytestmark = pytest.mark.trainer
Rows = list[dict[str, Any]]
NAMES = ("train", "validation", "test")


def row(number: int, series: int = 0) -> dict[str, Any]:
    return {"text": f"text {number} of series {series}", "page": f"page {number // 20}", "kind": "abc"[number % 3]}


def text_of(record: dict[str, Any]) -> str:
    """What a row is known by in these tests."""
    return str(record.get("text") or f"{record['prompt']} -> {record['completion']}")


class Growing:
    """A Dataset that is read again and again, as the operator has it read: with what is known of the last time."""

    def __init__(self, folder: Path, **splits: Any):
        self.folder, self.splits = folder, splits
        self.last: DatasetResult | None = None

    def read(self, rows: Rows) -> dict[str, set[str]]:
        """The texts of each split."""
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        before = {"previous": self.last.digest, "previousSplitSettings": self.last.split_settings} if self.last else {}
        place = {"source": {"uri": "pvc://claim/rows.jsonl"}, "sourcePath": str(self.folder / "rows.jsonl")}
        body = {"name": "rows", "store": str(self.folder / "store"), "splits": self.splits}
        self.last = materialize.run(MaterializePlan.model_validate({**body, **place, **before}))
        folder = self.folder / "store" / str(self.last.path)
        files = {name: folder / f"{name}.jsonl" for name in NAMES}
        return {
            name: {text_of(json.loads(line)) for line in file.open()} if file.is_file() else set()
            for name, file in files.items()
        }


def moved(before: dict[str, set[str]], after: dict[str, set[str]]) -> int:
    every = set().union(*after.values())
    return sum(len((before[name] & every) - after[name]) for name in NAMES)


@pytest.mark.parametrize("series", range(6))
def test_small_data_that_grows_moves_no_row(tmp_path: Path, series: int) -> None:
    growing = Growing(tmp_path)
    rows = [row(n, series) for n in range(60)]
    found = growing.read(rows[:10])
    for size in (20, 30, 40, 60):
        before, found = found, growing.read(rows[:size])
        assert moved(before, found) == 0
        assert found["validation"]
    assert sum(map(len, found.values())) == 60


def test_groups_with_strata_that_grow_move_no_row(tmp_path: Path) -> None:
    growing = Growing(tmp_path, validation="10%", test="10%", groupBy="page", stratifyBy="kind")
    before = growing.read([row(n) for n in range(150)])
    after = growing.read([row(n) for n in range(400)])
    assert moved(before, after) == 0
    pages = [{text.split()[1] for text in after[name]} for name in NAMES]
    assert [len({int(number) // 20 for number in numbers}) for numbers in pages] != [20, 0, 0]
    assert not {int(n) // 20 for n in pages[0]} & {int(n) // 20 for n in pages[1] | pages[2]}, "a page stays whole"


def test_new_rows_go_where_they_would_without_a_content_before(tmp_path: Path) -> None:
    rows = [row(n) for n in range(600)]
    growing = Growing(tmp_path, validation="10%", test="10%")
    growing.read(rows[:300])
    (tmp_path / "other").mkdir()
    assert growing.read(rows) == Growing(tmp_path / "other", validation="10%", test="10%").read(rows)


def test_the_same_rows_after_the_same_content_give_the_same_digest(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        growing = Growing(tmp_path / name)
        for size in (10, 30, 30):
            growing.read([row(n) for n in range(size)])
            assert growing.last is not None
            digests.append(growing.last.digest)
    assert digests[:3] == digests[3:]
    assert digests[1] == digests[2], "reading the same again moves nothing"


def test_an_edit_of_the_splits_divides_again(tmp_path: Path) -> None:
    rows = [row(n) for n in range(400)]
    growing = Growing(tmp_path, validation="10%")
    before = growing.read(rows)
    growing.splits = {"validation": "10%", "seed": 1}
    after = growing.read(rows)
    assert len(before["validation"] & after["validation"]) < len(before["validation"]) / 2
    growing.splits = {"validation": "0%"}
    assert growing.read(rows)["validation"] == set()


def test_a_split_whose_only_row_has_gone_gets_another(tmp_path: Path) -> None:
    growing = Growing(tmp_path, validation="1%")
    rows = [row(n) for n in range(10)]
    (held,) = growing.read(rows)["validation"]
    rows = [one for one in rows if one["text"] != held]
    found = growing.read(rows)
    assert (len(found["train"]), len(found["validation"])) == (8, 1)


def test_a_content_from_before_there_were_settings_has_those_of_its_report(tmp_path: Path) -> None:
    growing = Growing(tmp_path, validation="1%")
    before = growing.read([row(n, 2) for n in range(10)])
    assert growing.last is not None
    growing.last.split_settings = None
    after = growing.read([row(n, 2) for n in range(20)])
    assert before["validation"] == after["validation"]
    growing.last.split_settings, growing.splits = None, {"validation": "1%", "seed": 1}
    assert growing.read([row(n, 2) for n in range(20)])["validation"] != before["validation"]


def test_a_content_that_is_not_whole_is_not_remembered(tmp_path: Path) -> None:
    growing = Growing(tmp_path)
    rows = [row(n) for n in range(60)]
    before = growing.read(rows)
    assert growing.last is not None
    content = tmp_path / "store" / str(growing.last.path)
    for name in ("manifest.json", "train.jsonl", "validation.jsonl"):
        (content / name).unlink()
    assert growing.read(rows) == before, "by the hash"


def test_what_was_held_out_is_not_trained_on_for_want_of_other_rows(tmp_path: Path) -> None:
    growing = Growing(tmp_path, validation="10%")
    rows = [row(n) for n in range(60)]
    held = growing.read(rows)["validation"]
    with pytest.raises(DataError, match="split train is empty"):
        growing.read([one for one in rows if one["text"] in held])


def test_a_group_that_joins_train_and_held_out_rows_is_held_out(tmp_path: Path) -> None:
    growing = Growing(tmp_path, validation="30%", groupBy="page")
    rows = [{**row(n), "page": f"page {n}"} for n in range(60)]
    before = growing.read(rows)
    train, held = min(before["train"]), min(before["validation"])
    joined = [{**one, "page": "joined"} if one["text"] in (train, held) else one for one in rows]
    after = growing.read(joined)
    assert {train, held} <= after["validation"]
    assert moved(before, after) == 1


def test_a_row_that_was_in_several_splits_decides_nothing(tmp_path: Path) -> None:
    growing = Growing(tmp_path, validation="30%", groupBy="page")
    rows = [{**row(n), "page": f"page {n}"} for n in range(60)]
    rows += [{"text": "the same on every page", "page": f"page {n}", "kind": "a"} for n in range(60)]
    before = growing.read(rows)
    both = before["train"] & before["validation"]
    assert both == {"the same on every page"}
    assert growing.read([*rows, row(99)])["validation"] >= before["validation"]
    assert growing.last is not None
    assert {split.name: split.rows > 20 for split in growing.last.splits} == {"train": True, "validation": True}


def asked(question: int, answer: int) -> dict[str, Any]:
    return {"prompt": f"question {question}", "completion": f"answer {answer}", "page": f"page {question % 20}"}


def questions(found: set[str]) -> set[str]:
    return {text.partition(" -> ")[0].lower() for text in found}


def crossing(advice: list[str]) -> list[str]:
    return [sentence for sentence in advice if "question in train" in sentence]


ASKED = [asked(n % 200, n // 200) for n in range(800)]


@pytest.mark.parametrize(
    "splits",
    [{}, {"test": "10%"}, {"stratifyBy": "page"}, {"nearDuplicates": "Group"}],
    ids=lambda splits: str([*splits]),
)
def test_a_question_is_in_one_split(tmp_path: Path, splits: dict[str, Any]) -> None:
    growing = Growing(tmp_path, **splits)
    rows = [{**row, "prompt": row["prompt"].upper() if n % 2 else row["prompt"]} for n, row in enumerate(ASKED)]
    found = growing.read(rows)
    assert sum(map(len, found.values())) == 800
    assert not questions(found["train"]) & questions(found["validation"] | found["test"])
    assert 20 <= len(found["validation"]) <= 80
    assert growing.last is not None
    assert crossing(growing.last.advice) == []


def test_a_set_without_a_repeated_question_is_divided_by_its_rows_alone(tmp_path: Path) -> None:
    found = Growing(tmp_path).read(ASKED[:200])
    division = Division.of(Splits())
    lines = {text_of(row): canonical({"prompt": row["prompt"], "completion": row["completion"]}) for row in ASKED[:200]}
    assert found["validation"] == {
        text for text, line in lines.items() if division.split_of(hash_of(line.encode(), 0)) == "validation"
    }


def test_one_question_for_all_rows_is_divided_and_counted(tmp_path: Path) -> None:
    growing = Growing(tmp_path)
    found = growing.read([asked(0, n) for n in range(200)])
    held = len(found["validation"])
    assert 4 <= held <= 20
    assert growing.last is not None
    assert crossing(growing.last.advice)[0].startswith(f"{held} of {held} validation rows have their question in train")


def test_rows_that_were_divided_before_questions_counted_stay_and_new_ones_join_them(tmp_path: Path) -> None:
    growing = Growing(tmp_path)
    before = growing.read(ASKED[:200])  # a question each: by their rows
    after = growing.read(ASKED)
    assert moved(before, after) == 0
    assert not questions(after["train"]) & questions(after["validation"])
    # The same rows by content alone, as they were divided before questions counted.
    before, folder = after, growing.folder / "store" / str(growing.last and growing.last.path)
    held = sorted(after["validation"])
    exchanged = {name: [json.loads(line) for line in (folder / f"{name}.jsonl").open()] for name in NAMES[:2]}
    exchanged["train"].append(exchanged["validation"].pop())
    for name, records in exchanged.items():
        (folder / f"{name}.jsonl").write_text("".join(canonical(record) + "\n" for record in records))
    manifest.write(folder)
    again = growing.read([*ASKED, asked(200, 0)])
    assert len(again["validation"] & {*held}) == len(held) - 1
    assert growing.last is not None
    assert crossing(growing.last.advice)[0].startswith("3 of ")


def test_groups_of_a_column_stay_as_they_are_and_questions_that_cross_are_counted(tmp_path: Path) -> None:
    growing = Growing(tmp_path, groupBy="part", validation="30%")
    rows = [{**asked(n % 50, n // 50), "part": f"part {n // 50}"} for n in range(500)]
    found = growing.read(rows)
    parts = [{text.partition("answer ")[2] for text in found[name]} for name in NAMES[:2]]
    assert not parts[0] & parts[1]
    held = len(found["validation"])
    assert growing.last is not None
    assert crossing(growing.last.advice)[0].startswith(f"{held} of {held} validation rows")


def test_few_groups_that_give_another_share_are_named(tmp_path: Path) -> None:
    growing = Growing(tmp_path, groupBy="part", validation="10%")
    growing.read([{**asked(n, 0), "part": f"part {n % 4}"} for n in range(400)])
    assert growing.last is not None
    [sentence] = [sentence for sentence in growing.last.advice if "is never divided" in sentence]
    assert sentence.startswith("Validation has ")
    assert "instead of 10 %" in sentence


def test_a_key_that_a_configmap_lacks_is_named_with_those_that_it_has(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    for name in ("banking.jsonl", "..data"):
        (mount / name).write_text("")
    body = {"name": "rows", "store": str(tmp_path / "store"), "source": {"uri": "configmap://rows/rows.jsonl"}}
    with pytest.raises(SourceError, match=r"next to it there are banking\.jsonl$"):
        materialize.run(MaterializePlan.model_validate({**body, "sourcePath": str(mount / "rows.jsonl")}))
