"""Files in pieces: the rows, numbers and places that one reader of the whole file gives, wherever the borders are."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from support.rows import counting

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import stage_one
from hone_trainer.datasets.checked import Check, PartMaker, RefusedRow
from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.datasets.engine.writing import write_rejected
from hone_trainer.datasets.readers import items, pieces, read
from hone_trainer.datasets.readers.read import DataFile
from hone_trainer.datasets.readers.rows import RawRow, RowError
from hone_trainer.errors import SourceError, StoreError
from hone_trainer.store.part_folder import PartFolder
from hone_trainer.workers.parallel import Workers

pytestmark = pytest.mark.trainer
MOST = 2**20
Seen = tuple[int, str, Any, str | None]
"""Number, place, value, and the code of the error."""


class _Shown(Check):
    """Refuses every row: a refused row has its number and place."""

    def row(self, raw: RawRow) -> RefusedRow:
        row = read.parsed(raw)
        return RefusedRow(row, row.error or RowError("WrongType", ""))


def _seen(rows: Iterator[RawRow]) -> list[Seen]:
    return [(row.number, row.place, row.value, row.error.code if row.error else "WrongType") for row in rows]


def _made(files: list[DataFile], folder: Path, most: int = MOST) -> list[Seen]:
    """The rows of files, by their parts."""
    plan = MaterializePlan.model_validate(counting.PLAN)
    found: list[Seen] = []
    with tempfile.TemporaryDirectory(dir=folder) as name, Workers() as workers:
        maker = PartMaker(_Shown(plan, None), plan, {}, None, False, PartFolder(Path(name) / "parts", ""), most)
        parts = stage_one.parts(maker, files, workers, lambda part, of: None)
        with Relation(parts, Path(name) / "relation", most) as rows:
            write_rejected(
                rows,
                Path(name) / "rejected",
                lambda row, error: found.append((row.number, row.place, row.value, error.code)),
            )
    return found


@pytest.fixture
def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[Seen]]]:
    """What each way to read gives: whole files, and parts."""

    def run(files: list[DataFile], size: int) -> list[list[Seen]]:
        monkeypatch.setattr(pieces, "BYTES", size)
        return [_seen(read.read_rows(files, MOST)), _made(files, tmp_path)]

    return run


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
    monkeypatch.setattr(items, "MAX_ROW_BYTES", 120)
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
    with pytest.raises(SourceError, match=r"a\.parquet: unpacked, it is over 5000 bytes"):
        _made([DataFile(path, path.name)], tmp_path, 5000)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = DataFile(tmp_path / "gone.jsonl", "shards/7000.jsonl")
    with pytest.raises(StoreError, match=r"shards/7000\.jsonl cannot be read: No such file") as caught:
        _made([file], tmp_path)
    assert caught.value.code == "StorageError"
