"""Rows that are checked as columns give the very columns that each gives by itself."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest

from hone_api.plan import MaterializePlan
from hone_trainer.datasets.checked import Check, PartMaker
from hone_trainer.datasets.engine import plain as plain_rows
from hone_trainer.datasets.engine.plain import PlainRows
from hone_trainer.datasets.formats import detect
from hone_trainer.datasets.readers import items, pieces
from hone_trainer.datasets.readers.read import DataFile
from hone_trainer.datasets.readers.rows import RawRow
from hone_trainer.store.part_folder import PartFolder

pytestmark = [pytest.mark.trainer]

Row = dict[str, Any]
ROWS: dict[str, Callable[[int], Row]] = {
    "text": lambda n: {"text": f"A Text of  {n}.\nIt goes on."},
    "pair": lambda n: {"prompt": f"What is {n} + 1?", "completion": f"It is {n + 1}."},
    "chat": lambda n: {
        "messages": [
            *([{"role": "system", "content": "Be kind."}] if n % 3 == 0 else []),
            *(
                {"role": role, "content": f"{role} {n} {turn}" * turn}
                for turn in (1, 30)
                for role in ("user", "assistant")
            ),
        ]
    },
}
TEXTS = (
    *("", " ", "\n\t", "\u00a0", "nul \0 in it", "a \x1c\x1f\x85 b \x7f", "\u200b", "nan", "x\n\nNaN", "is nan"),
    *("<|im_end|>", "say [/INST] <s>", "a < b", "<|endoftext|>", "yes<|endoftext|>", "\\", '", "completion": "'),
    *(
        '"}\n{"prompt": "',
        "a/b",
        "\u00dcnic\u00f6d\u00e9 \ufb01 \u0130 \u1e9e \u4e2d\u6587 \U0001f600 \u2028",
        "x" * 201,
        " Two  Blanks ",
    ),
    *(":", '": 1, "', "ends,", ': "', '{"a": [[{', '"text": {'),
    *("long " * 300, "\u00e9" * 201, 3, 2.5, True, None, [], ["a"], {"a": "b"}, [{"type": "text", "text": "part"}]),
)
"""In place of a text."""
ALPACA = {"instruction": "What is 1?", "input": "A number.", "output": "One."}
BESIDE = ("late", "image", "system", "tools", "id", "train_detail")
"""Columns that a row has in addition."""
FORMS: tuple[Callable[[str], str], ...] = (
    *(lambda line: line, lambda line: json.dumps(json.loads(line), ensure_ascii=False)),
    lambda line: json.dumps(json.loads(line), separators=(",", ":")),
    lambda line: json.dumps(dict(reversed(json.loads(line).items()))),
    *(lambda line: line.replace("/", "\\/"), lambda line: line.replace("t", "\\u0074"), lambda line: f"{line}\r"),
    *(lambda line: line.replace(": ", " :  "), lambda line: f" {line} ", lambda line: f"\ufeff{line}", lambda line: ""),
    *(lambda line: line + line, lambda line: f"[{line}]", lambda line: line[:-9], lambda line: line[:-1]),
    lambda line: f'{line[:-1]}, "id": NaN}}',
    lambda line: f'{line[:-1]}, "id": {"9" * 4400}}}',
    lambda line: f"{line[:-1]}, {line[1:]}",
    lambda line: line.replace(" ", "\x01", 3),
    lambda line: f'{line[:-1]}, "id": "\\ud800"}}',
    lambda line: line.replace("i", "\udcff", 1),
)
"""In which a line can be."""


def _with(value: Any, row: Row, of_turn: str = "content") -> Row:
    """The row with a value in place of its last text."""
    if "messages" in row:
        return {"messages": [*row["messages"][:-1], {**row["messages"][-1], of_turn: value}]}
    return {**row, [*row][-1]: value}


def odd_lines(kind: str) -> Iterator[str]:
    """Lines that are not as the others of their kind."""
    row = ROWS[kind]
    for n, value in enumerate(TEXTS):
        yield json.dumps(_with(value, row(n)))
        yield json.dumps({next(iter(row(n))): value, **dict([*row(n).items()][1:])})
        if kind == "chat":
            for field in ("role", "name", "weight", "late"):
                yield json.dumps(_with(value, row(n), field))
            yield json.dumps({"messages": [value]})
    for column in BESIDE:
        for value in (None, "", "x", [], 1):
            yield json.dumps({**row(1), column: value})
    for form in FORMS:
        yield form(json.dumps(row(5)))
    yield json.dumps({"messages": row(0).get("messages", [])[::-1]})
    yield json.dumps({})


def _csv(path: Path, rows: list[Row]) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        table = csv.DictWriter(file, [*rows[0]], extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)


def _parquet(path: Path, rows: list[Row]) -> None:
    for row in rows:
        row.update({name: None for name, value in row.items() if not isinstance(value, str | list)})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list[Row]], Any]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".json": lambda path, rows: path.write_text(json.dumps(rows)),
    ".jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode())),
}


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Row]]:
    monkeypatch.setattr(pieces, "SMALL_BYTES", 0)

    def made(
        lines: list[str], kind: str, is_plain: bool, fields: Row, suffix: str = ".jsonl", sample: Sequence[Row] = ()
    ) -> list[Row]:
        path = tmp_path / f"rows{suffix}"
        if suffix == ".jsonl":
            path.write_bytes(b"".join(line.encode("utf-8", "surrogateescape") + b"\n" for line in lines))
        else:
            WRITERS[suffix](path, [json.loads(line) for line in lines])
        values = {"name": "rows", "store": "/", "source": {"uri": "pvc://claim/rows.jsonl"}, **fields}
        plan = MaterializePlan.model_validate(values)
        sample = sample or [ALPACA if kind == "alpaca" else ROWS[kind](n) for n in range(100)]
        check = Check(plan, detect.choose(plan.format, plan.columns, sample, plan.ignore_columns))
        if not is_plain:
            monkeypatch.setattr(check, "plain", lambda is_exact: None)
        maker = PartMaker(check, plan, {}, None, True, PartFolder(tmp_path / "parts", ""), 2**30)
        (piece,) = pieces.pieces([DataFile(path, path.name)], 2**30)
        rows: list[Row] = pyarrow.parquet.read_table(maker.make((0, "0" * 32, piece)).path).to_pylist()
        return rows

    return made


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Plain rows of each block, and those left out."""
    seen = []
    of = PlainRows.of

    def noted(self: PlainRows, rows: Any) -> Any:
        made = of(self, rows)
        seen.append((made.rows - len(made.others), len(made.others)) if made else (0, 0))
        return made

    monkeypatch.setattr(PlainRows, "of", noted)
    return seen


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("text", {}),
        pytest.param("pair", {"splits": {"seed": 3}, "checks": {"maxTokens": 300}}, marks=pytest.mark.long),
        ("chat", {"checks": {"maxTokens": 300}}),
    ],
    ids=[*ROWS],
)
def test_each_odd_row_has_the_columns_that_it_has_by_itself(kind, fields, parts, plain) -> None:
    tried = fell_back = 0
    for line in odd_lines(kind):
        lines = [*(json.dumps(ROWS[kind](n)) for n in range(4)), line, json.dumps(ROWS[kind](7))]
        assert parts(lines, kind, True, fields) == parts(lines, kind, False, fields), line
        tried, fell_back = tried + 1, fell_back + (plain[-1] == (0, 0))
    assert sum(rows == 5 and others == 1 for rows, others in plain) > tried / 6, "the others are left out one by one"
    assert 0 < fell_back < tried


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("form", FORMS[:3], ids=["usual", "letters", "compact"])
def test_all_rows_of_a_plain_file_are_plain(kind, form, parts, plain) -> None:
    texts = [text for text in TEXTS if isinstance(text, str) and text.strip() and "\0" not in text and "of" not in text]
    lines = [form(json.dumps(_with(text, ROWS[kind](n)))) for n, text in enumerate(texts)]
    assert parts(lines, kind, True, {}) == parts(lines, kind, False, {})
    assert plain == [(len(texts), 0)]


