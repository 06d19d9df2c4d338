"""Files to raw rows, one at a time: JSON Lines, a JSON array, CSV, TSV, Parquet, Arrow, text, Markdown.

Each may be packed by gzip, zstd, bzip2 or xz. Packers, Parquet, Arrow and JSON arrays are known by their first bytes,
the rest by the file's name; anything else is JSON Lines.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from hone_api.words.failures import FailureCode
from hone_trainer.datasets.readers import columnar, compression, delimited, json_array, paragraphs
from hone_trainer.datasets.readers.columnar import Table
from hone_trainer.datasets.readers.compression import Stream, base_name, seekable, unpacked
from hone_trainer.datasets.readers.items import MAX_ROW_BYTES, Item, broken, lines, too_large
from hone_trainer.datasets.readers.remote import OriginFiles
from hone_trainer.datasets.readers.rows import RawRow, RowError, strict_json, type_name
from hone_trainer.errors import SourceError, StoreError

Reader = Callable[[Stream], Iterator[Item]]
_BOM = b"\xef\xbb\xbf"
_NO_ROWS = {
    "a web page": (b"<!doctype", b"<html", b"<?xml"),
    "a PDF": (b"%pdf-",),
    "a zip archive: unpack it, or pack the rows by gzip, zstd, bzip2 or xz": (b"pk\x03\x04",),
    "an Excel workbook of before 2007: save the sheet as CSV (UTF-8)": (b"\xd0\xcf\x11\xe0",),
    "a pointer of Git LFS, not the file": (b"version https://git-lfs",),
    "JSON objects over several lines: write each on one line, or all as one array; of one object with the rows in a"
    " list, write the list alone, e.g. jq .data rows.json": (b"{\n",),
}
_OFFICE = {
    "an Excel workbook: save the sheet as CSV (UTF-8)": ((".xlsx", ".xlsm"), b"xl/"),
    "a Word document: save it as text": ((".docx",), b"word/"),
}
"""Suffixes and a member: the first members of the archive may be others."""
_DOCUMENTS = (".txt", ".md")
_PEEKED = 4096
_SHORTEST = 7
"""Bytes of the shortest row: {"a":1}."""
_COLUMNAR_MARKS = (b"PAR1", b"ARROW1", columnar.STREAM_MARK)
_COLUMNAR = (".parquet", ".arrow", ".feather")


class DataFile(NamedTuple):
    """A file and the name that people know it by, relative to its source."""

    path: Path
    name: str
    version: str = ""
    """Of its content: another content has another one. Empty: unknown."""
    origin: OriginFiles | None = None
    """Where it is read from; None: the path is it. Else temporary files may be next to the path."""
    key: Any = None
    """What the origin knows it by."""

    @property
    def size(self) -> int:
        """Bytes.

        Raises:
            OSError: it is not there.
        """
        return int(self.key.size) if self.origin else self.path.stat().st_size

    def open(self, end: int | None = None) -> io.BufferedReader[Any]:
        """Its bytes, as a seekable file.

        Args:
            end: bytes from here on are not wanted; None: all are.

        Raises:
            OSError: it cannot be read.
            SourceError: while a remote file is read; see `OriginFiles.open`.
        """
        return self.origin.open(self.name, self.key, end) if self.origin else open(self.path, "rb")


def read_rows(files: list[DataFile], max_bytes: int) -> Iterator[RawRow]:
    """As `raw_rows`, and each row is parsed."""
    return map(parsed, raw_rows(files, max_bytes))


def parsed(row: RawRow) -> RawRow:
    """The row with its value or error."""
    return row if row.line is None else raw_row(row.number, row.place, _parsed("", row.line), row.at)


def raw_rows(files: list[DataFile], max_bytes: int) -> Iterator[RawRow]:
    """All rows of all files in order; lines of JSON are left to parse. Memory does not grow with the files.

    Args:
        max_bytes: bound on the unpacked bytes of all files.

    Raises:
        SourceError: SourceTooLarge.
    """
    number = 0
    for file in files:
        for item in _read_file(file, max_bytes):
            number += 1
            yield raw_row(number, f"{file.name}{item.where}", item)


def raw_row(number: int, place: str, item: Item, at: int = 0) -> RawRow:
    """The row of an item; see `RawRow`."""
    if item.line is not None:
        return RawRow(number, place, line=item.line, at=at)
    if item.error is None and not isinstance(item.value, dict):
        error = RowError("WrongType", f"the row is {type_name(item.value)}, not an object")
        return RawRow(number, place, error=error, at=at)
    return RawRow(number, place, item.value, item.error, at=at)


@contextmanager
def named(file: DataFile) -> Iterator[None]:
    """An error of the disk is one of this file: the system names no file when it cannot read on.

    Raises:
        StoreError: StorageError.
        OSError: the disk is full: a file that is unpacked needs it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        message = f"{file.name} cannot be read: {error.strerror or error}"
        raise StoreError(FailureCode.STORAGE_ERROR, message) from None


