"""Sources of many files that are not fit: whichever it is, the file is named, and nothing is left behind."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from hone_api.contract.report import DatasetResult
from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize
from hone_trainer.datasets.readers import pieces, read
from hone_trainer.datasets.readers.read import DataFile, read_rows
from hone_trainer.datasets.readers.rows import RawRow
from hone_trainer.errors import DataError, StoreError, TrainerError, classify
from hone_trainer.workers import parallel

pytestmark = pytest.mark.trainer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path) -> Callable[[], DatasetResult]:
    """Materializes the folder by two workers; after an error, nothing is left in the store."""
    monkeypatch.setattr(materialize, "SMALL_BYTES", 0)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    plan = {"name": "rows", "store": str(tmp_path / "store"), "source": {"uri": "pvc://claim/shards"}}
    asked = MaterializePlan.model_validate(
        {**plan, "sourcePath": str(source), "splits": {"validation": "0%"}, "checks": {"maxRejected": "0%"}}
    )

    def run() -> DatasetResult:
        try:
            return materialize.run(asked)
        except TrainerError:
            assert not list((tmp_path / "store" / "datasets").iterdir())
            raise

    return run


def _row(number: int) -> bytes:
    return json.dumps({"text": f"text {number}"}).encode() + b"\n"


def _lines(texts: list[str | None]) -> bytes:
    """JSON Lines; None is a line that is not JSON."""
    return b"".join(b'{"text": \n' if text is None else json.dumps({"text": text}).encode() + b"\n" for text in texts)


def _parquet(texts: list[str | None]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("files", "suffix", "written", "named"),
    [
        (7000, "jsonl", _lines, "1 BrokenJson (row 7002), e.g. part-06999.jsonl:3: not JSON"),
        (500, "parquet", _parquet, "1 MissingColumn (row 502), e.g. part-00499.parquet, row 3: column text is null"),
    ],
)
@pytest.mark.faults("T7")
def test_a_broken_row_in_file_7000_is_named(
    make: Callable[[], DatasetResult],
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: int,
    suffix: str,
    written: Callable[[list[str | None]], bytes],
    named: str,
) -> None:
    """And the files are read by the workers."""
    (readers := tmp_path / "readers").mkdir()
    raw_rows = read.raw_rows

    def noted(files: list[DataFile], max_bytes: int) -> Iterator[RawRow]:
        (readers / str(os.getpid())).touch()
        return raw_rows(files, max_bytes)

    monkeypatch.setattr(read, "raw_rows", noted)
    good = written(["a text"])
    for number in range(files - 1):
        (source / f"part-{number:05}.{suffix}").write_bytes(good)
    (source / f"part-{files - 1:05}.{suffix}").write_bytes(written(["one", "two", None]))
    with pytest.raises(DataError) as caught:
        make()
    assert caught.value.code == "TooManyBadRows"
    assert named in caught.value.message
    assert {path.name for path in readers.iterdir()} - {str(os.getpid())}


@pytest.mark.parametrize("kind", ["gzip", "Parquet", "Parquet in groups"])
@pytest.mark.faults("T7")
def test_a_shard_that_ends_early_is_named(
    make: Callable[[], DatasetResult], source: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for number in range(4):
        if kind == "gzip":
            path = source / f"part-{number}.jsonl.gz"
            path.write_bytes(gzip.compress(b"".join(map(_row, range(number * 100, number * 100 + 100)))))
        else:
            path = source / f"part-{number}.parquet"
            table = pyarrow.table({"text": [f"text {number} {at}" for at in range(100)]})
            pyarrow.parquet.write_table(table, path, row_group_size=30)
    if kind == "Parquet in groups":
        monkeypatch.setattr(pieces, "BYTES", 10)
        monkeypatch.setattr(pieces, "GROUP_BYTES", 10)
    damaged = sorted(source.iterdir())[2]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as caught:
        make()
    assert caught.value.code == "DamagedFile"
    assert damaged.name in caught.value.message
    damaged.write_bytes(whole)
    assert make().rows == 400


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file grows beyond 100 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.faults("T5")
def test_a_disk_that_takes_no_more_ends_with_a_code(
    make: Callable[[], DatasetResult], source: Path, tmp_path: Path
) -> None:
    for number in range(8):
        (source / f"part-{number}.jsonl").write_bytes(b"".join(map(_row, range(number * 3000, number * 3000 + 3000))))
    with pytest.raises(OSError, match="File too large") as caught:
        make()
    assert classify(caught.value).code == "StorageError"
    assert not list((tmp_path / "store" / "datasets").iterdir())


@pytest.mark.faults("T7")
def test_a_shard_that_the_disk_cannot_read_is_named() -> None:
    """The kernel refuses to read address 0 of a process, with the error of a broken disk."""
    file = DataFile(Path("/proc/self/mem"), "shards/part-7.jsonl")
    with pytest.raises(StoreError, match=r"shards/part-7\.jsonl cannot be read: Input/output error") as caught:
        list(read_rows([file], 2**20))
    assert caught.value.code == "StorageError"