DEPTH = 25_000
DEEP = {
    "array": ("[" * DEPTH, "]" * DEPTH),
    "object": ('{"a":' * DEPTH + "1", "}" * DEPTH),
    "escaped": ('{"\\u0061\\"":' * DEPTH + "1", "}" * DEPTH),
    "not closed": ("[" * DEPTH, ""),
    "messages": ('[{"messages":' * DEPTH + "1", "}]" * DEPTH),
    "role": ('[{"role":' + "[" * DEPTH, "]" * DEPTH + "}]"),
    "turn in a turn": ('[{"role":"user","content":"a","messages":' + "[" * DEPTH, "]" * DEPTH + "}]"),
}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("deep", DEEP)
@pytest.mark.parametrize("column", ["id", "own"])
def test_no_value_is_too_deep(kind, deep, column, parts, plain) -> None:
    row, (begin, end) = ROWS[kind](1), DEEP[deep]
    name = next(iter(row)) if column == "own" else column
    rest = "".join(f", {json.dumps(key)}: {json.dumps(value)}" for key, value in row.items() if key != name)
    lines = [json.dumps(row), f'{{"{name}": {begin}{end}{rest}}}', json.dumps(row)]
    assert parts(lines, kind, True, {}) == parts(lines, kind, False, {})
    assert plain[0] == (2, 1), "pyarrow has the others alone"


