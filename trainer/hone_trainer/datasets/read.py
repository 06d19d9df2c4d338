"""Files to raw rows, one at a time: JSON Lines, a JSON array, CSV, TSV, Parquet, Arrow, text, Markdown.

Each may be packed by gzip or zstd. Packers, Parquet, Arrow and JSON arrays are known by their first bytes, the rest by
the file's name; anything else is JSON Lines.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from hone_trainer.datasets import columnar, packed
from hone_trainer.datasets.packed import Stream, base_name, seekable, unpacked
from hone_trainer.datasets.rows import DECODER, RawRow, RowError, strict_json, type_name

MAX_ROW_BYTES = 16 * 2**20
_BOM = b"\xef\xbb\xbf"
_NO_ROWS = {
    "a web page": (b"<!doctype", b"<html", b"<?xml"),
    "a PDF": (b"%pdf-",),
    "a zip archive": (b"pk\x03\x04",),
    "a pointer of Git LFS, not the file": (b"version https://git-lfs",),
    "JSON objects over several lines: write each on one line, or all as one array": (b"{\n", b"{\r\n"),
}


class DataFile(NamedTuple):
    """A local file and the name that people know it by, relative to its source."""

    path: Path
    name: str


class _Item(NamedTuple):
    """A row of one file: where in it, and its value or error."""

    where: str
    value: Any = None
    error: RowError | None = None


def read_rows(files: list[DataFile], max_bytes: int) -> Iterator[RawRow]:
    """All rows of all files in order. Memory does not grow with the files.

    Args:
        max_bytes: bound on the unpacked bytes of all files.

    Raises:
        SourceError: SourceTooLarge.
    """
    number = 0
    for file in files:
        for item in _read_file(file, max_bytes):
            number += 1
            yield _raw_row(number, f"{file.name}{item.where}", item)


def _raw_row(number: int, place: str, item: _Item) -> RawRow:
    if item.error is None and not isinstance(item.value, dict):
        return RawRow(number, place, error=RowError("WrongType", f"the row is {type_name(item.value)}, not an object"))
    return RawRow(number, place, item.value, item.error)


def _read_file(file: DataFile, max_bytes: int) -> Iterator[_Item]:
    with unpacked(file.path, max_bytes, file.name) as stream:
        try:
            head = stream.peek(512)[:512]
            if head.startswith((b"PAR1", b"ARROW1", columnar.STREAM_MARK)):
                yield from _columns(file, stream, head)
                return
            if head.startswith(_BOM):
                stream.read(len(_BOM))
            if what := _no_rows(head.removeprefix(_BOM)):
                yield _Item("", error=RowError("NotRows", f"the file is {what}"))
                return
            yield from _reader(file.name, stream)(stream)
        except packed.DamagedError as error:
            yield _Item("", error=RowError("BrokenFile", str(error)))


def _columns(file: DataFile, stream: Stream, head: bytes) -> Iterator[_Item]:
    """Rows of a Parquet or Arrow file; a packed one is unpacked beside it, since their index is at their end."""
    read = columnar.parquet if head.startswith(b"PAR1") else columnar.arrow_file
    try:
        if head.startswith(columnar.STREAM_MARK):
            yield from _numbered(columnar.arrow_stream(stream))
        elif _starts_with(file.path, head[:4]):
            with open(file.path, "rb") as plain:
                yield from _numbered(read(plain))
        else:
            with seekable(stream, file.path.parent) as copy:
                yield from _numbered(read(copy))
    except columnar.DamagedError as error:
        yield _Item(f", row {error.row}", error=RowError("BrokenFile", str(error)))


def _numbered(rows: Iterator[Any]) -> Iterator[_Item]:
    for number, value in enumerate(rows, 1):
        yield _Item(f", row {number}", value)


def _reader(name: str, stream: Stream) -> Callable[[Stream], Iterator[_Item]]:
    suffix = PurePath(base_name(name)).suffix
    by_name = {".csv": _csv, ".tsv": _tsv, ".txt": _paragraphs, ".md": _document}
    if suffix in by_name:
        return by_name[suffix]
    return _json_array if stream.peek(64)[:64].lstrip()[:1] == b"[" else _json_lines


def _no_rows(head: bytes) -> str | None:
    """What a file is that begins so, when it can hold no rows."""
    start = head.lstrip()[:64].lower()
    for kind, marks in _NO_ROWS.items():
        if start.startswith(marks):
            return kind
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:64]:
        return "UTF-16 text, or not text at all"
    return None


def _json_lines(stream: Stream) -> Iterator[_Item]:
    for line, data in _lines(stream):
        if isinstance(data, RowError):
            yield _Item(f":{line}", error=data)
        elif data.strip():
            yield _parsed(f":{line}", data)


def _lines(stream: Stream) -> Iterator[tuple[int, bytes | RowError]]:
    """Lines with their numbers; a line over the limit is skipped without being held."""
    line = 0
    while data := stream.readline(MAX_ROW_BYTES + 1):
        line += 1
        if len(data) <= MAX_ROW_BYTES:
            yield line, data
            continue
        while data and not data.endswith(b"\n"):
            data = stream.readline(MAX_ROW_BYTES)
        yield line, RowError("RowTooLarge", f"the line is over {MAX_ROW_BYTES} bytes")


def _parsed(where: str, data: bytes) -> _Item:
    try:
        return _Item(where, strict_json(data.decode()))
    except UnicodeDecodeError as error:
        return _Item(where, error=RowError("NotUTF8", f"not UTF-8 at byte {error.start + 1} of the line"))
    except json.JSONDecodeError as error:
        return _Item(where, error=RowError("BrokenJson", f"not JSON: {error.msg} at column {error.colno}"))
    except ValueError as error:
        return _Item(where, error=RowError("BrokenJson", f"not JSON: {error}"))


_CHUNK = 2**16
_SEPARATORS = set(" \t\r\n,")


def _json_array(stream: Stream) -> Iterator[_Item]:
    """Elements of one JSON array. After an element that is not JSON the rest of the file cannot be told apart."""
    reader = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape")
    text, at, chunk, row, ended = reader.read(_CHUNK).lstrip()[1:], 0, _CHUNK, 1, False
    while True:
        while text[at : at + 1] in _SEPARATORS:
            at += 1
        if text[at : at + 1] == "]":
            return
        try:
            value, end = DECODER.raw_decode(text, at)
            reason = ""
        except (ValueError, RecursionError) as error:
            end, reason = len(text), f"not JSON: {error}" if text[at:] else "the array does not end"
        if not reason and (end < len(text) or ended):  # at the end of a chunk it may go on in the next
            yield _Item(f", row {row}", value)
            row, at, chunk = row + 1, end, _CHUNK
        elif ended or len(text) - at > MAX_ROW_BYTES:
            reason = reason if ended else f"the element is over {MAX_ROW_BYTES} bytes"
            yield _Item(f", row {row}", error=RowError("BrokenFile", f"{reason}; the rest of the file is not read"))
            return
        else:
            more = reader.read(chunk)
            text, at, chunk, ended = text[at:] + more, 0, chunk * 2, not more


def _csv(stream: Stream, delimiter: str = ",") -> Iterator[_Item]:
    csv.field_size_limit(MAX_ROW_BYTES)
    # Bytes that are not UTF-8 become lone surrogates here, which `text_of` refuses row by row.
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Item(f":{reader.line_num}", error=RowError("BrokenCsv", str(error)))
            continue
        if not fields:
            continue
        if header is None:
            header = [name.strip() for name in fields]
            if repeated := {name for name in header if header.count(name) > 1}:
                message = f"the header names {', '.join(sorted(repeated))[:100]!r} more than once"
                yield _Item(f":{reader.line_num}", error=RowError("BrokenFile", message))
                return
        elif len(fields) != len(header):
            message = f"{len(fields)} fields, the header has {len(header)}"
            yield _Item(f":{reader.line_num}", error=RowError("BrokenCsv", message))
        else:
            yield _Item(f":{reader.line_num}", dict(zip(header, fields, strict=True)))


def _tsv(stream: Stream) -> Iterator[_Item]:
    return _csv(stream, delimiter="\t")


def _paragraphs(stream: Stream) -> Iterator[_Item]:
    """A row per paragraph: lines up to a blank one."""
    block: list[bytes] = []
    start = 1
    for line, data in _lines(stream):
        if isinstance(data, RowError):
            yield _Item(f":{line}", error=data)
        elif data.strip():
            start = start if block else line
            block.append(data)
            if sum(map(len, block)) < MAX_ROW_BYTES:
                continue
        if block:
            yield _text(f":{start}", b"".join(block))
            block = []
    if block:
        yield _text(f":{start}", b"".join(block))


def _document(stream: Stream) -> Iterator[_Item]:
    """The whole file is one row."""
    data = stream.read(MAX_ROW_BYTES + 1)
    if len(data) > MAX_ROW_BYTES:
        yield _Item("", error=RowError("RowTooLarge", f"the document is over {MAX_ROW_BYTES} bytes"))
    elif data.strip():
        yield _text("", data)


def _text(where: str, data: bytes) -> _Item:
    return _Item(where, {"text": data.decode("utf-8", "surrogateescape").replace("\r\n", "\n").strip("\n")})


def _starts_with(path: Path, magic: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic
