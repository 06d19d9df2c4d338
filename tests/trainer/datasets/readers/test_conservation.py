"""Rows in = valid + rejected + a loss that is named, in every reader: the campaigns of `hone_dev.campaigns.mutations`.

Each runs in a process of its own, which a reader that is not safe would kill.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone_dev.campaigns.mutations import FORMS, HIDES_ROWS
from hone_trainer.datasets.readers.items import MAX_ROW_BYTES
from hone_trainer.datasets.readers.read import DataFile, read_rows
from hone_trainer.datasets.readers.rows import RawRow

pytestmark = pytest.mark.pure
COUNT = os.environ.get("HONE_MUTATIONS", "150")


@pytest.mark.attack("data files")
@pytest.mark.parametrize("form", FORMS)
def test_no_row_of_a_damaged_file_vanishes(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "hone_dev.campaigns.mutations", form, "--count", COUNT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def _read(path: Path, name: str) -> list[RawRow]:
    return list(read_rows([DataFile(path, name)], 2**30))


def _write(path: Path, columns: dict[str, Any]) -> Path:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def _texts(*texts: bytes) -> Any:
    """A column of texts, whether they are UTF-8 or not."""
    import pyarrow

    return pyarrow.array(texts, pyarrow.binary()).view(pyarrow.string())


@pytest.mark.attack("data files")
def test_a_parquet_text_that_is_not_utf8_is_one_rejected_row(tmp_path: Path) -> None:
    rows = _read(_write(tmp_path / "f", {"text": _texts(b"one", b"\xffb", b"three")}), "f.parquet")
    assert [row.error and row.error.code for row in rows] == [None, "NotUTF8", None]
    assert [row.value for row in rows] == [{"text": "one"}, None, {"text": "three"}]


@pytest.mark.attack("data files")
def test_a_nested_parquet_text_that_is_not_utf8_is_one_rejected_row(tmp_path: Path) -> None:
    import pyarrow

    turns = pyarrow.StructArray.from_arrays([_texts(b"one", b"two", b"\xffb", b"four")], ["content"])
    nested = pyarrow.ListArray.from_arrays([0, 2, 3, 4], turns)
    rows = _read(_write(tmp_path / "f", {"messages": nested}), "f.parquet")
    assert [row.error and row.error.code for row in rows] == [None, "NotUTF8", None]
    assert rows[0].value == {"messages": [{"content": "one"}, {"content": "two"}]}


@pytest.mark.attack("data files")
def test_a_parquet_row_over_the_limit_is_rejected_and_its_neighbours_are_read(tmp_path: Path) -> None:
    rows = _read(_write(tmp_path / "f", {"text": ["one", "x" * (MAX_ROW_BYTES + 1), "three"]}), "f.parquet")
    assert [row.error and row.error.code for row in rows] == [None, "RowTooLarge", None]
    assert rows[2].value == {"text": "three"}


@pytest.mark.attack("data files")
def test_a_date_that_python_cannot_hold_is_one_rejected_row(tmp_path: Path) -> None:
    import pyarrow

    dates = pyarrow.array([0, 2**60, 0], pyarrow.timestamp("us"))
    rows = _read(_write(tmp_path / "f", {"text": ["a", "b", "c"], "date": dates}), "f.parquet")
    assert [row.error and row.error.code for row in rows] == [None, "WrongType", None]


@pytest.mark.attack("data files")
@pytest.mark.parametrize("new", ["new_file", "new_stream"])
def test_a_column_given_twice_damages_the_file(tmp_path: Path, new: str) -> None:
    import pyarrow.ipc

    batch = pyarrow.RecordBatch.from_arrays([pyarrow.array(["a"])] * 2, ["text", "text"])
    with getattr(pyarrow.ipc, new)(str(tmp_path / "f"), batch.schema) as writer:
        writer.write_batch(batch)
    (row,) = _read(tmp_path / "f", "f.arrow")
    assert row.error is not None
    assert row.error.code == "BrokenFile"
    assert "more than once" in str(row.error)


def _stream() -> bytes:
    import pyarrow.ipc

    target = io.BytesIO()
    table = pyarrow.table({"text": ["a", "b"]})
    with pyarrow.ipc.new_stream(target, table.schema) as writer:
        writer.write_table(table)
    return target.getvalue()


@pytest.mark.attack("data files")
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(lambda data: data[:-8], "it was truncated", id="cut between two messages"),
        pytest.param(lambda data: data + data, "something follows", id="two streams in one file"),
    ],
)
def test_an_arrow_stream_is_read_to_its_end(tmp_path: Path, damage: Callable[[bytes], bytes], says: str) -> None:
    (tmp_path / "f").write_bytes(damage(_stream()))
    *rows, last = _read(tmp_path / "f", "f.arrow")
    assert [row.value for row in rows] == [{"text": "a"}, {"text": "b"}]
    assert last.error is not None
    assert last.error.code == "BrokenFile"
    assert says in str(last.error)


def test_the_nulls_that_arrow_gives_every_struct_are_not_data(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    calls = [{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "unit", "arguments": {"unit": "C"}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"calls": calls, "system": None}]), tmp_path / "f")
    (row,) = _read(tmp_path / "f", "f.parquet")
    assert row.value == {"calls": calls, "system": None}


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_classes_that_datasets_stores_as_numbers_have_their_names(tmp_path: Path, form: str) -> None:
    import pyarrow.ipc
    import pyarrow.parquet

    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}
    table = pyarrow.table({"text": ["a", "b", "c"], "label": [1, 0, -1]}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    if form == "parquet":
        pyarrow.parquet.write_table(table, tmp_path / "f")
    else:
        with pyarrow.ipc.new_stream(str(tmp_path / "f"), table.schema) as writer:
            writer.write_table(table)
    assert [row.value and row.value["label"] for row in _read(tmp_path / "f", f"f.{form}")] == ["yes", "no", None]


@pytest.mark.attack("data files")
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("f.parquet", b"P", "named .parquet"),
        ("f.arrow", b"", "named .arrow"),
        ("f.jsonl.gz", b"\x1e\x8b\x08\xff\xfe\x01\x02\x03", "named .gz"),
        ("f.jsonl.xz", b"", "named .xz"),
        ("f.jsonl.bz2", bz2.compress(b'{"a": 1}\n')[:-1], "bzip2 file is damaged"),
        ("f.jsonl.bz2", bz2.compress(b'{"a": 1}\n') + b"x", "bzip2 file is damaged"),
        ("f.xlsx", b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0xl/workbook.xml", "an Excel workbook: save the sheet as CSV"),
        ("f.docx", b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0word/document.xml", "a Word document: save it as text"),
        (
            "f.xlsx",
            b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0[Content_Types].xml",
            "an Excel workbook: save the sheet as CSV",
        ),
        ("f.txt", b'{"prompt": "q", "completion": "a"}\n' * 3, "JSON under the name of a text file: name it .jsonl"),
        ("f.md", b' [{"prompt": "q", "completion": "' + b"a" * 9000 + b'"}]', "JSON under the name of a text file"),
        ("f.json", b'{ \t\n  "data": [\n', "JSON objects over several lines"),
        ("f.csv", b"a,b\r1,2\r", "the header cannot be read: the line has a carriage return in it"),
        ("f.jsonl", '{"a": 1}'.encode("utf-16-le"), "UTF-16 text (save it as UTF-8), or not text at all"),
        ("f.jsonl", b"\0" * 40, "not text at all"),
        ("f.zip", b"PK\x03\x04\x14\0\0\0\x08\0\0\0!\0rows.jsonl", "a zip archive: unpack it"),
        ("f.tar", b"rows.jsonl".ljust(257, b"\0") + b"ustar\0", "a tar archive: unpack it"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / "f").write_bytes(content)
    *_, last = _read(tmp_path / "f", name)
    assert last.error is not None
    assert last.error.code in HIDES_ROWS
    assert says in str(last.error)


@pytest.mark.parametrize("content", [b"{", b" { ", b'{"a": 1'])
def test_a_row_that_was_cut_is_a_bad_row_of_a_file_of_rows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    (row,) = _read(tmp_path / "f", "f.jsonl")
    assert row.error is not None
    assert row.error.code == "BrokenJson"


@pytest.mark.parametrize(
    "text", ["[1] A note", "{curly} words", "[link](https://a.example)", '{"a": 1} is JSON', "[1]\n\n[2]"]
)
def test_a_text_that_only_begins_like_json_is_a_document(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_text(text + "\n")
    assert [row.error for row in _read(tmp_path / "f", "f.txt")] == [None] * (1 + text.count("\n\n"))


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_two_packed_streams_in_one_file_are_both_read(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "f").write_bytes(pack(b'{"a": 1}\n') + pack(b'{"a": 2}\n'))
    assert [row.value for row in _read(tmp_path / "f", "f.jsonl")] == [{"a": 1}, {"a": 2}]


@pytest.mark.attack("data files")
def test_a_stray_quote_names_the_line_where_it_opens(tmp_path: Path) -> None:
    lines = ["question,answer", *(f"What is {n}?,It is {n}" for n in range(5000))]
    lines[100] = '"' + lines[100]
    (tmp_path / "f").write_text("\n".join(lines) + "\n")
    *rows, last = _read(tmp_path / "f", "f.csv")
    assert len(rows) == 99
    assert (last.place, last.error and last.error.code) == ("f.csv:101", "BrokenFile")


@pytest.mark.attack("data files")
def test_a_line_over_the_limit_whose_quote_stays_open_hides_what_follows(tmp_path: Path) -> None:
    (tmp_path / "f").write_text('a,b\n1,"' + "x" * MAX_ROW_BYTES + '\n2,y"\n')
    (row,) = _read(tmp_path / "f", "f.csv")
    assert row.error is not None
    assert row.error.code == "BrokenFile"
