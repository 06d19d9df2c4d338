"""Files to rows, with row and line numbers, one at a time."""

import gzip
import json
import tracemalloc

import pytest

from hone_trainer.datasets.readers.read import MAX_ROW_BYTES, DataFile, read_rows
from hone_trainer.errors import SourceError

pytestmark = pytest.mark.pure


def read(tmp_path, name, content: bytes, max_bytes=2**30):
    (tmp_path / "file").write_bytes(content)
    return list(read_rows([DataFile(tmp_path / "file", name)], max_bytes))


def seen(rows):
    """Row number, place, and value or error code of each."""
    return [(row.number, row.place, row.error.code if row.error else row.value) for row in rows]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b'{"a": 1}\n{"a": 2}\n', [(1, "f.jsonl:1", {"a": 1}), (2, "f.jsonl:2", {"a": 2})]),
        (b'{"a": 1}\r\n\r\n  \n{"a": 2}', [(1, "f.jsonl:1", {"a": 1}), (2, "f.jsonl:4", {"a": 2})]),
        (b'\xef\xbb\xbf{"a": 1}\n', [(1, "f.jsonl:1", {"a": 1})]),
        ('{"a": "é\u2028b"}\n'.encode(), [(1, "f.jsonl:1", {"a": "é\u2028b"})]),
        (b"", []),
        (b"\n\n", []),
        (b'\xef\xbb\xbf{"a": 1}\n\xef\xbb\xbf{"a": 2}\n', [(1, "f.jsonl:1", {"a": 1}), (2, "f.jsonl:2", {"a": 2})]),
        (b'{"a": 1}\n\0\0\0\0', [(1, "f.jsonl:1", {"a": 1}), (2, "f.jsonl:2", "BrokenJson")]),
        (b'{"a": \n{"a": 2}\n', [(1, "f.jsonl:1", "BrokenJson"), (2, "f.jsonl:2", {"a": 2})]),
        (b'{"a": "\xff"}\n{"a": 2}\n', [(1, "f.jsonl:1", "NotUTF8"), (2, "f.jsonl:2", {"a": 2})]),
        (b'{"a": NaN}\n', [(1, "f.jsonl:1", "BrokenJson")]),
        (b'{"a": -Infinity}\n', [(1, "f.jsonl:1", "BrokenJson")]),
        (b'{"a": ' + b"[" * 100_000 + b"\n", [(1, "f.jsonl:1", "BrokenJson")]),
        (
            b'3\n"x"\nnull\n',
            [(1, "f.jsonl:1", "WrongType"), (2, "f.jsonl:2", "WrongType"), (3, "f.jsonl:3", "WrongType")],
        ),
    ],
)
def test_json_lines(tmp_path, content, rows):
    assert seen(read(tmp_path, "f.jsonl", content)) == rows


def test_messages_say_where(tmp_path):
    (broken,) = read(tmp_path, "f.jsonl", b'{"a": x}\n')
    assert str(broken.error) == "not JSON: Expecting value at column 7"
    (cut,) = read(tmp_path, "f.jsonl", b'{"a": "cut\n')
    assert str(cut.error) == "not JSON: Invalid control character at column 11"
    (padded,) = read(tmp_path, "f.jsonl", b'{"a": 1}\0\0\0')
    assert str(padded.error) == "the line ends with NUL bytes: the file was cut or padded"
    *_, padding = read(tmp_path, "f.jsonl", b'{"a": 1}\n\0\0\0')
    assert str(padding.error) == "the line is NUL bytes alone: the file was cut or padded"
    (old_mac,) = read(tmp_path, "f.jsonl", b'{"a": 1}\r{"a": 2}\r')
    assert "the line has carriage returns in it: end lines with \\n" in str(old_mac.error)
    (garbled,) = read(tmp_path, "f.jsonl", b'{"a": "\xe9"}\n')
    assert str(garbled.error) == "not UTF-8 at byte 8 of the line"


def test_a_line_over_the_limit_is_refused_and_the_next_one_is_read(tmp_path):
    long = b'{"a": "' + b"x" * (2 * MAX_ROW_BYTES + 7) + b'"}\n'
    assert seen(read(tmp_path, "f.jsonl", long + b'{"a": 2}\n')) == [
        (1, "f.jsonl:1", "RowTooLarge"),
        (2, "f.jsonl:2", {"a": 2}),
    ]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b'[{"a": 1}, {"a": 2}]', [(1, "f.json, row 1", {"a": 1}), (2, "f.json, row 2", {"a": 2})]),
        (b' \n [\n {"a":\n 1}\n]\n', [(1, "f.json, row 1", {"a": 1})]),
        (b"[]", []),
        (b'[{"a": 1}, {"a": }, {"a": 3}]', [(1, "f.json, row 1", {"a": 1}), (2, "f.json, row 2", "BrokenFile")]),
        (b'[{"a": 1}', [(1, "f.json, row 1", {"a": 1}), (2, "f.json, row 2", "BrokenFile")]),
        (b'[{"a": 1}, ', [(1, "f.json, row 1", {"a": 1}), (2, "f.json, row 2", "BrokenFile")]),
        (b"[]x", [(1, "f.json, row 1", "BrokenFile")]),
        (b'[{"a": 1}]\n[{"a": 2}]', [(1, "f.json, row 1", {"a": 1}), (2, "f.json, row 2", "BrokenFile")]),
        (b'[{"a": 1}] oops {', [(1, "f.json, row 1", {"a": 1}), (2, "f.json, row 2", "BrokenFile")]),
        (b'[{"a": 1}]\n{"a": 2}\n', [(1, "f.json, row 1", {"a": 1}), (2, "f.json, row 2", "BrokenFile")]),
        (b'[{"a": 1} {"a": 2}]', [(1, "f.json, row 1", {"a": 1}), (2, "f.json, row 2", "BrokenFile")]),
        (b'[{"a": 1},, {"a": 2}]', [(1, "f.json, row 1", {"a": 1}), (2, "f.json, row 2", "BrokenFile")]),
        (b'[{"a": 1},]', [(1, "f.json, row 1", {"a": 1}), (2, "f.json, row 2", "BrokenFile")]),
        (b'[,{"a": 1}]', [(1, "f.json, row 1", "BrokenFile")]),
        (b"[1, 22]", [(1, "f.json, row 1", "WrongType"), (2, "f.json, row 2", "WrongType")]),
        (b'{"a": 1}\n', [(1, "f.json:1", {"a": 1})]),
    ],
)
def test_a_json_array_or_lines_whatever_the_name(tmp_path, content, rows):
    assert seen(read(tmp_path, "f.json", content)) == rows


def test_a_large_array_is_read_in_pieces(tmp_path):
    rows = [{"n": i, "text": "x" * (i * 37 % 9000)} for i in range(500)]
    found = read(tmp_path, "f.json", json.dumps(rows, indent=1).encode())
    assert [row.value for row in found] == rows


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("f.csv", b"a,b\n1,x\n2,y\n", [(1, "f.csv:2", {"a": "1", "b": "x"}), (2, "f.csv:3", {"a": "2", "b": "y"})]),
        ("f.csv", b'a,b\r\n1,"x\r\ny, ""z"""\r\n', [(1, "f.csv:2", {"a": "1", "b": 'x\r\ny, "z"'})]),
        ("f.csv", b"\xef\xbb\xbfa,b\n1,x\n", [(1, "f.csv:2", {"a": "1", "b": "x"})]),
        ("f.csv", b"a,b\n1\n2,y\n", [(1, "f.csv:2", "BrokenCsv"), (2, "f.csv:3", {"a": "2", "b": "y"})]),
        ("f.csv", b"a,b\n1,2,3\n", [(1, "f.csv:2", "BrokenCsv")]),
        ("f.csv", b'a,b\n1,"x\n2,y\n', [(1, "f.csv:2", "BrokenFile")]),
        ("f.csv", b'a,b\n1,"x\n2,"y"\n', [(1, "f.csv:2", "BrokenFile")]),
        ("f.csv", b'a,b\n1,"x" y\n2,y\n', [(1, "f.csv:2", "BrokenCsv"), (2, "f.csv:3", {"a": "2", "b": "y"})]),
        ("f.csv", b'a,b\n1,"x\n' + b"2,y\n" * 12 + b'z"\n3,y\n', [(1, "f.csv:2", "BrokenFile")]),
        ("f.csv", b'a;b\n1;"x,y"\n', [(1, "f.csv:2", {"a": "1", "b": "x,y"})]),
        ("f.csv", b'"question";"answer"\n"x, y";"z"\n', [(1, "f.csv:2", {"question": "x, y", "answer": "z"})]),
        ("f.csv", b'"a, or b";"c"\n1;"x,y"\n', [(1, "f.csv:2", {"a, or b": "1", "c": "x,y"})]),
        ("f.csv", b'"a; or b","c"\n1,2\n', [(1, "f.csv:2", {"a; or b": "1", "c": "2"})]),
        ("f.csv", b"\nsep=;\r\na;b\r\n1;2\r\n", [(1, "f.csv:4", {"a": "1", "b": "2"})]),
        ("f.csv", b'"a,b\n1,2\n', [(1, "f.csv:1", "BrokenFile")]),
        ("f.csv", b"a,a\n1,2\n", [(1, "f.csv:1", "BrokenFile")]),
        ("f.tsv", b'a\tb\n1\t"x" y\n', [(1, "f.tsv:2", {"a": "1", "b": '"x" y'})]),
        ("f.tsv", b'a\tb\n1\t"x\n2\ty\n3\tz"\n', [(1, "f.tsv:2", "BrokenFile")]),
        ("f.csv", b"a,b\n", []),
        (
            "f.csv",
            b"a,b\n1,x\n\xef\xbb\xbfa, b\n2,y\n",
            [(1, "f.csv:2", {"a": "1", "b": "x"}), (2, "f.csv:3", "BrokenCsv"), (3, "f.csv:4", {"a": "2", "b": "y"})],
        ),
        ("f.tsv", b"a\tb\n1\tx,y\n", [(1, "f.tsv:2", {"a": "1", "b": "x,y"})]),
    ],
)
def test_csv(tmp_path, name, content, rows):
    assert seen(read(tmp_path, name, content)) == rows


