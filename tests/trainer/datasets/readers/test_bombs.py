"""Small files that would take gigabytes, and files that break their reader: each ends in a code and within memory."""

from __future__ import annotations

import gzip
import io
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from hone_trainer.datasets.readers import memory
from hone_trainer.datasets.readers.read import DataFile, read_rows
from hone_trainer.errors import SourceError

pytestmark = pytest.mark.pure
MIB = 2**20
LARGE = 64 * MIB


def read(path: Path, name: str, content: bytes, max_bytes: int = 2**34) -> list[str]:
    """Codes of the rows, "" for a good one."""
    (path / "file").write_bytes(content)
    return [row.error.code if row.error else "" for row in read_rows([DataFile(path / "file", name)], max_bytes)]


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink, **{"compression": "zstd", "write_statistics": False, **options})
    return sink.getvalue()


def arrow(table: pa.Table, make: Callable[..., Any] = pa.ipc.new_stream, compression: str | None = "zstd") -> bytes:
    sink = io.BytesIO()
    with make(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def shared(rows: int = 20_000) -> pa.Table:
    """One value of 64 MiB, in every row by its number in a dictionary."""
    indices = pa.array([0] * rows, pa.int8())
    return pa.table({"text": pa.DictionaryArray.from_arrays(indices, pa.array(["x" * LARGE]))})


def lists() -> pa.Table:
    """Two rows with 400 times the same 8 MiB."""
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 800, pa.int16()), pa.array(["x" * 8 * MIB]))
    return pa.table({"text": pa.ListArray.from_arrays(pa.array([0, 400, 800], pa.int32()), values)})


def nested(levels: int) -> pa.Table:
    kind, value = pa.string(), "x"
    for _ in range(levels):
        kind, value = pa.list_(kind), [value]
    return pa.table({"text": pa.array([value], kind)})


def runs() -> pa.Table:
    column = pa.RunEndEncodedArray.from_arrays(pa.array([2_000], pa.int32()), pa.array(["x" * LARGE]))
    return pa.table({"text": column})


def views() -> pa.Table:
    """Lists that overlap: each row has all of the same 100,000 texts."""
    offsets, sizes = pa.array([0] * 20_000, pa.int32()), pa.array([100_000] * 20_000, pa.int32())
    return pa.table({"text": pa.ListViewArray.from_arrays(offsets, sizes, pa.array(["x" * 100] * 100_000))})


BOMBS: dict[str, Callable[[], tuple[str, bytes]]] = {
    "a Parquet dictionary": lambda: ("a.parquet", parquet(shared())),
    "a Parquet dictionary in gzip": lambda: ("a.parquet.gz", gzip.compress(parquet(shared()), 1)),
    "a Parquet text": lambda: ("a.parquet", parquet(shared(300), store_schema=False)),
    "a Parquet list of one value": lambda: ("a.parquet", parquet(lists())),
    "an Arrow list of one value": lambda: ("a.arrow", arrow(lists())),
    "an Arrow dictionary": lambda: ("a.arrow", arrow(shared())),
    "an Arrow file's dictionary": lambda: ("a.arrow", arrow(shared(), pa.ipc.new_file)),
    "runs of one value": lambda: ("a.arrow", arrow(runs())),
    "an Arrow message of 2 GiB": lambda: ("a.arrow", b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(64)),
    "lists that overlap": lambda: ("a.arrow", arrow(views())),
}


@pytest.mark.attack("data files")
@pytest.mark.parametrize("what", BOMBS)
def test_a_file_that_asks_for_gigabytes_ends_in_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(memory, "budget", lambda: 512 * MIB)
    before, peak = resource.getrlimit(resource.RLIMIT_DATA), _peak()
    name, content = BOMBS[what]()
    assert len(content) < 2 * MIB
    assert _outcome(tmp_path, name, content) in ({"SourceTooLarge"}, {"RowTooLarge"})
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert _peak() < peak + 1024, "MiB"


def _outcome(path: Path, name: str, content: bytes) -> set[str]:
    try:
        return set(read(path, name, content))
    except SourceError as error:
        return {error.code}


def _peak() -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) // 1024


