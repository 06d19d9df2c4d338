"""Files in pieces: the rows, numbers and places that one reader of the whole file gives, wherever the borders are."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from hone_trainer.datasets import batches, checked, columnar, delimited, items, json_array, paragraphs, pieces, read
from hone_trainer.datasets.checked import Check, PieceCheck, RefusedRow
from hone_trainer.datasets.pieces import Piece
from hone_trainer.datasets.read import DataFile
from hone_trainer.datasets.rows import RawRow, RowError
from hone_trainer.datasets.shipping import RowsRead, Shipped
from hone_trainer.errors import SourceError, StoreError
from hone_trainer.workers.parallel import Workers

pytestmark = pytest.mark.pure
MOST = 2**20
Seen = tuple[int, str, Any, str | None]
"""Number, place, value, and the code of the error."""


class _Shown(Check):
    """Refuses every row: a refused row has its number and place."""

    def __init__(self) -> None:
        pass

    def rows(self, batch: Sequence[batches.Packed]) -> list[Any]:
        return [RefusedRow(row, row.error or RowError("WrongType", "")) for row in map(self._parsed, batch)]

    def _parsed(self, row: batches.Packed) -> RawRow:
        return read.parsed(batches.unpacked(row))


class _Elsewhere(Workers):
    """Two workers without the files."""

    def __init__(self) -> None:
        super().__init__()
        self.are_elsewhere, self.count = True, 2
        self.sent: list[Shipped] = []

    def map(self, function: Any, items: Any) -> Iterator[Any]:
        for item in items:
            self.sent.append(item)
            sent = pickle.loads(pickle.dumps(item))
            if isinstance(sent, Piece):
                sent = sent._replace(files=[DataFile(Path("/nowhere"), file.name) for file in sent.files])
            yield item, function(sent)


def _seen(rows: Iterator[Any]) -> list[Seen]:
    return [(row.number, row.place, row.value, row.error.code if row.error else None) for row in rows]


@pytest.fixture
def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[list[Seen]]]]:
    """What each way to read gives: whole files; pieces in this process; by two workers; by pods without the files."""
    monkeypatch.setattr(batches, "ROWS", 3)
    checks = PieceCheck(_Shown(), tmp_path / "pieces", MOST)
    elsewhere = _Elsewhere()
    with Workers([checks.sent], 2) as two:

        def run(files: list[DataFile], size: int) -> list[list[Seen]]:
            monkeypatch.setattr(pieces, "BYTES", size)
            whole = _seen(read.read_rows(files, MOST))
            ways = (Workers(), two, elsewhere)
            by = [_seen(one.row for one in checks.rows(checks.shared(files, way), way)) for way in ways]
            return [whole, *by]

        yield run


ROW, LONG = b'{"a": "b"}\n', b'{"a": "' + b"x" * 90 + b'"}\n'
LINES = {
    "lines that span ranges": ROW * 3 + LONG + ROW,
    "CRLF": (ROW * 4).replace(b"\n", b"\r\n") + b"\r\n\r\n" + ROW,
    "a byte order mark, and one in the middle": b"\xef\xbb\xbf" + ROW * 2 + b"\xef\xbb\xbf" + ROW * 2,
    "blank lines": b"\n\n \n" + ROW + b"\n\n\n" + ROW * 2 + b"\n \n\n",
    "no newline at the end": ROW * 3 + ROW.rstrip(),
    "characters of several bytes": '{"a": "äöü€😀"}\n'.encode() * 4,
    "broken ones": ROW + b'{"a": \n' + ROW + b"\xff\xfe\n[1]\n" + ROW + b"\0\0\0",
    "a line over the limit": ROW + b"x" * 400 + b"\n" + ROW * 2 + b"y" * 300,
    "a carriage return within a line": ROW + b'{"a": 1}\r{"a": 2}\n' + ROW,
}


@pytest.mark.parametrize("case", LINES)
def test_ranges_of_lines_are_the_rows_of_the_file(
    case: str, ways: Callable[..., list[list[Seen]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (items, pieces):
        monkeypatch.setattr(module, "MAX_ROW_BYTES", 120)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINES[case])
    for size in (1, 2, 7, 11, 12, 50, 10_000):
        whole, *others = ways([DataFile(path, path.name), DataFile(path, "again.jsonl")], size)
        assert len(whole) >= 6
        for seen in others:
            assert seen == whole, size


def test_small_files_share_pieces(tmp_path: Path) -> None:
    files = [DataFile(tmp_path / f"{n}.jsonl", f"{n}.jsonl") for n in range(2 * pieces.FILES + 1)]
    for file in files:
        file.path.write_bytes(ROW)
    divided = [piece.files for piece in pieces.pieces(files, MOST)]
    assert [len(some) for some in divided] == [pieces.FILES, pieces.FILES, 1]
    assert [file for some in divided for file in some] == files


def _tables(path: Path, rows: int, group: int) -> None:
    table = pyarrow.table({"a": [f"text {n}" for n in range(rows)]})
    pyarrow.parquet.write_table(table, path, row_group_size=group)


def test_row_groups_and_packed_files_are_the_rows_of_the_files(
    ways: Callable[..., list[list[Seen]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "GROUP_BYTES", 100)
    _tables(tmp_path / "a.parquet", 40, 7)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(ROW * 80))
    (tmp_path / "c.csv").write_text('a,b\n"one\n\ntwo",2\n' * 9)
    names = ["a.parquet", "b.jsonl.gz", "c.csv"]
    divided = [pieces.pieces([DataFile(tmp_path / name, name)], MOST) for name in names]
    monkeypatch.setattr(pieces, "BYTES", 10)
    assert [len(list(each)) for each in divided] == [6, 1, 1]
    for chosen in (names, *([name] for name in names)):
        whole, *others = ways([DataFile(tmp_path / name, name) for name in chosen], 10)
        assert len(whole) > 10
        assert all(seen == whole for seen in others)


def test_nothing_is_read_behind_a_damaged_row_group(
    ways: Callable[..., list[list[Seen]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "GROUP_BYTES", 100)
    _tables(path := tmp_path / "a.parquet", 40, 7)
    data = bytearray(path.read_bytes())
    at = data.index(b"text 16") if b"text 16" in data else len(data) // 3
    data[at - 40 : at] = b"\xff" * 40
    path.write_bytes(data)
    (tmp_path / "b.jsonl").write_bytes(ROW)
    _, *others = ways([DataFile(tmp_path / name, name) for name in ("a.parquet", "b.jsonl")], 10)
    for seen in others:
        assert seen == others[0]
        assert [code for *_, code in seen].index("BrokenFile") == len(seen) - 2
        assert seen[-1][1] == "b.jsonl:1"


def test_row_groups_are_together_under_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BYTES", 10)
    monkeypatch.setattr(pieces, "GROUP_BYTES", 100)
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": ["x" * 50] * 200}), path, row_group_size=50)
    checks = PieceCheck(_Shown(), tmp_path, 5000)
    with pytest.raises(SourceError, match=r"a\.parquet: unpacked, it is over 5000 bytes"):
        list(checks.rows(checks.shared([DataFile(path, path.name)], Workers()), Workers()))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    checks = PieceCheck(_Shown(), tmp_path, MOST)
    file = DataFile(tmp_path / "gone.jsonl", "shards/7000.jsonl")
    with pytest.raises(StoreError, match=r"shards/7000\.jsonl cannot be read: No such file") as caught:
        list(checks.shared([file], Workers()))
    assert caught.value.code == "StorageError"


def _stream(table: pyarrow.Table) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=9)
    return bytes(sink.getvalue())


def _file(table: pyarrow.Table) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=9)
    return bytes(sink.getvalue())


def _parquet(table: pyarrow.Table, group: int = 11) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, row_group_size=group)
    return bytes(sink.getvalue())


def _labelled() -> pyarrow.Table:
    """Columns of all kinds, a class by number with its name in the metadata, and a text that is not UTF-8."""
    about = {"info": {"features": {"kind": {"_type": "ClassLabel", "names": ["good", "bad"]}}}}
    texts = pyarrow.array([b"text", b"\xff\xfe", "ä".encode()] * 9, pyarrow.binary()).view(pyarrow.string())
    columns = {
        "a": texts,
        "kind": [n % 3 - 1 for n in range(27)],
        "when": pyarrow.array([n * 10**17 for n in range(27)], pyarrow.timestamp("ms")),
        "turns": [[{"role": "user", "said": None if n % 2 else "so"}] for n in range(27)],
        "word": pyarrow.array(["one", "two", "three"] * 9).dictionary_encode(),
    }
    return pyarrow.table(columns).replace_schema_metadata({b"huggingface": json.dumps(about).encode()})


PLAIN = pyarrow.table({"a": [f"text {n}" for n in range(60)]})
BAD_LINES = ROW * 9 + b'{"a": \n' + b"x" * 400 + b"\n" + LONG + b"\n[1]\n" + ROW * 9
FILES: dict[str, Callable[[], bytes]] = {
    "arrow stream.arrow": lambda: _stream(PLAIN),
    "arrow file.arrow": lambda: _file(PLAIN),
    "arrow stream, cut off.arrow": lambda: _stream(PLAIN)[:-90],
    "parquet.parquet": lambda: _parquet(PLAIN),
    "parquet, packed.parquet.gz": lambda: gzip.compress(_parquet(PLAIN)),
    "parquet, cut off.parquet": lambda: _parquet(PLAIN)[:-9],
    "labels.parquet": lambda: _parquet(_labelled()),
    "labels.arrow": lambda: _stream(_labelled()),
    "gzip.jsonl.gz": lambda: gzip.compress(BAD_LINES * 3),
    "gzip, cut off.jsonl.gz": lambda: gzip.compress(BAD_LINES * 300, 0)[:-4000],
    "gzip, a wrong checksum.jsonl.gz": lambda: gzip.compress(BAD_LINES * 30)[:-8] + b"12345678",
    "bzip2.jsonl.bz2": lambda: bz2.compress(BAD_LINES * 3),
    "xz, cut off.jsonl.xz": lambda: lzma.compress(BAD_LINES * 150)[:-30],
    "array.json": lambda: json.dumps([{"a": f"{n}"} for n in range(30)]).encode(),
    "array, cut off.json": lambda: json.dumps([{"a": f"{n}"} for n in range(30)]).encode()[:-9],
    "paragraphs.txt": lambda: b"one\n\ntwo\nthree\n\n\n" * 9,
    "paragraphs, long, and lines over the limit.txt": lambda: (
        (b"one\n" * 90 + b" \t\n\n" + b"x" * 400 + b"\n\ny\r\n\r\n") * 9
    ),
    "paragraphs, packed and cut off.txt.gz": lambda: gzip.compress(b"one\n \n\ntwo\n" * 2000, 0)[:-4000],
    "array, deep, not UTF-8, not objects.json": lambda: (
        b'[{"a": "\xff"}, {"a": ' + b"[" * 240 + b"]" * 240 + b'}, 1, null, "x", {"a": "\\ud800"}]'
    ),
    "array, a comma missing.json": lambda: b'[{"a": 1}, {"a": 2} {"a": 3}]',
    "records.csv": lambda: b"a,b\n" + b'"one\n\n""two",2\r\n3," 4"\n\n5,6"7"\n' * 30,
    "records, packed and cut off.csv.gz": lambda: gzip.compress(b"a,b\n" + b'"o\nne",2\n' * 3000, 0)[:-4000],
    "records, some broken.csv": lambda: (
        b"\xef\xbb\xbf\n\na,b\n" + b'1,2\n"x"y,3\n1,2,3\na,b\n4\r5,"6\n7,\xff\n' * 9 + b"8,9"
    ),
    "records, a quote that stays open.csv": lambda: b"a,b\n" + b"1,2\n" * 30 + b'3,"4\n' + b"5,6\n" * 30,
    "records, a quote that ends late.csv": lambda: b"a,b\n" + b"1,2\n" * 30 + b'3,"4\n' + b"5,6\n" * 5 + b'7,"8\n' * 9,
    "records over the limit.csv": lambda: b"a,b\n" + (b"1,2\n" * 9 + b'3,"' + b"4\n" * 200 + b'"\n') * 3,
    "lines over the limit.csv": lambda: b"a,b\n" + (b"1,2\n" * 9 + b"3," + b"4" * 400 + b"\n") * 3,
    "semicolons.csv": lambda: b'a;b\n"1;\n";2\n' * 30,
    "another mark.csv": lambda: b"sep=|\na|b\n" + b'"1|\n"|2\n' * 30,
    "a mark that is not ASCII.csv": lambda: "sep=§\na§b\n".encode() + "1§2\n".encode() * 30,
    "a header alone.csv": lambda: b"\n\na,b",
    "a header twice.csv": lambda: b"a,a\n1,2\n" * 9,
    "literal quotes.tsv": lambda: b"a\tb\n" + b'"so\t"he" said\n"1"\t"2\n3"\n\t"4\t"\n' * 9,
    "a page.jsonl": lambda: b"<!doctype html>\n" * 9,
    "named wrongly.parquet": lambda: ROW * 20,
    "empty.jsonl": lambda: b"",
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("size", [10, 150, 100_000])
def test_each_kind_of_file_has_the_same_rows_by_workers_that_do_not_have_it(
    case: str, size: int, ways: Callable[..., list[list[Seen]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, where one process reads for workers of its pod, and among other files. Small ones are sent whole."""
    for module in (items, pieces, read, delimited, paragraphs, json_array):
        limited = "json" in case or "limit" in case
        monkeypatch.setattr(module, "MAX_ROW_BYTES", 250 if limited else 2**20)
    monkeypatch.setattr(columnar, "PART_BYTES", size)
    (path := tmp_path / case).write_bytes(FILES[case]())
    (other := tmp_path / "zz.jsonl").write_bytes(ROW * 3)
    for files in ([DataFile(path, case)], [DataFile(path, case), DataFile(other, "zz.jsonl"), DataFile(path, "z.z")]):
        whole, *others = ways(files, size)
        assert len(whole) >= (len(files) > 1)
        for seen in others:
            assert seen == whole