def test_text_is_a_row_per_paragraph_and_markdown_a_row_per_file(tmp_path):
    content = b"\n\nfirst\r\nline\n\n \nsecond\n"
    assert seen(read(tmp_path, "f.txt", content)) == [
        (1, "f.txt:3", {"text": "first\nline"}),
        (2, "f.txt:7", {"text": "second"}),
    ]
    assert seen(read(tmp_path, "f.md", b"# a\n\nb\n")) == [(1, "f.md", {"text": "# a\n\nb"})]
    assert read(tmp_path, "f.md", b" \n") == []


def test_parquet_is_known_by_its_first_bytes(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"messages": [{"role": "user", "content": f"é {i}"}]} for i in range(600)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p")
    content = (tmp_path / "p").read_bytes()
    found = read(tmp_path, "no-name", content)
    assert [row.value for row in found] == rows
    assert (found[-1].number, found[-1].place) == (600, "no-name, row 600")
    assert seen(read(tmp_path, "p", content[: len(content) // 2]))[-1][2] == "BrokenFile"


@pytest.mark.parametrize("name", ["f.jsonl.gz", "f"])
def test_gzip_is_known_by_its_first_bytes(tmp_path, name):
    content = gzip.compress(b'{"a": 1}\n')
    assert [row.value for row in read(tmp_path, name, content)] == [{"a": 1}]


def test_a_cut_gzip_file_gives_its_rows_and_an_error(tmp_path):
    lines = b"".join(json.dumps({"n": i, "x": str(i * i)}).encode() + b"\n" for i in range(5000))
    found = read(tmp_path, "f.jsonl.gz", gzip.compress(lines)[:-2000])
    assert found[0].value == {"n": 0, "x": "0"}
    assert [row.error.code for row in found if row.error][-1] == "BrokenFile"


def test_a_gzip_bomb_is_cut_off(tmp_path):
    with pytest.raises(SourceError, match="unpacked, it is over the limit") as caught:
        read(tmp_path, "f.jsonl.gz", gzip.compress(b"\n" * 50_000_000), max_bytes=1_000_000)
    assert caught.value.code == "SourceTooLarge"


def test_row_numbers_run_over_all_files(tmp_path):
    for name, content in (("a", b'{"n": 1}\nx\n'), ("b", b'[{"n": 3}]')):
        (tmp_path / name).write_bytes(content)
    files = [DataFile(tmp_path / name, name) for name in ("a", "b")]
    assert seen(read_rows(files, 2**30)) == [(1, "a:1", {"n": 1}), (2, "a:2", "BrokenJson"), (3, "b, row 1", {"n": 3})]


@pytest.mark.parametrize(("head", "tail", "between"), [(b"", b"", b"\n"), (b"[", b"]", b",\n")])
def test_memory_does_not_grow_with_the_file(tmp_path, head, tail, between):
    row = json.dumps({"text": "x" * 20_000}).encode()

    def peak(rows: int) -> int:
        (tmp_path / "f.json").write_bytes(head + between.join([row] * rows) + tail)
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_rows([DataFile(tmp_path / "f.json", "f.json")], 2**40)) == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(300) < peak(60) + 2**20
