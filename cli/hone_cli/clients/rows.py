"""Rows of a Dataset, a page at a time, as `serve-files` of a pod serves their files: never a whole file."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hone_cli.errors import CommandError
from hone_cli.reach import pod, running
from hone_cli.reach.copying import BrokenConnectionError, FileSource
from hone_cli.reach.guard import digest
from hone_cli.reach.kube import Kube
from hone_cli.reach.pod_server import UnreachableError
from hone_cli.reach.remote_files import RemoteFiles

ROWS = 20
"""Rows of a page."""
MOST_BYTES, MOST_REPORT = 8 * 2**20, 32 * 2**20
"""Bytes of a page of rows, and of a report."""
SHOWN = 4000
"""Characters of a row."""
REFUSED = {"rejected": pod.REPORT_FOLDER, "removed": pod.REPORT_FOLDER}
"""Files of rows that are in no split."""


@dataclass(frozen=True)
class RowsPage:
    """Rows that follow each other."""

    rows: list[str]
    next: int | None
    """Where the next page begins; None: this is the last one."""


@contextlib.contextmanager
def opened(kube: Kube, dataset: Mapping[str, Any]) -> Iterator[FileSource]:
    """The folders of a Dataset, served by a pod that is deleted at the end.

    Raises:
        CommandError: nothing was read yet, or the pod cannot run.
    """
    token = secrets.token_urlsafe(32)
    with running.reached(kube, running.create(kube, pod.rows_pod(dataset, digest(token)))) as tunnel:
        yield RemoteFiles(tunnel.url, token)


def page(source: FileSource, name: str, offset: int) -> RowsPage:
    """Rows of a split, or those that are rejected or removed, from a byte of the file on.

    Raises:
        MissingFileError: there are none.
        UnreachableError: the pod does not answer.
        CommandError: a row is longer than a page may be.
    """
    path = f"{REFUSED.get(name, pod.ROWS_FOLDER)}/{name}.jsonl"
    taken = _read(source, path, offset, MOST_BYTES, lines=ROWS)
    *whole, rest = taken.split(b"\n")
    if rest and len(taken) < MOST_BYTES and len(whole) < ROWS:  # the last line of a file without a line end
        whole.append(rest)
    rows = whole[:ROWS]
    if not rows and taken:
        raise CommandError(f"the next row of {name} is longer than {MOST_BYTES >> 20} MiB: it is not shown")
    used = sum(len(row) + 1 for row in rows)
    return RowsPage([shown(row) for row in rows], offset + used if used < len(taken) else None)


def report(source: FileSource) -> bytes:
    """The report page.

    Raises:
        MissingFileError: there is none.
        UnreachableError: the pod does not answer.
        CommandError: it is too large for a browser.
    """
    text = _read(source, f"{pod.REPORT_FOLDER}/report.html", 0, MOST_REPORT)
    if len(text) >= MOST_REPORT:
        raise CommandError(f"the report is larger than {MOST_REPORT >> 20} MiB")
    return text


def shown(line: bytes) -> str:
    """A row for people: indented, with the characters that it stands for."""
    text = line.decode("utf-8", "replace")
    with contextlib.suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), indent=1, ensure_ascii=False)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} … ({len(text):,} characters)"


def _read(source: FileSource, path: str, offset: int, most: int, lines: int | None = None) -> bytes:
    """Bytes from an offset to the end, to `most`, or to a byte after so many lines."""
    taken = bytearray()
    ends = 0
    try:
        for piece in source.read(path, offset):
            taken += piece
            ends += piece.count(b"\n")
            if len(taken) >= most or (lines and (ends > lines or (ends == lines and not taken.endswith(b"\n")))):
                break
    except BrokenConnectionError as error:
        raise UnreachableError(f"the pod does not answer: {error}") from None
    return bytes(taken[:most])