@pytest.mark.parametrize(
    "odd", ["", '"', '"text', "\\", '\\"', ",", ":", ",:", '":', ', "', "\n", "\u00e9", "x" * 90, "{"]
)
def test_rows_with_many_keys_are_left_to_a_check_of_each(odd, parts, plain) -> None:
    """For each key, pyarrow would make a value of each row."""
    for begin, key in product((":", "b"), (f"{odd}%d", f"%d{odd}", f"a{odd}%d{odd}b")):
        usual = [json.dumps({"text": f"{begin}{n} a, b"}) for n in range(100)]
        lines = [*usual, *(json.dumps({"text": f"{begin}{n} a, b", key % n: begin}) for n in range(70))]
        assert parts(lines, "text", True, {}) == parts(lines, "text", False, {})
        assert plain.pop() == (0, 0)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("form", [FORMS[0], FORMS[2]], ids=["usual", "compact"])
def test_keys_of_rows_with_code_are_not_looked_at_one_by_one(kind, form, parts, plain, monkeypatch) -> None:
    code = ['":', '": [', ":a", ": b", '\\":', '\\\\": {', 'x = {"text" : 1, "prompt":[2]}', "{'a': \\\\}"]
    lines = [form(json.dumps(_with(f"{text} c", ROWS[kind](n)))) for n, text in enumerate(code)]
    monkeypatch.setattr(plain_rows, "_SHORT_KEYS", None)
    assert parts(lines, kind, True, {}) == parts(lines, kind, False, {})
    assert plain == [(len(code), 0)]


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("suffix", WRITERS)
def test_rows_of_other_files_have_the_columns_that_they_have_by_themselves(kind, suffix, parts, plain) -> None:
    if suffix == ".csv" and kind == "chat":
        pytest.skip("a turn has no form in CSV")
    texts = [text for text in TEXTS if isinstance(text, str) and "\0" not in text]
    some = [_with(text, ROWS[kind](n)) for n, text in enumerate(texts * 2)]
    rows = some if suffix == ".csv" else [{**row, "late": "x" if n == 9 else None} for n, row in enumerate(some)]
    lines = [*map(json.dumps, rows)]
    assert parts(lines, kind, True, {}, suffix) == parts(lines, kind, False, {}, suffix)
    (most,) = plain
    assert most[0] > 0.7 * len(rows)
    assert sum(most) == len(rows)


@pytest.mark.parametrize("extra", ["", "A context.", None, 3, " \t", "a\0b", "\u00e9"])
def test_rows_of_alpaca_have_the_columns_that_they_have_by_themselves(extra, parts, plain) -> None:
    pairs = [(text, "Yes.") for text in TEXTS] + [("What?", text) for text in TEXTS]
    rows = [{"instruction": asked, "input": extra, "output": said} for asked, said in pairs]
    rows += [{"instruction": "a", "output": "b"}, {"instruction": "a", "output": "b", "history": [["c", "d"]]}]
    rows += [{"instruction": "a", "output": "b", column: "x"} for column in ("prompt", "completion", *BESIDE)]
    lines = [*map(json.dumps, rows), "broken", ""]
    assert parts(lines, "alpaca", True, {}) == parts(lines, "alpaca", False, {})
    assert len(plain) == 1
    assert (plain[0][0] > len(rows) / 2) == (extra not in (3, "a\0b"))


