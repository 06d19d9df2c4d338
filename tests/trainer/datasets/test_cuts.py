"""Records and paragraphs of any text are cut where one reader of the whole file ends them."""

from __future__ import annotations

import gzip
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone_trainer.datasets import batches, delimited, items, json_array, paragraphs, pieces, read, shipping
from hone_trainer.datasets.pieces import Piece, PieceRows
from hone_trainer.datasets.read import DataFile
from hone_trainer.datasets.rows import RawRow
from hone_trainer.datasets.shipping import Shipped

pytestmark = pytest.mark.pure
MOST = 2**20
CASES = 400
MARKS = {
    "csv": [
        "a",
        "b",
        ",",
        '"',
        '""',
        "\n",
        "\r\n",
        "\r",
        " ",
        "1",
        'x"y',
        '"q"',
        '",',
        '"\n',
        ";",
        "é",
        "\0",
        "l" * 80,
    ],
    "tsv": ["a", "\t", '"', '""', "\n", "\r\n", "\r", " ", "1\t2", 'x"y', '"q"', '"\t', '\t"', '"\n', "é"],
    "txt": ["a", "\n", "\n\n", "\r\n", " ", "\t", "\v", "\f", "\x85", "b" * 40, "é", "\n \n"],
    "json": ['{"a":1}', ",", " ", "\n", "[", "1", '"x"', '{"b":"]},{"}', '{"a":[{}]}', ", ", ",", ",", '{"a":1,"a":2}'],
}
BEGINS = {"csv": ["a,b\n", "a\n", "a;b\n", "sep=;\na;b\n", "\n a,b\n", ""], "tsv": ["a\tb\n"], "json": ["["]}
ENDS = {"json": ["]", "", "]]", "]x"]}


def _text(kind: str, chance: random.Random) -> bytes:
    parts = chance.choices(MARKS[kind], k=chance.randint(0, 120))
    text = "".join([chance.choice(BEGINS.get(kind, [""])), *parts, chance.choice(ENDS.get(kind, [""]))]).encode()
    if chance.random() < 0.1:
        text = text.replace(b"a", b"\xff", 1)
    return b"\xef\xbb\xbf" + text if chance.random() < 0.1 else text


def _shown(row: RawRow) -> tuple[object, ...]:
    row = read.parsed(row)
    return row.number, row.place, row.value, row.error and (row.error.code, str(row.error))


def _in_parts(file: DataFile) -> Iterator[tuple[object, ...]]:
    """The rows as workers without the file give them."""
    total = base = 0
    for part in shipping.parts(Piece([file]), MOST):
        sent: Shipped = pickle.loads(pickle.dumps(part))
        if isinstance(sent, Piece):
            sent = sent._replace(files=[DataFile(Path("/nowhere"), file.name)])
        rows = PieceRows(sent, MOST) if isinstance(sent, Piece) else map(batches.unpacked, sent.rows)
        if isinstance(sent, Piece) or sent.begins:
            base = total
        for number, *rest in map(_shown, rows):
            total += 1
            yield base + int(str(number)), *rest
            if isinstance(sent, Piece) and sent.may_be_last and rest[-1] and "BrokenFile" in str(rest[-1]):
                return


@pytest.mark.parametrize("kind", MARKS)
def test_any_text_has_the_same_rows_and_messages(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(kind)
    for case in range(CASES):
        data, name = _text(kind, chance), f"f.{kind}"
        if case % 3 == 0:  # packed, and every second time cut off
            packed = gzip.compress(data, 0)
            data, name = packed[: chance.randint(11, len(packed)) if case % 2 else None], f"{name}.gz"
        file = DataFile(tmp_path / name, name)
        file.path.write_bytes(data)
        for module in (items, pieces, read, delimited, paragraphs, json_array):
            monkeypatch.setattr(module, "MAX_ROW_BYTES", 2**24 if case % 4 < 2 else 60)
        monkeypatch.setattr(pieces, "BYTES", chance.choice([1, 7, 30, 100, 2000]))
        whole = list(map(_shown, read.raw_rows([file], MOST)))
        assert list(_in_parts(file)) == whole, (case, data)


@pytest.mark.parametrize(
    ("name", "data", "blocks"),
    [
        ("a.csv", b"a,b\n" + b'"x\ny, ""z""",2\n3,4" 5\n' * 100, 2100 // 200 + 1),
        ("a.tsv", b"a\tb\n" + b"x\ty\n" * 500, 2000 // 200),
        ("a.txt", b"one\ntwo\n\n" * 200, 1800 // 200 + 1),
    ],
)
def test_nearly_all_rows_are_left_to_workers(
    name: str, data: bytes, blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "BYTES", 200)
    (tmp_path / name).write_bytes(data)
    parts = list(shipping.parts(Piece([DataFile(tmp_path / name, name)]), MOST))
    assert abs(len(parts) - blocks) <= 3
    assert {isinstance(part, Piece) and part.cut is not None for part in parts} == {True}


def test_rows_that_cannot_be_cut_make_no_small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BYTES", 1000)
    (tmp_path / "a.tsv").write_bytes(b"a\tb\n" + b'1\t2\n3\t"4" 5\n' * 700)
    parts = list(shipping.parts(Piece([DataFile(tmp_path / "a.tsv", "a.tsv")]), MOST))
    assert len(parts) < 30