def test_workers_make_the_rows_of_what_one_process_has_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gzip.jsonl.gz", "parquet.parquet", "arrow file.arrow", "labels.arrow"):
        (tmp_path / name).write_bytes(FILES[name]())
    monkeypatch.setattr(pieces, "BYTES", 100)
    checks, workers = PieceCheck(_Shown(), tmp_path, MOST), _Elsewhere()
    files = [DataFile(path, path.name) for path in sorted(tmp_path.iterdir())]
    rows = list(checks.rows(checks.shared(files, workers), workers))
    assert len(rows) > 200
    assert not [item for item in workers.sent if isinstance(item, RowsRead)]
    assert {bool(item.table) for item in workers.sent if isinstance(item, Piece)} == {True, False}


def test_small_files_that_unpack_to_more_than_a_worker_sends_are_read_here(
    ways: Callable[..., list[list[Seen]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "_MOST_SENT", 500)
    for number in range(4):
        (tmp_path / f"{number}.jsonl.gz").write_bytes(gzip.compress(ROW * (3, 90, 2, 1)[number]))
    whole, *others = ways([DataFile(tmp_path / f"{n}.jsonl.gz", f"{n}.jsonl.gz") for n in range(4)], 80)
    assert len(whole) == 96
    assert all(seen == whole for seen in others)


def test_a_row_as_large_as_its_limit_is_measured_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a column without nulls, Arrow sends less than it has in memory."""
    texts = ["x" * (n * 40) for n in range(60)]
    table = pyarrow.table({"a": texts, "b": [None if n == 3 else n for n in range(60)]})
    monkeypatch.setattr(pieces, "BYTES", 10)
    monkeypatch.setattr(columnar, "PART_BYTES", 10)
    checks = PieceCheck(_Shown(), tmp_path, MOST)
    for name, data in (("a.parquet", _parquet(table, 60)), ("a.arrow", _stream(table))):
        (tmp_path / name).write_bytes(data)
        files, workers = [DataFile(tmp_path / name, name)], _Elsewhere()
        for most in range(1000, 1060):
            for module in (columnar, read):
                monkeypatch.setattr(module, "MAX_ROW_BYTES", most)
            whole = _seen(read.read_rows(files, MOST))
            assert {code for *_, code in whole} == {None, "RowTooLarge"}
            assert _seen(one.row for one in checks.rows(checks.shared(files, workers), workers)) == whole
        assert {isinstance(item, RowsRead) for item in workers.sent} == {True, False}
