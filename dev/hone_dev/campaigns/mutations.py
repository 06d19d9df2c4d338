"""`python -m hone_dev.campaigns.mutations`: damaged files against the trainer's readers; prints what became of them.

Each file is flipped, cut or doubled at a place that its seed decides. No reader may crash, and no row may vanish: what
an independent reading of the damaged file finds is valid, rejected, or hidden by an item that fails the whole Dataset.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import random
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hone_trainer.datasets.readers.read import DataFile, read_rows
from hone_trainer.datasets.readers.rows import RawRow
from hone_trainer.errors import SourceError

ROWS = 40
HIDES_ROWS = ("BrokenFile", "NotRows")
_BYTES = b'",\n\t\0[]{}\\\xff'


class Form(NamedTuple):
    """A kind of file: its name, its bytes, and how many rows an independent reading finds in damaged ones."""

    name: str
    content: Callable[[], bytes]
    rows_in: Callable[[bytes], int | None]
    """None: that reading finds no way to tell, so that the reader must say the file is damaged."""


def mutated(content: bytes, seed: int) -> bytes:
    """The content with bytes flipped or replaced, cut off, cut out, or doubled."""
    rng, data = random.Random(seed), bytearray(content)
    at = rng.randrange(len(data))
    match seed % 5:
        case 0:
            for _ in range(rng.choice((1, 1, 2, 8, 32))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            data[at] = rng.choice(_BYTES)
        case 2:
            del data[at:]
        case 3:
            del data[at : at + rng.randrange(1, 200)]
        case _:
            data[at:at] = data[at : at + rng.randrange(1, 200)]
    return bytes(data)


def campaign(form: Form, seeds: range) -> tuple[Counter[str], list[str]]:
    """What became of the mutations by kind, and the broken promises: seed and reason each."""
    counts: Counter[str] = Counter()
    broken: list[str] = []
    content = form.content()
    with tempfile.TemporaryDirectory(prefix="hone-mutations-") as folder:
        path = Path(folder) / "file"
        for seed in seeds:
            damaged = mutated(content, seed)
            path.write_bytes(damaged)
            try:
                rows = list(read_rows([DataFile(path, form.name)], 2**30))
            except SourceError as error:  # more than the bounds of a source: the Dataset fails with this code
                counts[f"refused as {error.code}"] += 1
                continue
            except Exception as error:
                counts["crashed"] += 1
                broken.append(f"seed {seed}: {type(error).__name__}: {error}"[:200])
                continue
            kind, problem = _verdict(rows, form.rows_in(damaged))
            counts[kind] += 1
            counts["rows valid"] += sum(row.error is None for row in rows)
            counts["rows rejected"] += sum(row.error is not None for row in rows)
            if problem:
                broken.append(f"seed {seed}: {problem}")
    return counts, broken


def _verdict(rows: list[RawRow], expected: int | None) -> tuple[str, str | None]:
    codes = [row.error.code for row in rows if row.error]
    if any(code in HIDES_ROWS for code in codes):
        return "damage named", None
    if expected is None:
        return "damage missed", f"{len(rows)} rows of a file that cannot be read to its end"
    valid = len(rows) - len(codes)
    if not valid <= expected <= len(rows):
        return "rows lost", f"{valid} rows valid and {len(codes)} rejected of {expected}"
    return ("rows rejected alone" if codes else "all rows read"), None


def _row(number: int) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": f"What is {number}?"},
        {"role": "assistant", "content": "é" * (number % 7 + 1)},
    ]
    return {"n": number, "messages": turns, "args": {"city": "Oslo"} if number % 2 else {"unit": "C"}}


def _json_lines() -> bytes:
    return b"".join(json.dumps(_row(n), ensure_ascii=False).encode() + b"\n" for n in range(ROWS))


def _json_array() -> bytes:
    return json.dumps([_row(n) for n in range(ROWS)], indent=1).encode()


def _delimited(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(("prompt", "completion"))
    for n in range(ROWS):
        answer = (f"It is {n}", f'say "{n}", twice', f"first {n}\nsecond")[n % 3]
        writer.writerow((f"What is {n}?", answer))
    return text.getvalue().encode()


def _text() -> bytes:
    return b"".join(b"Paragraph %d,\nof two lines.\n\n" % n for n in range(ROWS))


def _table() -> Any:
    import pyarrow

    return pyarrow.Table.from_pylist([_row(n) for n in range(ROWS)])


def _parquet() -> bytes:
    import pyarrow.parquet

    target = io.BytesIO()
    pyarrow.parquet.write_table(_table(), target, row_group_size=16)
    return target.getvalue()


def _arrow(new: str) -> bytes:
    import pyarrow.ipc

    target, table = io.BytesIO(), _table()
    with getattr(pyarrow.ipc, new)(target, table.schema) as writer:
        writer.write_table(table, max_chunksize=16)
    return target.getvalue()


def _zstd() -> bytes:
    import pyarrow

    target = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(target, "zstd") as stream:
        stream.write(_json_lines())
    return bytes(target.getvalue().to_pybytes())


def _lines_in(data: bytes) -> int:
    return sum(bool(line.strip()) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"))


def _elements_in(data: bytes) -> int | None:
    try:
        return len(json.loads(data.decode("utf-8", "surrogateescape")))
    except (ValueError, TypeError):
        # Without its first bracket the file is read as JSON Lines.
        return None if data.lstrip()[:1] == b"[" else _lines_in(data)


def _records_in(data: bytes, delimiter: bytes) -> int | None:
    """Records after the header by RFC 4180: a line end within quotes ends no record."""
    records, empty, mark = 0, True, delimiter[0]
    quoted = closed = False
    opening = True
    for byte in data:
        if byte == 34 and (quoted or opening or closed):
            quoted, closed, empty, opening = not quoted, quoted, False, False
            continue
        if byte == 10 and not quoted:
            records, empty = records + (not empty), True
        elif byte != 13:
            empty = False
        opening, closed = byte in (mark, 10) and not quoted, False
    return None if quoted else max(records + (not empty) - 1, 0)


def _paragraphs_in(data: bytes) -> int:
    blank, paragraphs = True, 0
    for line in data.split(b"\n"):
        paragraphs += blank and bool(line.strip())
        blank = not line.strip()
    return paragraphs


def _unpacked_by(
    unpack: Callable[[bytes], bytes], errors: tuple[type[Exception], ...]
) -> Callable[[bytes], int | None]:
    def rows_in(data: bytes) -> int | None:
        try:
            return _lines_in(unpack(data))
        except errors:
            return None

    return rows_in


def _unzstd(data: bytes) -> bytes:
    import pyarrow

    return bytes(pyarrow.CompressedInputStream(pyarrow.BufferReader(data), "zstd").read())


def _bunzip(data: bytes) -> bytes:
    """By one decompressor: what follows its stream is damage."""
    stream = bz2.BZ2Decompressor()
    unpacked = stream.decompress(data)
    if not stream.eof or stream.unused_data:
        raise ValueError("not one stream")
    return unpacked


def _unxz(data: bytes) -> bytes:
    stream = lzma.LZMADecompressor()
    unpacked = stream.decompress(data)
    if not stream.eof or stream.unused_data:
        raise EOFError("not one stream")
    return unpacked


FORMS = {
    "JSON Lines": Form("f.jsonl", _json_lines, _lines_in),
    "JSON array": Form("f.json", _json_array, _elements_in),
    "CSV": Form("f.csv", lambda: _delimited(","), lambda data: _records_in(data, b",")),
    "TSV": Form("f.tsv", lambda: _delimited("\t"), lambda data: _records_in(data, b"\t")),
    "text": Form("f.txt", _text, _paragraphs_in),
    "Parquet": Form("f.parquet", _parquet, lambda _: ROWS),
    "Arrow file": Form("f.arrow", lambda: _arrow("new_file"), lambda _: ROWS),
    "Arrow stream": Form("f.arrow", lambda: _arrow("new_stream"), lambda _: ROWS),
    "gzip": Form(
        "f.jsonl.gz",
        lambda: gzip.compress(_json_lines(), mtime=0),
        _unpacked_by(gzip.decompress, (OSError, EOFError, zlib.error)),
    ),
    "bzip2": Form("f.jsonl.bz2", lambda: bz2.compress(_json_lines()), _unpacked_by(_bunzip, (OSError, ValueError))),
    "xz": Form("f.jsonl.xz", lambda: lzma.compress(_json_lines()), _unpacked_by(_unxz, (lzma.LZMAError, EOFError))),
    "zstd": Form("f.jsonl.zst", _zstd, _unpacked_by(_unzstd, (OSError,))),
}


def main(arguments: list[str] | None = None) -> int:
    """Print a line a form; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m hone_dev.campaigns.mutations", description=__doc__)
    parser.add_argument("forms", nargs="*", metavar="FORM", help=f"{', '.join(FORMS)}; default: all")
    parser.add_argument("--count", type=int, default=2000, help="mutations a form; default 2000")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; default 0")
    options = parser.parse_args(arguments)
    failed = False
    for name in options.forms or FORMS:
        counts, broken = campaign(FORMS[name], range(options.seed, options.seed + options.count))
        print(f"{name}: {options.count} mutations: " + ", ".join(f"{n:,} {kind}" for kind, n in sorted(counts.items())))
        for problem in broken[:20]:
            print(f"  {problem}")
        failed |= bool(broken)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
