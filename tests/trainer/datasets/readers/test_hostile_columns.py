"""Parquet and Arrow files that name other files, addresses or code: pyarrow reads the file's own bytes alone.

A reader that takes the path of a file (pyarrow.dataset.parquet_dataset, say) would follow what its footer names.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from hone_trainer.datasets.readers.read import DataFile, read_rows

pytestmark = pytest.mark.pure
OWN, FOREIGN = "own row", "foreign"
ELSEWHERE = {
    "a neighbour": "foreign.parquet",
    "a path": "{folder}/foreign.parquet",
    "a file's address": "file://{folder}/foreign.parquet",
    "an address": "http://127.0.0.1:{port}/foreign.parquet",
    "a bucket": "s3://key:secret@bucket/foreign.parquet?scheme=http&endpoint_override=127.0.0.1%3A{port}",
}


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Where the addresses of hostile files lead."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def parquet_of(text: str) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": [text] * 3}), buffer, use_dictionary=False, compression="none")
    return buffer.getvalue()


def pointing_to(place: str) -> bytes:
    """A Parquet file whose footer says that its columns are in another file, of the same layout (its file_path)."""
    own, footer = parquet_of(OWN), io.BytesIO()
    metadata = pyarrow.parquet.read_metadata(io.BytesIO(own))
    metadata.set_file_path(place)
    metadata.write_metadata_file(footer)
    return own[: -8 - metadata.serialized_size] + footer.getvalue()[4:]


def texts(file: Path) -> set[str]:
    rows = read_rows([DataFile(file, file.name)], 2**20)
    return {str(row.value["text"]) if row.error is None else row.error.code for row in rows}


@pytest.mark.attack("data files")
@pytest.mark.parametrize("what", ELSEWHERE)
def test_columns_of_another_file_are_not_read(tmp_path: Path, listening: socket.socket, what: str) -> None:
    (tmp_path / "foreign.parquet").write_bytes(parquet_of(FOREIGN))
    place = ELSEWHERE[what].format(folder=tmp_path, port=listening.getsockname()[1])
    file = tmp_path / "rows.parquet"
    file.write_bytes(pointing_to(place))
    assert place.encode() in file.read_bytes()
    assert texts(file) == {OWN}
    with pytest.raises(BlockingIOError):
        listening.accept()


class Program:
    """Runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self._mark), 0o700)


@pytest.mark.attack("data files")
@pytest.mark.parametrize("form", ["Parquet", "Arrow file", "Arrow stream"])
def test_an_extension_type_that_is_a_pickle_runs_nothing(tmp_path: Path, form: str) -> None:
    """CVE-2023-47248 of pyarrow."""
    mark = tmp_path / "ran"
    extension = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Program(mark), protocol=0),
    }
    schema = pyarrow.schema([pyarrow.field("text", pyarrow.string(), metadata=extension)])
    table = pyarrow.table({"text": [OWN] * 3}, schema=schema)
    file = tmp_path / ("rows.parquet" if form == "Parquet" else "rows.arrow")
    if form == "Parquet":
        pyarrow.parquet.write_table(table, file)
    else:
        new = pyarrow.ipc.new_file if form == "Arrow file" else pyarrow.ipc.new_stream
        with new(str(file), schema) as writer:
            writer.write_table(table)
    assert b"py_extension_type" in file.read_bytes() or form == "Parquet", "there in base64"
    assert texts(file) == {OWN}
    assert not mark.exists()
    pickle.loads(extension["ARROW:extension:metadata"])
    assert mark.exists(), "it would have shown"
