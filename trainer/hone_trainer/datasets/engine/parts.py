"""A part: the checked rows of one piece of a source, as a Parquet file. A part that exists is done.

Its name has a hash of everything that its rows depend on, and a checksum of the file; it is renamed to it when it is
complete. So a part of an earlier attempt, or of another pod, is taken as it is, and what else is in the folder goes.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from hone_api.words.failures import FailureCode
from hone_trainer.datasets.engine.arrays import column as as_array
from hone_trainer.errors import StoreError

GROUP_ROWS, GROUP_BYTES = 16_384, 8 * 2**20
"""Of a row group, which is written and read at once."""
_ABOUT = b"hone"
_COPY = 2**20
_LOOK_SECONDS = 2.0
_NAME = re.compile(r"(?P<index>\d{6,})-(?P<key>[0-9a-f]{32})-(?P<sum>[0-9a-f]{8})\.parquet")
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
    """

    def __init__(self, folder: Path, index: int, key: str, schema: Any, is_kept: bool) -> None:
        import pyarrow.parquet

        self._folder, self._index, self._key, self._is_kept = folder, index, key, is_kept
        self._schema = schema
        self._unfinished = folder / f"{index:06}.unfinished-{uuid.uuid4().hex}"
        self._file = open(self._unfinished, "wb")  # noqa: SIM115 - closed by `__exit__`
        plain = [field.name for field in schema if field.name not in ("code", "label", "stratum", "roles", "part")]
        self._writer = pyarrow.parquet.ParquetWriter(
            self._file,
            schema,
            compression="zstd",
            compression_level=1,
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
        checksum = _checksum(self._unfinished) if self._is_kept else 0
        path = self._folder / f"{self._index:06}-{self._key}-{checksum:08x}.parquet"
        self._unfinished.rename(path)
        return CheckedPart(self._index, path, **about)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            with suppress(Exception):
                self._writer.close()
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                self._unfinished.unlink(missing_ok=True)


def opened(path: Path, index: int) -> CheckedPart:
    """The part of a file."""
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_metadata(path).metadata
    return CheckedPart(index, path, **json.loads(metadata[_ABOUT]))


class PartFolder:
    """The folder of all parts of a source.

    Args:
        identity: of what rows depend on besides their piece; empty: nothing is kept for another attempt.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity
        path.mkdir(parents=True, exist_ok=True)
        self.look()

    def look(self) -> None:
        """See what is there by now."""
        files = self.path.iterdir() if self.identity else ()
        self._found = {match["key"]: one for one in files if (match := _NAME.fullmatch(one.name))}
        self._looked = time.monotonic()

    def look_again(self) -> None:
        """See what other pods have made, from time to time."""
        if time.monotonic() > self._looked + _LOOK_SECONDS:
            self.look()

    def key(self, about: Any) -> str:
        """Of a part, by what is known of its piece."""
        return hashlib.sha256(json.dumps([self.identity, about]).encode()).hexdigest()[:32]

    def part(self, index: int, key: str) -> CheckedPart | None:
        """The part of an earlier attempt, if it is what was written."""
        if (path := self._found.get(key)) is None:
            return None
        with suppress(OSError, ValueError, TypeError, KeyError):
            if f"{_checksum(path):08x}" == path.stem.rpartition("-")[2]:
                return opened(path, index)
        path.unlink(missing_ok=True)
        return None

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Name another attempt as the reason when a part of the folder has gone in the block.

        Raises:
            StoreError: StorageError.
        """
        try:
            yield
        except FileNotFoundError as error:
            if str(self.path) not in str(error):
                raise
            message = (
                f"another attempt at this Dataset runs, and removed rows from {self.path} that this one had checked"
            )
            raise StoreError(FailureCode.STORAGE_ERROR, message) from error

    def remove_others(self, parts: Sequence[CheckedPart]) -> None:
        """Remove what belongs to no part."""
        names = {part.path.name for part in parts}
        for path in self.path.iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)


def _checksum(path: Path) -> int:
    total = 0
    with open(path, "rb") as file:
        while data := file.read(_COPY):
            total = zlib.crc32(data, total)
    return total