PAIR, ALPACA_ROW = {"prompt": "a", "completion": "b"}, {"instruction": "c", "output": "d", "input": "e"}
COLUMNS: list[tuple[Row, Row]] = [
    ({"format": "PromptCompletion", "columns": {"prompt": "system"}}, {"completion": "b", "system": "f"}),
    ({"format": "PromptCompletion", "columns": {"completion": "tools"}}, {"prompt": "a", "tools": "f"}),
    ({"format": "PromptCompletion", "columns": {"prompt": "completion"}}, PAIR),
    ({"format": "PromptCompletion", "columns": {"prompt": "question"}}, {"question": "a", "completion": "b"}),
    ({"format": "Alpaca", "columns": {"output": "history"}}, {"instruction": "c", "history": "f"}),
    ({"format": "Alpaca", "columns": {"instruction": "input"}}, {"input": "c", "output": "f"}),
    ({"format": "Alpaca", "columns": {"instruction": "output"}}, {"output": "d", "input": "e"}),
    ({"format": "Alpaca", "columns": {"instruction": "question"}}, {"question": "c", "output": "d", "input": "e"}),
    ({"format": "Alpaca", "ignoreColumns": ["input"]}, ALPACA_ROW),
    ({"format": "Alpaca", "ignoreColumns": ["late"]}, {**ALPACA_ROW, "late": "f"}),
]


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(("fields", "row"), COLUMNS, ids=str)
def test_columns_mean_the_same_of_one_row_and_of_many(fields: Row, row: Row, suffix: str, parts: Any) -> None:
    rows = [{name: f"{value} {n}" for name, value in row.items()} for n in range(20)]
    lines = [*map(json.dumps, rows)]
    assert parts(lines, "", True, fields, suffix, rows) == parts(lines, "", False, fields, suffix, rows)


@pytest.mark.parametrize(
    "value",
    [[0.5] * 5000, [{"role": "user", "content": "x" * 9000}], {"a": {"b": "x" * 9000}}, [["x" * 9000]]],
    ids=["numbers", "turns", "objects", "lists"],
)
def test_portions_of_large_rows_are_of_few_rows(value: Any) -> None:
    rows = [RawRow(n, "", {"text": "a", "more": value}) for n in range(2000)]
    portions = [*PlainRows.portions(SimpleNamespace(_takes_lines=True), rows)]
    assert [row for portion in portions for row in portion] == rows
    assert max(map(len, portions)) < 300


@pytest.mark.parametrize("damage", [lambda line: line[:-9], lambda line: f"[{line}]", lambda line: f"{line}\r}}"])
@pytest.mark.parametrize("kind", ROWS)
def test_rows_next_to_damaged_lines_are_checked_as_columns(kind, damage, parts, monkeypatch) -> None:
    lines = [json.dumps(ROWS[kind](n)) for n in range(40)]
    for at in (3, 17, 39):
        lines[at] = damage(lines[at])
    expected = parts(lines, kind, False, {})
    monkeypatch.setattr(PartMaker, "_write_rows", None)
    assert parts(lines, kind, True, {}) == expected
    assert [at for at, row in enumerate(expected) if row["code"]] == [3, 17, 39]


@pytest.mark.parametrize("place", range(3))
def test_a_line_that_is_too_long_is_refused_wherever_it_is(place, parts, plain, monkeypatch) -> None:
    for module in (items, pieces, plain_rows):
        monkeypatch.setattr(module, "MAX_ROW_BYTES", 200)
    lines = [json.dumps(ROWS["text"](n)) for n in range(2)]
    lines.insert(place, json.dumps({"text": "x" * 200}))
    rows = parts(lines, "text", True, {})
    assert [row["code"] for row in rows] == ["RowTooLarge" if at == place else None for at in range(3)]
    assert rows == parts(lines, "text", False, {})


@pytest.mark.parametrize("deduplicate", [pytest.param("Exact", marks=pytest.mark.long), "Near"])
@pytest.mark.parametrize("kind", ROWS)
def test_a_dataset_is_made_without_pandas(kind: str, deduplicate: str, tmp_path: Path) -> None:
    """pyarrow imports it for a value of Python that becomes one of Arrow: a third of a second, and 70 MiB."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(ROWS[kind](n)) + "\n" for n in (*range(2000), 0)) + "{}\n")
    values = {"name": "rows", "store": str(tmp_path / "store"), "source": {"uri": "pvc://claim/rows.jsonl"}}
    values |= {"sourcePath": str(path), "curation": {"deduplicate": deduplicate}, "splits": {"validation": "5%"}}
    program = """if True:
        import sys
        from hone_api.plan import MaterializePlan
        from hone_trainer.datasets import materialize
        materialize.run(MaterializePlan.model_validate_json(sys.argv[1]))
        sys.exit("pandas" in sys.modules)
    """
    assert not subprocess.run([sys.executable, "-c", program, json.dumps(values)], check=False).returncode