DEEP = b"[" * 100_000
BROKEN: dict[str, tuple[str, Callable[[], bytes], str]] = {
    # what: (name, content, the code that it must have)
    "deep JSON": ("a.jsonl", lambda: b'{"a": ' + DEEP, "BrokenJson"),
    "deep and closed": ("a.jsonl", lambda: b'{"a": ' + DEEP + b"]" * 100_000 + b"}", "BrokenJson"),
    "a deep array": ("a.json", lambda: DEEP, "BrokenFile"),
    "an array without an end": ("a.json", lambda: b'[{"a": "' + b"x" * 20 * MIB, "BrokenFile"),
    "an array of commas": ("a.json", lambda: b"[" + b"," * 100_000, "BrokenFile"),
    "a number of 10,000 digits": ("a.jsonl", lambda: b'{"a": ' + b"9" * 10_000 + b"}", "BrokenJson"),
    "not a number": ("a.jsonl", lambda: b'{"a": NaN}', "BrokenJson"),
    "infinity": ("a.jsonl", lambda: b'{"a": -Infinity}', "BrokenJson"),
    "a key twice": ("a.jsonl", lambda: b'{"a": 1, "a": 2}', "BrokenJson"),
    "no UTF-8": ("a.jsonl", lambda: b'{"a": "\xff\xfe"}', "NotUTF8"),
    "overlong UTF-8": ("a.jsonl", lambda: b'{"a": "\xc0\xaf"}', "NotUTF8"),
    "a surrogate as UTF-8": ("a.jsonl", lambda: b'{"a": "\xed\xa0\x80"}', "NotUTF8"),
    "UTF-16": ("a.jsonl", lambda: '{"a": 1}'.encode("utf-16"), "NotRows"),
    "null bytes": ("a.jsonl", lambda: bytes(1000), "NotRows"),
    "a line of 17 MiB": ("a.jsonl", lambda: b'{"a": "' + b"x" * 17 * MIB + b'"}', "RowTooLarge"),
    "a text": ("a.jsonl", lambda: b'"text"', "WrongType"),
    "a web page": ("a.jsonl", lambda: b"<!DOCTYPE html><script>alert(1)</script>", "NotRows"),
    "an entity bomb": ("a.jsonl", lambda: b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "&c;&c;">]>', "NotRows"),
    "a zip": ("a.jsonl", lambda: b"PK\x03\x04" + bytes(100), "NotRows"),
    "a pointer": ("a.jsonl", lambda: b"version https://git-lfs.github.com/spec/v1\n", "NotRows"),
    "a quote without an end": ("a.csv", lambda: b'a,b\n"' + b"x,y\n" * 100_000, "BrokenFile"),
    "a header twice": ("a.csv", lambda: b"a,a\n1,2\n", "BrokenFile"),
    "gzip cut": ("a.jsonl.gz", lambda: gzip.compress(b'{"a": 1}\n' * 1000)[:20], "BrokenFile"),
    "gzip damaged": ("a.jsonl.gz", lambda: gzip.compress(b"x")[:-8] + bytes(8), "BrokenFile"),
    "gzip of nothing": ("a.jsonl.gz", lambda: b"\x1f\x8b" + bytes(20), "BrokenFile"),
    "zstd of nothing": ("a.jsonl.zst", lambda: b"\x28\xb5\x2f\xfd" + b"\xff" * 20, "BrokenFile"),
    "Parquet by name of its mark": ("a.parquet", lambda: b"PAR1", "BrokenFile"),
    "Parquet with a footer of 2 GiB": ("a.parquet", lambda: b"PAR1" + bytes(8) + b"\xff\xff\xff\x7fPAR1", "BrokenFile"),
    "Parquet without a middle": (
        "a.parquet",
        lambda: (whole := parquet(pa.table({"a": ["x" * 1000] * 1000})))[:8] + bytes(300) + whole[308:],
        "BrokenFile",
    ),
    "lists in lists": ("a.parquet", lambda: parquet(nested(120)), "BrokenFile"),
    "Arrow by its mark": ("a.arrow", lambda: b"ARROW1\0\0", "BrokenFile"),
    "Arrow with a negative length": ("a.arrow", lambda: b"\xff\xff\xff\xff\xff\xff\xff\xff" + bytes(64), "BrokenFile"),
    "a column twice": ("a.arrow", lambda: arrow(pa.table([["x"], ["y"]], names=["a", "a"])), "BrokenFile"),
}


@pytest.mark.attack("data files")
@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_breaks_its_reader_has_a_code(tmp_path: Path, what: str) -> None:
    name, make, code = BROKEN[what]
    assert code in read(tmp_path, name, make())


@pytest.mark.attack("data files")
@pytest.mark.parametrize("packer", ["gz", "zst"])
@pytest.mark.parametrize("layers", [1, 2])
def test_what_is_packed_is_bounded(tmp_path: Path, packer: str, layers: int) -> None:
    content = json.dumps({"a": "x" * 20 * MIB}).encode()
    for _ in range(layers):
        content = gzip.compress(content, 1) if packer == "gz" else pa.compress(content, "zstd", asbytes=True)
    if layers == 1:
        with pytest.raises(SourceError) as raised:
            read(tmp_path, f"a.jsonl.{packer}", content, max_bytes=MIB)
        assert raised.value.code == "SourceTooLarge"
    else:  # only the outer one is unpacked
        assert "" not in read(tmp_path, f"a.jsonl.{packer}", content, max_bytes=MIB)


@pytest.mark.attack("data files")
@pytest.mark.parametrize("make", [parquet, arrow])
def test_what_a_columnar_file_unpacks_to_is_bounded(tmp_path: Path, make: Callable[[pa.Table], bytes]) -> None:
    content = make(pa.table({"text": [f"{i} " + "x" * 1000 for i in range(5000)]}))
    assert len(content) < MIB
    with pytest.raises(SourceError, match="unpacked, it is over 1048576 bytes") as raised:
        read(tmp_path, "a.data", content, max_bytes=MIB)
    assert raised.value.code == "SourceTooLarge"


def test_a_dictionary_larger_than_a_row_may_be_holds_small_rows(tmp_path: Path) -> None:
    texts = [f"{i}" + "x" * 99_990 for i in range(300)]
    table = pa.table({"text": pa.array(texts).dictionary_encode()})
    assert table.nbytes > 17 * MIB
    for content in (parquet(table), arrow(table)):
        assert read(tmp_path, "a.data", content) == [""] * 300


@pytest.mark.parametrize(
    ("second", "first", "budget"),
    [
        ("1073741824\n", None, 2**29),
        (None, "1073741824\n", 2**29),
        ("max\n", None, 2**31),
        (None, "9223372036854771712\n", 2**31),
        (None, None, 2**31),
    ],
)
def test_the_budget_is_half_of_the_container_by_either_version_of_control_groups(
    second: str | None, first: str | None, budget: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = tmp_path / "second", tmp_path / "first"
    for path, text in zip(limits, (second, first), strict=True):
        if text:
            path.write_text(text)
    monkeypatch.setattr(memory, "_LIMITS", limits)
    assert memory.budget() == budget
