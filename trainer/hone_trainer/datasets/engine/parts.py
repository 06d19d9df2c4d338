"""A part: the checked rows of one piece of a source, as a Parquet file in a `PartFolder`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from hone_api.words.failures import FailureCode
from hone_trainer.datasets.engine.arrays import column as as_array
from hone_trainer.errors import StoreError
from hone_trainer.store import part_folder
from hone_trainer.store.part_folder import PartFolder

GROUP_ROWS, GROUP_BYTES = 16_384, 8 * 2**20
"""Of a row group, which is written and read at once."""
_ABOUT = b"hone"
Values = dict[str, Any]


class CheckedPart(NamedTuple):
    """A part that is done."""

    number: int
    """Among all parts of the source, from 0: their order is that of the rows."""
    path: Path
    rows: int
    valid: int
    """Rows that are not refused."""
    file: str
    """The file that it is of, or the first one."""
    is_first: bool
    """Whether it begins its file."""
    lines: int = 0
    """Of a range of lines."""
    unpacked: int = 0
    """Bytes of row groups that were read for it."""
    is_broken: bool = False
    """Whether the rest of its file is unknown: the parts after it that go on with the file have no rows."""


class PartWriter:
    """Writes a part by row groups; its file is there under its name once all went well.

    Args:
        schema: a `pyarrow.Schema`.
        is_kept: whether the name has a checksum, for another attempt.
        is_packed: whether lines are compressed; of a small source, the time counts and not the room.
    """

    def __init__(self, folder: Path, index: int, key: str, schema: Any, is_kept: bool, is_packed: bool = True) -> None:
        import pyarrow.parquet

        self._index, self._key, self._schema, self._is_kept = index, key, schema, is_kept
        self._unfinished = part_folder.unfinished(folder, index)
        self._file = open(self._unfinished, "wb")  # noqa: SIM115 - closed by `__exit__`
        plain = [field.name for field in schema if field.name not in ("code", "label", "stratum", "roles", "part")]
        self._writer = pyarrow.parquet.ParquetWriter(
            self._file,
            schema,
            compression="zstd" if is_packed else "none",
            compression_level=1 if is_packed else None,
            use_dictionary=[field.name for field in schema if field.name not in plain],
            write_statistics=False,
        )

    def __enter__(self) -> PartWriter:
        return self

    def write(self, columns: Sequence[Any]) -> None:
        """Add a row group: an array or a list of values for each field of the schema."""
        import pyarrow

        arrays = [
            column if isinstance(column, pyarrow.Array) else as_array(column, field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_batch(pyarrow.record_batch(arrays, schema=self._schema))

    def finish(self, about: Values) -> CheckedPart:
        """The part, with the fields of `CheckedPart` besides index and path."""
        self._writer.add_key_value_metadata({_ABOUT: json.dumps(about).encode()})
        self._writer.close()
        self._file.close()
        path = part_folder.finish(self._unfinished, self._key, ".parquet", is_kept=self._is_kept)
        return CheckedPart(self._index, path, **about)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            with suppress(Exception):
                self._writer.close()
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._unfinished.unlink(missing_ok=True)


def kept(folder: PartFolder, index: int, key: str) -> CheckedPart | None:
    """The part of an earlier attempt, or of another pod."""
    import pyarrow.parquet

    with suppress(OSError):  # another attempt has removed it
        if path := folder.intact_file(key):
            return CheckedPart(index, path, **json.loads(pyarrow.parquet.read_metadata(path).metadata[_ABOUT]))
    return None


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Name another attempt as the reason when a part of the folder has gone in the block.

    Raises:
        StoreError: StorageError.
    """
    try:
        yield
    except FileNotFoundError as error:
        if str(folder) not in str(error):
            raise
        message = f"another attempt at this Dataset runs, and removed rows from {folder} that this one had checked"
        raise StoreError(FailureCode.STORAGE_ERROR, message) from error
