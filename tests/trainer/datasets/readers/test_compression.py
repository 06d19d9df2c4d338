"""Packed and columnar files: every form of the same rows reads alike, damage is reported, memory does not grow."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest

from hone_trainer.datasets.readers.read import DataFile, read_rows
from hone_trainer.datasets.readers.rows import RawRow
from hone_trainer.errors import SourceError

pytestmark = pytest.mark.pure
ROWS = [{"question": f"How many are {i} and 1?", "answer": f"{i + 1} – “{i}”"} for i in range(700)]


def jsonl() -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def array() -> bytes:
    return json.dumps(ROWS, indent=1).encode()


def delimited(mark: str) -> bytes:
    lines = [mark.join(("question", "answer")), *(mark.join(row.values()) for row in ROWS)]
    return "\n".join(lines).encode()


def parquet() -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), sink, compression="zstd")
    return sink.getvalue()


def arrow(make: Callable[..., Any], batch_rows: int = 100_000) -> bytes:
    sink, table = io.BytesIO(), pa.Table.from_pylist(ROWS)
    with make(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return sink.getvalue()


def feather() -> bytes:
    sink = io.BytesIO()
    pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), sink, compression="lz4")
    return sink.getvalue()


FORMS: dict[str, bytes] = {
    "rows.jsonl": jsonl(),
    "rows.json": array(),
    "rows.csv": delimited(","),
    "rows.tsv": delimited("\t"),
    "rows.parquet": parquet(),
    "file.arrow": arrow(pa.ipc.new_file),
    "small-batches.arrow": arrow(pa.ipc.new_file, 7),
    "stream.arrow": arrow(pa.ipc.new_stream, 7),
    "rows.feather": feather(),
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


def read(tmp_path: Path, name: str, content: bytes, max_bytes: int = 2**30) -> list[RawRow]:
    (tmp_path / "file").write_bytes(content)
    return list(read_rows([DataFile(tmp_path / "file", name)], max_bytes))


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(tmp_path: Path, form: str, packer: str) -> None:
    rows = read(tmp_path, form + packer, PACKERS[packer](FORMS[form]))
    assert [row.value for row in rows] == ROWS
    assert [row.number for row in rows] == list(range(1, len(ROWS) + 1))
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_what_is_inside_decides_and_not_the_suffix(tmp_path: Path) -> None:
    for form in ("rows.parquet", "file.arrow", "stream.arrow"):
        assert len(read(tmp_path, "data", PACKERS[".zst"](FORMS[form]))) == len(ROWS)


def test_frames_in_a_row_are_one_file(tmp_path: Path) -> None:
    """As `cat a.zst b.zst > c.zst` and pigz make them."""
    half = len(ROWS) // 2
    lines = jsonl().splitlines(keepends=True)
    for packer in (".gz", ".zst"):
        content = PACKERS[packer](b"".join(lines[:half])) + PACKERS[packer](b"".join(lines[half:]))
        assert [row.value for row in read(tmp_path, f"rows.jsonl{packer}", content)] == ROWS


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("form", ["rows.parquet", "file.arrow", "stream.arrow"])
def test_a_columnar_file_that_ends_early_is_damaged(tmp_path: Path, form: str, packer: str) -> None:
    content = PACKERS[packer](FORMS[form][: len(FORMS[form]) // 2])
    *good, last = read(tmp_path, form + packer, content)
    assert last.error is not None
    assert last.error.code == "BrokenFile"
    assert [row.value for row in good] == ROWS[: len(good)]


@pytest.mark.parametrize("packer", [".gz", ".zst"])
@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_a_packed_file_that_ends_early_is_damaged(tmp_path: Path, packer: str, keep: float) -> None:
    content = PACKERS[packer](jsonl())
    *good, last = read(tmp_path, f"rows.jsonl{packer}", content[: int(keep * len(content))])
    assert last.error is not None
    assert last.error.code == "BrokenFile"
    assert packer.strip(".")[:2] in str(last.error)
    assert [row.value for row in good] == ROWS[: len(good)]


@pytest.mark.parametrize("packer", [".gz", ".zst"])
@pytest.mark.parametrize("inside", ["jsonl", "parquet"])
def test_a_bomb_is_not_unpacked_beyond_the_limit(tmp_path: Path, packer: str, inside: str) -> None:
    bomb = (b"PAR1" if inside == "parquet" else b"") + b"\n" * 20_000_000
    content = PACKERS[packer](bomb)
    assert len(content) < 100_000
    with pytest.raises(SourceError) as caught:
        read(tmp_path, f"rows.{inside}{packer}", content, max_bytes=5_000_000)
    assert caught.value.code == "SourceTooLarge"


MEASURE = """
import sys
from pathlib import Path
from hone_trainer.datasets.readers.read import DataFile, read_rows
count = sum(row.error is None for row in read_rows([DataFile(Path(sys.argv[1]), Path(sys.argv[1]).name)], 2**40))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(count, int(status["VmHWM"].split()[0]) // 1024)
"""
"""Not ru_maxrss: a process inherits that of the one that starts it (kernel: setmax_mm_hiwater_rss in exec_mmap)."""


@pytest.mark.parametrize(
    "form",
    [
        *("jsonl.zst", "csv", "parquet"),
        *(pytest.param(form, marks=pytest.mark.long) for form in ("jsonl.gz", "json", "arrow")),
    ],
)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, form: str) -> None:
    """Peak resident memory, MiB, of a process that reads 20,000 rows, and of one that reads 4 times as many.

    Fewer rows do not fill what is read ahead; with more threads it depends on how busy the machine is.
    """
    peaks = []
    for count in (20_000, 80_000):
        path = tmp_path / f"{count}.{form}"
        _write(path, form, count)
        command = [sys.executable, "-c", MEASURE, str(path)]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=one_thread)
        found, peak = map(int, done.stdout.split())
        assert found == count
        peaks.append(peak)
        size = path.stat().st_size if form in ("json", "csv", "parquet", "arrow") else count * 600
    assert size > 40 * 2**20, "large enough to be seen"
    assert peaks[1] - peaks[0] < 24, peaks


def _write(path: Path, form: str, count: int) -> None:
    """Rows of about 600 bytes that do not compress away in a columnar file."""
    texts = [f"{i} {i * 7919 % 104729} " * 48 for i in range(count)]
    if form in ("parquet", "arrow"):
        table = pa.table({"text": texts})
        if form == "parquet":
            pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False, row_group_size=5_000)
        else:
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=1_000)
        return
    if form == "json":
        path.write_text(json.dumps([{"text": text} for text in texts]))
    elif form == "csv":
        path.write_text("text\n" + "\n".join(texts))
    else:
        data = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
        path.write_bytes(PACKERS[f".{form.rpartition('.')[2]}"](data))