def start_of_lines(file: DataFile) -> int | None:
    """Where the first line of a plain file of JSON Lines begins; None for any other file.

    Raises:
        StoreError: StorageError.
    """
    with named(file), file.open() as plain:
        head = plain.peek(_PEEKED)[:512]
        start = len(_BOM) if head.startswith(_BOM) else 0
        plain.seek(start)
        text = head[start:]
        if compression.is_packed(head) or head.startswith(_COLUMNAR_MARKS) or _no_rows(file.name, text):
            return None
        return start if not _misnamed(file, head) and _reader(file.name, plain) is _json_lines else None


def items_of_groups(
    file: DataFile, bound: columnar.UnpackedBound, groups: tuple[int, int], before: int
) -> Iterator[Item]:
    """Items of row groups of a Parquet file; before: rows of the file before them."""
    with file.open() as plain:
        yield from items_of_tables(file, columnar.parquet(plain, bound, groups, before))


def _read_file(file: DataFile, max_bytes: int) -> Iterator[Item]:
    with named(file), file.open() as plain:
        stream = unpacked(plain, max_bytes, file.name)
        try:
            head = stream.peek(512)[:512]
            if head.startswith(_COLUMNAR_MARKS):
                yield from items_of_tables(file, _tables(file, stream, head, max_bytes))
                return
            if head.startswith(_BOM):
                stream.read(len(_BOM))
            if what := _no_rows(file.name, head.removeprefix(_BOM)) or _json_as_text(file.name, stream):
                yield Item("", error=RowError("NotRows", f"the file is {what}"))
                return
            if what := _misnamed(file, head):
                yield broken("", what)
                return
            yield from _reader(file.name, stream)(stream)
        except compression.DamagedStreamError as error:
            yield broken("", str(error))


def _misnamed(file: DataFile, head: bytes) -> str | None:
    """Why a file whose content differs from its name counts as damaged."""
    suffix = PurePath(file.name.lower()).suffix
    if suffix in compression.SUFFIXES:
        with file.open() as plain:
            if not compression.is_packed(plain.read(8)) and not _is_text(head):
                return f"the file is named {suffix}, and is neither packed nor text"
    if (inner := PurePath(base_name(file.name)).suffix) in _COLUMNAR:
        return f"the file is named {inner}, and does not begin as one"
    return None


def _is_text(head: bytes) -> bool:
    """Whether a file that begins so can be UTF-8 text with rows; its last character may be cut."""
    text = head.decode("utf-8", "replace").rstrip("\ufffd")
    return len(head) >= _SHORTEST and all((c.isprintable() and c != "\ufffd") or c in "\t\r\n" for c in text)


def _tables(file: DataFile, stream: Stream, head: bytes, max_bytes: int) -> Iterator[Table]:
    """Those of a Parquet or Arrow file; a packed one is unpacked next to it, since the index is at the end."""
    read, bound = (
        columnar.parquet if head.startswith(b"PAR1") else columnar.arrow_file,
        columnar.UnpackedBound(max_bytes),
    )
    if head.startswith(columnar.STREAM_MARK):
        yield from columnar.arrow_stream(stream, bound)
    elif _starts_with(file, head[:4]):
        with file.open() as plain:
            yield from read(plain, bound)
    else:
        with seekable(stream, file.path.parent) as copy:
            yield from read(copy, bound)


def items_of_tables(file: DataFile, tables: Iterable[Table]) -> Iterator[Item]:
    """The rows of tables of a file.

    Raises:
        SourceError: SourceTooLarge.
    """
    try:
        for table in tables:
            yield from _items_of_table(table)
    except columnar.UnpackedTooLargeError as error:
        raise SourceError(FailureCode.SOURCE_TOO_LARGE, f"{file.name}: {error}") from None
    except columnar.DamagedFileError as error:
        yield broken(f", row {error.row}", str(error))


def _items_of_table(table: Table) -> Iterator[Item]:
    for number, value in enumerate(columnar.values(table), table.row):
        error = value if isinstance(value, RowError) else None
        yield Item(f", row {number}", None if error else value, error)


