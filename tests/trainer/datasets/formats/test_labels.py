"""What a label means: every shape of rows with every coding of labels, as JSON and as CSV.

A coding is a pair of labels, for the first and for the second answer. Whatever the coding, a row is read as the set's
authors document it, or it is refused: no answer wins because the label of the other one is unknown.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone_trainer.datasets.formats import FORMATS, detect, expressions, shapes
from hone_trainer.datasets.readers.read import DataFile, parsed, raw_rows
from hone_trainer.datasets.readers.rows import RowError
from hone_trainer.errors import DataError

Row = dict[str, Any]
SHAPES = [shape for shape in (*shapes.DISTINCT, *shapes.USUAL) if isinstance(shape, shapes.Shape)]
CODINGS: list[tuple[Any, Any]] = [
    (left, right)
    for one, other in (
        (1, 0),
        (1, 2),
        (1, -1),
        (2, 0),
        (1.0, 0.0),
        (True, False),
        *(("1", "0"), ("1", "2"), ("1.0", "0.0"), ("true", "false"), ("True", "False"), ("yes", "no")),
        *(("A", "B"), ("a", "b"), ("model_a", "model_b"), ("first", "second"), ("good", "bad"), ("up", "down")),
        *(("chosen", "rejected"), (1, None), (0, None), (1, "tie"), (0, "tie"), ("A", "tie")),
    )
    for left, right in ((one, other), (other, one))
]
NOISE = [None, "tie", "both", 0, 3, 0.5, -1, "C", ""]
"""Labels of rows in which neither answer is the better one, or that nobody has explained."""
DOCUMENTED = {
    "SHP": {"1": "first", "0": "second", "true": "first", "false": "second"},  # stanfordnlp/SHP: 1 if A is preferred
    "LLMBar": {"1": "first", "2": "second"},  # princeton-nlp/LLMBar: 1 or 2, the better output
}
KTO = {"true": True, "false": False, "1": True, "0": False, "-1": False, "good": True, "bad": False}
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
VALUES: tuple[Any, ...] = (
    "text",
    TURNS,
    [TURNS[0], {"role": "assistant", "content": "no"}],
    [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
    [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}],
    [{"text": "system"}],
    [{"input": "", "output": "a"}],
    [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    {"messages": TURNS[:1]},
    {"ground_truth": "4"},
    {"text": ["a"], "answer_start": [0]},
    json.dumps(TURNS),
    json.dumps([TURNS[0], {"role": "assistant", "content": "no"}]),
    json.dumps([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]),
    json.dumps(TURNS[:1]),
    json.dumps(TURNS[1:]),
    json.dumps([{"role": "assistant", "content": "no"}]),
    json.dumps([{"name": "f", "arguments": {}}]),
    TURNS[:1],
    TURNS[1:],
    [{"role": "assistant", "content": "no"}],
)


def label(value: Any) -> str | None:
    """The label as people mean it; None: there is none."""
    return None if value in (None, "") else re.sub(r"\.0$", "", str(value)).lower()


def as_csv(rows: list[Row], folder: Path) -> list[Row]:
    """The rows after a CSV file."""
    path = folder / "rows.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return [row.value or {} for row in map(parsed, raw_rows([DataFile(path, "rows.csv")], 2**20))]


def example(shape: shapes.Shape) -> Row:
    """A row that Auto takes for this shape and accepts."""
    for values in product(VALUES, repeat=len(shape.needs)):
        row = {
            name: f"{name} text" if value == "text" else value for name, value in zip(shape.needs, values, strict=True)
        }
        if not shape.has(row):
            continue
        try:
            FORMATS[shape.format].normalise(row, shape.columns)
            if f"row is {shape.name}:" in str(detect.choose("Auto", {}, [row])):
                return row
        except (RowError, DataError):
            continue
    raise LookupError(shape.name)


def read(rows: list[Row]) -> tuple[detect.Detected | None, list[Row | None], str]:
    """How the rows are read, each of them, and why not."""
    try:
        detected = detect.choose("Auto", {}, rows)
    except DataError as error:
        return None, [], error.message
    return detected, [normalised(detected, row) for row in rows], ""


def normalised(detected: detect.Detected, row: Row) -> Row | None:
    try:
        return detected.normalise(row)
    except RowError:
        return None


def judged_rows(judged: shapes.LabelledPair, prompt: str, labels: list[Any]) -> list[Row]:
    """A row for each label."""
    return [
        {prompt: f"q{n}", judged.first: f"first {n}", judged.second: f"second {n}", judged.label: value}
        for n, value in enumerate(labels)
    ]


def holds(shape: shapes.Shape, coding: tuple[Any, Any], noise: list[Any], folder: Path | None) -> bool:
    """Whether the labels are read as documented, or refused, for a shape with a label of its own."""
    assert shape.judged
    labels = [*coding * 3, *noise]
    rows = judged_rows(shape.judged, shape.needs[0], labels)
    _, records, why = read(as_csv(rows, folder) if folder else rows)
    if why:
        return shape.judged.label in why
    better = [record and record["chosen"].partition(" ")[0] for record in records]
    return better == [DOCUMENTED[shape.name].get(label(value) or "") for value in labels]


def is_not_passed_over(row: Row, coding: tuple[Any, Any], folder: Path | None) -> bool:
    """Whether a column `label` next to a row of another shape is read as documented, refused, or named."""
    labels = list(coding * 3)
    rows = [{**row, "label": value} for value in labels]
    detected, records, why = read(as_csv(rows, folder) if folder else rows)
    if detected is None:
        return "label" in why
    if not any(records):
        return True
    if detected.format.name == "KTO":
        return [record and record["label"] for record in records] == [KTO.get(label(value) or "") for value in labels]
    plain = detect.choose("Auto", {}, [row] * 6)
    is_named = "label" in str(detected.reason).partition("not read: ")[2]
    return is_named and detected.format is plain.format and records == [plain.normalise(row)] * 6


def cases(every: bool) -> Iterator[tuple[shapes.Shape, Row, tuple[Any, Any], list[Any], bool]]:
    """Shape, a row of it, coding, noise and whether as CSV."""
    for shape in SHAPES if every else SHAPES[::9] + [each for each in SHAPES if each.judged]:
        row = {} if shape.judged else example(shape)
        is_flat = all(isinstance(value, str) for value in row.values())
        for coding, in_csv in product(CODINGS, (False, True) if is_flat else (False,)):
            for noise in [[], *([value] for value in NOISE)] if shape.judged else [[]]:
                yield shape, row, coding, noise, in_csv


def outside_row(list_name: str) -> list[str]:
    """The cells of a row of docs/outside.md."""
    table = (Path(__file__).parents[4] / "docs/outside.md").read_text()
    [line] = [line for line in table.splitlines() if line.startswith(f"| {list_name}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def counted(every: bool, folder: Path) -> tuple[int, list[Any]]:
    """How many cases were tried, and those that do not hold."""
    tried, failed = 0, []
    for shape, row, coding, noise, in_csv in cases(every):
        to = folder if in_csv else None
        good = holds(shape, coding, noise, to) if shape.judged else is_not_passed_over(row, coding, to)
        tried += 1
        failed += [] if good else [(shape.name, coding, noise, in_csv)]
    return tried, failed


@pytest.mark.pure
def test_no_coding_of_labels_turns_an_answer_around(tmp_path: Path) -> None:
    tried, failed = counted(False, tmp_path)
    assert tried > 1000
    assert failed == []


@pytest.mark.outside
@pytest.mark.long
@pytest.mark.pure
def test_every_shape_with_every_coding_of_labels(tmp_path: Path) -> None:
    tried, failed = counted(True, tmp_path)
    assert failed == []
    assert outside_row("Shapes of rows")[1:3] == [f"{tried:,} cases: {len(SHAPES)} shapes", f"{tried:,}"]


def mappings(message: str) -> list[dict[str, str]]:
    """What a message offers to write into spec.columns."""
    return [yaml.safe_load(text) for text in re.findall(r"spec\.columns (\{.+?\)'\})", message)]


@pytest.mark.pure
def test_labels_that_nothing_explains_are_refused_with_both_mappings() -> None:
    judged = shapes.LabelledPair("label", "output_1", "output_2")
    rows = judged_rows(judged, "input", [0, 1] * 5)
    with pytest.raises(DataError, match="its values are 0, 1") as caught:
        detect.choose("Auto", {}, rows)
    better = []
    for columns in mappings(caught.value.message):
        detected = detect.choose("Auto", columns, rows)
        better.append([detected.normalise(row)["chosen"].partition(" ")[0] for row in rows[:2]])
        with pytest.raises(RowError, match="the label is 2, and pick") as wrong:
            detected.normalise({**rows[0], "label": 2})
        assert wrong.value.code == "WrongLabel"
    assert better == [["first", "second"], ["second", "first"]]


@pytest.mark.pure
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "response_a": "a", "response_b": "b", "model_a": "x", "model_b": "y", "winner": "model_a"},
        {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 1},
        {"instruction": "q", "output": "a", "output_2": "b", "preference": 2},
        {"question": "q", "answer 1": "a", "answer 2": "b", "best": "1"},
        {"prompt": "q", "completion": "a", "completion_2": "b", "label": 1},
    ],
)
def test_two_answers_and_a_verdict_are_never_read_as_one_answer(row: Row) -> None:
    with pytest.raises(DataError, match=r"which of .* is better, but not how.*pick\("):
        detect.choose("Auto", {}, [row] * 4)


@pytest.mark.pure
@pytest.mark.parametrize("write", [int, bool, str, lambda flag: str(bool(flag))])
def test_a_tie_among_one_column_for_each_answer_prefers_neither(write: Any) -> None:
    rows = [
        {"prompt": f"q{n}", "response_a": f"a{n}", "response_b": f"b{n}"}
        | {f"winner_{name}": write(int(n % 3 == at)) for at, name in enumerate(("model_a", "model_b", "tie"))}
        for n in range(9)
    ]
    for sample in (rows, [row for row in rows if row not in rows[2::3]]):
        with pytest.raises(DataError, match="winner_model_a, winner_model_b seems") as caught:
            detect.choose("Auto", {}, sample)
        better = set()
        for columns in mappings(caught.value.message):
            detected = detect.choose("Auto", columns, rows)
            better.add("".join(detected.normalise(row)["chosen"][0] for row in rows[:2]))
            with pytest.raises(RowError, match="and pick"):
                detected.normalise(rows[2])
        assert better == {"ab", "ba"}


@pytest.mark.pure
@pytest.mark.parametrize(
    ("one", "other"), [("A", "B"), ("response_a", "response_b"), ("model_a", "model_b"), ("0", "1"), (0, 1)]
)
def test_a_chosen_that_names_an_answer_is_not_the_answer(one: Any, other: Any) -> None:
    row = {"prompt": "q", "response_a": "first", "response_b": "second", "chosen": one, "rejected": other}
    rows = [row, {**row, "chosen": other, "rejected": one}] * 3
    with pytest.raises(DataError, match="which of response_a and response_b is better") as caught:
        detect.choose("Auto", {}, rows)
    columns, _ = mappings(caught.value.message)
    assert {detect.choose("Auto", columns, rows).normalise(row)["chosen"] for row in rows} == {"first", "second"}
    held = [{**row, "chosen": row["response_a"], "rejected": row["response_b"]}] * 3
    assert detect.choose("Auto", {}, held).normalise(held[0])["chosen"] == "first"


@pytest.mark.pure
def test_a_label_next_to_chosen_and_rejected_is_not_passed_over() -> None:
    rows = [{"prompt": "q", "chosen": f"a{n}", "rejected": f"b{n}", "label": n % 2} for n in range(4)]
    with pytest.raises(DataError, match="which of the two answers is better"):
        detect.choose("Auto", {}, rows)


@pytest.mark.pure
@pytest.mark.parametrize("value", [*dict.fromkeys(value for coding in CODINGS for value in coding), *NOISE], ids=repr)
def test_a_verdict_is_one_of_a_closed_set(value: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": "a", "label": value}] * 2
    for row in (rows[0], as_csv(rows, tmp_path)[0]):
        detected = detect.choose("KTO", {}, [row])
        if (meant := KTO.get(label(value) or "")) is not None:
            assert detected.normalise(row)["label"] is meant
        else:
            with pytest.raises(RowError, match="label") as caught:
                detected.normalise(row)
            assert caught.value.code in ("WrongLabel", "MissingColumn")


@pytest.mark.pure
@pytest.mark.parametrize("sample", [[0, -1], [1, 0, 1, "-1"]])
def test_a_label_0_next_to_minus_1_is_not_taken_for_bad(sample: list[Any]) -> None:
    rows = [{"prompt": "q", "completion": "a", "label": value} for value in sample]
    with pytest.raises(DataError, match="some labels are 0 and some are -1"):
        detect.choose("KTO", {}, rows)
    with pytest.raises(RowError, match="some labels are 0 and some are -1"):
        detect.choose("KTO", {}, rows[:-1]).normalise(rows[-1])


@pytest.mark.pure
def test_no_expression_of_a_shape_takes_all_other_labels_for_one() -> None:
    texts = [text for shape in SHAPES for text in shape.columns.values()]
    assert not [text for text in texts if "==" in text]
    assert sum("pick(" in text for text in texts) == 2 * sum(shape.judged is not None for shape in SHAPES)
    assert all(expressions.is_valid(text) for text in texts)
