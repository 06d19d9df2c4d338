"""Rows that several Datasets have: counted and removed as a comparison of every row with every other one would."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from hone_api.contract.report import DatasetResult
from hone_api.dataset.dataset_status import SharedRows
from hone_api.plan import DatasetInput, MaterializePlan, MixPlan
from hone_trainer.datasets import materialize, mix
from hone_trainer.datasets.engine import keys
from hone_trainer.datasets.readers import pieces
from hone_trainer.errors import SourceError
from hone_trainer.store import manifest
from hone_trainer.store.contents import KEYS
from hone_trainer.workers import parallel

pytestmark = pytest.mark.trainer
Row = dict[str, Any]


class Namespace:
    """Datasets that share a store; each is compared with all that were made before."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, dict[str, DatasetResult]()

    def make(self, name: str, rows: Sequence[Row], against: Sequence[str] = (), **fields: Any) -> DatasetResult:
        source = self.folder / f"{name}.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        curation = {"deduplicateAgainst": [{"name": one} for one in against]} if against else {}
        body = {
            "name": name,
            "source": {"uri": "pvc://claim/rows.jsonl"},
            "sourcePath": str(source),
            "store": str(self.folder / "store"),
            "splits": {"validation": "20%"},
            "curation": {**curation, **fields.pop("curation", {})},
            "deduplicateAgainst": [one.to_json() for other in against for one in self.splits(other)],
            "otherDatasets": [one.to_json() for other in self.made for one in self.splits(other)],
        }
        self.made[name] = materialize.run(MaterializePlan.model_validate({**body, **fields}))
        return self.made[name]

    def mix(self, name: str, *parts: str) -> DatasetResult:
        splits = [one.model_copy(update={"share": "50%"}) for part in parts for one in self.splits(part)]
        others = [one for other in self.made if other not in parts for one in self.splits(other)]
        self.made[name] = mix.run(
            MixPlan(name=name, parts=splits, store=str(self.folder / "store"), other_datasets=others)
        )
        return self.made[name]

    def content(self, name: str) -> Path:
        return self.folder / "store" / str(self.made[name].path)

    def splits(self, name: str) -> list[DatasetInput]:
        result = self.made[name]
        folder, digest = self.content(name), str(result.digest)
        return [
            DatasetInput(name=name, split=split.name, path=str(folder / f"{split.name}.jsonl"), digest=digest)
            for split in result.splits
        ]

    def rows(self, name: str) -> list[tuple[str, Row]]:
        return [(one.split, row) for one in self.splits(name) for row in read(Path(one.path))]

    def forget_keys(self, name: str) -> None:
        """As an earlier version left a content."""
        for path in self.content(name).glob(f"*{KEYS}"):
            path.unlink()
        (self.content(name) / "manifest.json").unlink()
        manifest.write(self.content(name))


@pytest.fixture
def space(tmp_path: Path) -> Namespace:
    return Namespace(tmp_path)


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def folded(text: str) -> str:
    return " ".join(text.lower().split())


def pairs(random_: random.Random, count: int) -> list[Row]:
    """Of few questions and answers, in several forms."""
    forms = (str, str.upper, "  {}\n".format)
    return [
        {
            "prompt": random_.choice(forms)(f"What is {random_.randrange(60)}?"),
            "completion": random_.choice(forms)(f"It is {random_.randrange(2)}."),
        }
        for _ in range(count)
    ]


def documents(random_: random.Random, count: int) -> list[Row]:
    return [{"text": f"Page {random_.randrange(90)} of the book."} for _ in range(count)]


def compared(mine: list[tuple[str, Row]], theirs: list[tuple[str, Row]]) -> tuple[int, int, int]:
    """Rows, questions and crossing, row by row."""

    def question(row: Row) -> str:
        return folded(row["prompt"]) if "prompt" in row else row["text"]

    rows = sum(any(row == other for _, other in theirs) for _, row in mine)
    met = [[their for their, other in theirs if question(other) == question(row)] for _, row in mine]
    crossing = sum(
        any((split == "train") != (their == "train") for their in found)
        for (split, _), found in zip(mine, met, strict=True)
    )
    return rows, sum(map(bool, met)), crossing


@pytest.mark.parametrize("make", [pairs, documents])
@pytest.mark.parametrize("seed", range(3))
def test_what_others_have_is_what_a_comparison_row_by_row_finds(space: Namespace, make: Any, seed: int) -> None:
    random_ = random.Random(seed)
    for number in range(3):
        space.make(
            f"other{number}", make(random_, random_.randrange(30, 80)), splits={"validation": "20%", "seed": number}
        )
    mixed = space.mix("mixed", "other0", "other1")
    assert [(one.name, (one.rows, one.questions, one.crossing)) for one in mixed.shared_rows] == [
        ("other2", compared(space.rows("mixed"), space.rows("other2")))
    ]
    result = space.make("own", make(random_, 70))
    found = {one.name: (one.rows, one.questions, one.crossing) for one in result.shared_rows}
    assert found == {other: compared(space.rows("own"), space.rows(other)) for other in space.made if other != "own"}
    assert [one.questions for one in result.shared_rows] == sorted((n for _, n, _ in found.values()), reverse=True)
    assert any(one.crossing for one in result.shared_rows)