def _reader(name: str, stream: Stream) -> Reader:
    suffix = PurePath(base_name(name)).suffix
    by_name: dict[str, Reader] = {
        ".csv": delimited.rows,
        ".tsv": delimited.tab_separated,
        ".txt": paragraphs.rows,
        ".md": _document,
    }
    if suffix in by_name:
        return by_name[suffix]
    return json_array.rows if stream.peek(64)[:64].lstrip()[:1] == b"[" else _json_lines


def _json_as_text(name: str, stream: Stream) -> str | None:
    """What a file of documents is whose first line is JSON: read as documents, rows would be trained as written."""
    if PurePath(base_name(name)).suffix not in _DOCUMENTS:
        return None
    line = stream.peek(64)[:_PEEKED].lstrip().partition(b"\n")[0].rstrip(b",\r ")
    try:
        value = json.loads(line) if line.startswith((b"{", b"[")) else None
        is_json = bool(value) and isinstance(value[0] if isinstance(value, list) else value, dict)
    except (ValueError, RecursionError):
        is_json = (
            line.startswith((b'{"', b'[{"')) and len(line) >= _PEEKED // 2
        )  # it goes on, maybe over all of the file
    return "JSON under the name of a text file: name it .jsonl, or .json where it is one array" if is_json else None


def _no_rows(name: str, head: bytes) -> str | None:
    """What a file is that begins so, when it can hold no rows."""
    start = head.lstrip()[:64].lower()
    if start.startswith(b"pk\x03\x04"):
        for kind, (suffixes, member) in _OFFICE.items():
            if member in head or name.lower().endswith(suffixes):
                return kind
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it"
    first, end, _ = start.partition(b"\n")
    if end and first.rstrip() == b"{":
        start = b"{\n"
    for kind, marks in _NO_ROWS.items():
        if start.startswith(marks):
            return kind
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or _is_half_nul(head[:64]) or _is_binary(head[:64]):
        return "UTF-16 text (save it as UTF-8), or not text at all"
    return None


def _is_half_nul(head: bytes) -> bool:
    """Whether text begins so that has a NUL for each letter, as UTF-16 has; one in a row is that row's mistake."""
    text = head.rstrip(b"\0") or head
    return 0 < len(text) <= 4 * text.count(0)


def _is_binary(head: bytes) -> bool:
    """Whether no line of text begins so: a NUL, and bytes that are not UTF-8."""
    line = head.partition(b"\n")[0]
    try:
        codecs.getincrementaldecoder("utf-8")().decode(line)  # the last letter may go on
    except UnicodeDecodeError:
        return b"\0" in line
    return False


def _json_lines(stream: Stream) -> Iterator[Item]:
    for line, data in lines(stream):
        if (item := item_of_line(line, data)) is not None:
            yield item


def item_of_line(line: int, data: bytes | RowError) -> Item | None:
    """The item of a line of JSON Lines; None for a blank one."""
    if isinstance(data, RowError):
        return Item(f":{line}", error=data)
    data = data.removeprefix(_BOM)  # concatenated files each begin with a byte order mark
    return Item(f":{line}", line=data) if data.strip() else None


def _parsed(where: str, data: bytes) -> Item:
    try:
        return Item(where, strict_json(data.decode()))
    except UnicodeDecodeError as error:
        return Item(where, error=RowError("NotUTF8", f"not UTF-8 at byte {error.start + 1} of the line"))
    except json.JSONDecodeError as error:
        if data.rstrip(b"\r\n").endswith(b"\0"):
            what = "ends with NUL bytes" if data.strip(b"\0\r\n") else "is NUL bytes alone"
            return Item(where, error=RowError("BrokenJson", f"the line {what}: the file was cut or padded"))
        lines = " (the line has carriage returns in it: end lines with \\n)" if b"\r" in data.strip() else ""
        what = error.msg.removesuffix(" at")  # "Invalid control character at", as in a line that was cut
        return Item(where, error=RowError("BrokenJson", f"not JSON: {what} at column {error.colno}{lines}"))
    except ValueError as error:
        return Item(where, error=RowError("BrokenJson", f"not JSON: {error}"))


def _document(stream: Stream) -> Iterator[Item]:
    """The whole file is one row."""
    data = stream.read(MAX_ROW_BYTES + 1)
    if len(data) > MAX_ROW_BYTES:
        yield too_large("", "the document")
    elif data.strip():
        yield paragraphs.item_of_text("", data)


def _starts_with(file: DataFile, magic: bytes) -> bool:
    with file.open() as plain:
        return plain.read(len(magic)) == magic