@pytest.mark.parametrize("has_keys", ["exact", "content", "none"])
def test_rows_of_others_are_removed_and_named(space: Namespace, has_keys: str) -> None:
    """Stored keys are compared; rows are read where a content has no keys, or keys of an earlier version."""
    random_ = random.Random(7)
    curation = {"deduplicate": "Exact"} if has_keys == "exact" else {}
    space.make("first", pairs(random_, 40), curation=curation)
    space.make("second", pairs(random_, 40), curation=curation)
    if has_keys == "none":
        space.forget_keys("first")
        space.forget_keys("second")
    rows = pairs(random_, 200)
    result = space.make("own", rows, against=["second", "first"])

    def texts(row: Any) -> tuple[str, str]:
        return folded(row["prompt"]), folded(row["completion"])

    places: dict[tuple[str, str], str] = {}
    for one in (*space.splits("second"), *space.splits("first")):
        for number, row in enumerate(read(Path(one.path)), 1):
            places.setdefault(texts(row), f"is row {number} of {one.name}/{one.split}")
    expected = [(number, places[texts(row)]) for number, row in enumerate(rows, 1) if texts(row) in places]
    removed = read(space.content("own") / "removed.jsonl")
    assert [(one["row"], one["reason"]) for one in removed] == expected
    (step,) = result.curation
    assert (step.step, step.removed, result.rows) == ("SharedRows", len(expected), len(rows) - len(expected))
    assert 0 < step.removed < len(rows)


def test_only_the_named_split_counts(space: Namespace) -> None:
    rows = pairs(random.Random(1), 50)
    space.make("exam", rows)
    held_out = [one for one in space.splits("exam") if one.split == "validation"]
    curation = {"deduplicateAgainst": [{"name": "exam", "split": "validation"}]}
    space.make("own", rows, curation=curation, deduplicateAgainst=[one.to_json() for one in held_out])
    validation = {folded(json.dumps(row)) for split, row in space.rows("exam") if split == "validation"}
    assert validation
    assert validation.isdisjoint(folded(json.dumps(row)) for _, row in space.rows("own"))


def test_keys_that_were_altered_are_not_believed(space: Namespace) -> None:
    rows = pairs(random.Random(2), 30)
    space.make("other", rows, curation={"deduplicate": "Exact"})
    keys_ = space.content("other") / f"train{KEYS}"
    keys_.write_bytes((space.content("other") / f"validation{KEYS}").read_bytes())
    result = space.make(
        "own", [*rows, {"prompt": "New?", "completion": "Yes."}] * 2, ["other"], splits={"validation": "0%"}
    )
    assert (result.rows, result.curation[0].removed) == (2, 60)


def test_a_named_content_that_is_gone_is_an_error_and_another_one_is_left_out(space: Namespace) -> None:
    rows = pairs(random.Random(3), 30)
    space.make("other", rows)
    for path in space.content("other").iterdir():
        path.unlink()
    rows = rows[1:]
    assert space.make("own", rows).shared_rows == []
    with pytest.raises(SourceError, match=r"other/train sha256:.* is not in the store") as caught:
        space.make("again", rows, against=["other"])
    assert caught.value.code == "SourceNotFound"


def test_the_largest_are_named_in_status_advice_and_report(space: Namespace) -> None:
    for number in range(20):
        space.make(f"d{number:02}", [{"prompt": f"What is {n}?", "completion": "It is."} for n in range(30 + number)])
    result = space.make("own", [{"prompt": f"what is {n}?", "completion": "It was."} for n in range(60)])
    assert [(one.name, one.rows, one.questions) for one in result.shared_rows] == [
        (f"d{number:02}", 0, 30 + number) for number in reversed(range(4, 20))
    ]
    assert all(isinstance(one, SharedRows) for one in result.shared_rows)
    (sentence,) = [text for text in result.advice if "Other Datasets" in text]
    assert "d19 has the questions of 49 rows" in sentence
    assert "d16" not in sentence
    page = (space.content("own") / "report.html").read_text()
    assert "Rows that other Datasets have" in page
    assert "d04" in page


def test_held_out_rows_that_a_run_trains_on_are_counted(space: Namespace, tmp_path: Path) -> None:
    random_ = random.Random(4)
    space.make("own", pairs(random_, 60))
    space.make("exam", pairs(random_, 60))
    space.forget_keys("exam")
    train = [one for one in space.splits("own") if one.split == "train"]
    asked = {folded(row["prompt"]) for split, row in space.rows("own") if split == "train"}
    held_out = space.splits("exam")
    expected = {
        one.split: [folded(row["prompt"]) in asked for split, row in space.rows("exam") if split == one.split]
        for one in held_out
    }
    found = {one.split: (met, rows) for one, met, rows in keys.trained_on(train, held_out, tmp_path / "work")}
    assert found == {split: (sum(met), len(met)) for split, met in expected.items() if any(met)}
    assert found


def test_keys_of_another_version_are_made_again(space: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pairs(random.Random(5), 30)
    with monkeypatch.context() as earlier:
        earlier.setattr(keys, "_VERSION", "0")
        space.make("other", rows, curation={"deduplicate": "Exact"}, splits={"validation": "0%"})
    made = list[str]()
    make = keys._make

    def noted(split: DatasetInput, target: Path) -> None:
        made.append(split.name)
        make(split, target)

    monkeypatch.setattr(keys, "_make", noted)
    assert space.make("own", rows).shared_rows == []
    assert (
        space.make(
            "again", [*rows, {"prompt": "New?", "completion": "Yes."}], ["other"], splits={"validation": "0%"}
        ).rows
        == 1
    )
    assert made == ["other"]


@pytest.mark.parametrize("how", ["gone", "damaged", "cut", "empty"])
def test_a_dataset_that_cannot_be_compared_does_not_end_the_job(
    space: Namespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """It may be swept, or its volume fail, after its keys were found."""
    rows = pairs(random.Random(6), 30)
    space.make("other", rows)
    stored = keys._stored

    def lost(split: DatasetInput) -> Path | None:
        path = stored(split)
        if path and how == "gone":
            path.unlink()
        elif path:
            path.write_bytes({"damaged": b"PAR1" * 9, "cut": path.read_bytes()[:-30], "empty": b""}[how])
        return path

    monkeypatch.setattr(keys, "_stored", lost)
    result = space.make("own", rows)
    assert (result.rows, result.shared_rows) == (30, [])
    assert "other Datasets are not compared" in caplog.text
    assert any(line.startswith("Other Datasets could not be read") for line in result.advice)


def test_an_error_of_our_own_statements_ends_the_job(space: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pairs(random.Random(6), 30)
    space.make("other", rows)
    monkeypatch.setattr(keys, "_ASKED", "asked")
    with pytest.raises(duckdb.BinderException):
        space.make("own", rows)


WORDS = [a + b + c for a in ("ka", "lo", "mi", "ne") for b in ("den", "fur", "gal", "hos") for c in ("ta", "vi", "zo")]


def _said(random_: random.Random, count: int = 40) -> str:
    return " ".join(random_.choices(WORDS, k=count))


def _edited(random_: random.Random, text: str) -> str:
    words = text.split()
    words[random_.randrange(len(words))] = "other"
    return " ".join(words)


@pytest.mark.parametrize("kind", ["pairs", "documents"])
def test_edited_copies_of_rows_of_others_are_removed_and_named(
    space: Namespace, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each planted copy and nothing else; with no worker and with several, which get several pieces of a split."""
    random_ = random.Random(5)

    def made(asked: str, told: str) -> Row:
        return {"prompt": asked, "completion": told} if kind == "pairs" else {"text": f"{asked} {told}"}

    texts = {name: [(_said(random_, 9), _said(random_)) for _ in range(150)] for name in ("first", "second")}
    for name, some in texts.items():
        space.make(name, [made(*text) for text in some])
    place = {
        json.dumps(row): f"row {number} of {one.name}/{one.split}"
        for name in texts
        for one in space.splits(name)
        for number, row in enumerate(read(Path(one.path)), 1)
    }
    rows, expected = list[Row](), list[tuple[str, str]]()
    every = texts["first"] + texts["second"]
    random_.shuffle(every)
    for number, (asked, told) in enumerate(every):
        if number % 3 == 0:
            rows.append(made(asked, _edited(random_, told)))
            expected.append(("NearSharedRows", place[json.dumps(made(asked, told))]))
        elif number % 10 == 1:
            rows.append(made(asked.upper(), told))
            expected.append(("SharedRows", place[json.dumps(made(asked, told))]))
        else:  # the same question, or half of the answer: neither is a copy
            rows.append(
                made(asked, _said(random_)) if number % 2 else made(_said(random_, 9), told[:150] + _said(random_))
            )
    settings: dict[str, Any] = {"curation": {"deduplicate": "Near"}, "checks": {"minRows": 1}}
    monkeypatch.setattr(pieces, "BYTES", 8192)
    monkeypatch.setattr(materialize, "SMALL_BYTES", 0)
    contents = []
    for cores in (1, 2):
        monkeypatch.setattr(parallel, "cores", lambda cores=cores: cores)
        space.made.pop("own", None)
        space.make("own", rows, against=["first", "second"], **settings)
        contents.append({path.name: path.read_bytes() for path in space.content("own").iterdir()})
        removed = read(space.content("own") / "removed.jsonl")
        found = [
            (one["step"], one["reason"].partition(" (")[0].split(maxsplit=1)[1].removeprefix("like "))
            for one in removed
        ]
        assert found == expected
    assert contents[0] == contents[1]
