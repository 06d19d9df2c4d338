"""The checked rows of a source; an earlier attempt may have kept some of them."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from importlib import metadata
from pathlib import Path

import hone_api
from hone_api.plan import MaterializePlan
from hone_trainer.datasets import pieces, stored_rows
from hone_trainer.datasets.checked import Checked, PieceCheck, RefusedRow, placed
from hone_trainer.datasets.downloads import CHECKED
from hone_trainer.datasets.journal import Journal, PartWriter
from hone_trainer.datasets.pieces import Piece
from hone_trainer.datasets.read import DataFile
from hone_trainer.datasets.rows import RawRow
from hone_trainer.datasets.shipping import Shipped
from hone_trainer.datasets.spool import ValidRow
from hone_trainer.workers.parallel import Workers

SMALLEST = 2**30
"""Bytes of a source whose rows are kept: those of a smaller one are checked again in a minute."""
PART_BYTES = 16 * 2**20
"""Of the source whose rows are kept together."""
_ASKED = {"format", "columns", "ignore_columns", "splits", "checks", "curation", "limits"}
_OF_ALL_ROWS = {"min_rows", "max_rejected", "max_rejected_rows", "languages", "min_language_share"}
"""Checks that need no row again when they are changed."""
_ROOM = 3
"""Times the size of the source that must be free: rows take 2.1 times, and must not lack what is kept of them: half of
the size, and what steps of the curation keep."""
_CURATED = 0.4
"""Times the size of the source that steps of the curation may keep."""


def journal_of(plan: MaterializePlan, files: Sequence[DataFile], head: Sequence[RawRow]) -> Journal | None:
    """What keeps the rows of the plan's source; None where they are not worth it, or would take room from the rows.

    Args:
        head: the first rows, which show how all of them are read.
    """
    if plan.downloads_path is None or not all(file.version for file in files):
        return None
    size = sum(file.size for file in files)
    if size < SMALLEST:
        return None
    kept = Journal(Path(plan.downloads_path) / CHECKED, _identity(plan, head), int(_CURATED * size))
    kept.is_full = shutil.disk_usage(plan.downloads_path).free < _ROOM * size
    stored_rows.load()
    return kept


def rows(
    checks: PieceCheck, files: Sequence[DataFile], workers: Workers, journal: Journal | None
) -> Iterator[ValidRow | RefusedRow]:
    """The rows of the files as `PieceCheck.rows`, and those that the journal has without reading them.

    Raises:
        SourceError, StoreError: as `read.raw_rows`.
    """
    if journal is None:
        return checks.rows(checks.shared(files, workers), workers)
    return placed(_checked(checks, files, workers, journal), checks.max_bytes)


def _checked(
    checks: PieceCheck, files: Sequence[DataFile], workers: Workers, journal: Journal
) -> Iterator[tuple[Shipped, Checked]]:
    for is_kept, parts in itertools.groupby(_parts(pieces.pieces(files, checks.max_bytes)), journal.has):
        if is_kept:
            yield from itertools.chain.from_iterable(map(journal.items, parts))
        else:
            yield from _recorded(checks, parts, workers, journal, len(files) == 1)
    journal.remove_others()


def _recorded(
    checks: PieceCheck, parts: Iterable[list[Piece]], workers: Workers, journal: Journal, is_alone: bool
) -> Iterator[tuple[Shipped, Checked]]:
    """The items of parts that are read, and kept while their rows pass."""
    writers: deque[PartWriter] = deque()
    """Of the items that workers have."""

    def items() -> Iterator[Shipped]:
        for part in parts:
            writer = journal.writer(part)
            for piece in part:
                for item in checks.parts(piece, workers, is_alone):
                    writers.append(writer)
                    yield item

    checked = ((writers.popleft(), *taken) for taken in checks.checked(items(), workers))
    for writer, run in itertools.groupby(checked, lambda entry: entry[0]):
        with closing(writer):
            for _, item, taken in run:
                yield item, writer.kept(item, taken)
            writer.finish()


def _parts(every: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Pieces that are kept together: of one large file, or small files."""
    part: list[Piece] = []
    size = 0
    for piece in every:
        mine = _size(piece)
        goes_on = part and (piece.files == part[0].files or (piece.is_small and part[0].is_small))
        if part and (size + mine > PART_BYTES or not goes_on):
            yield part
            part, size = [], 0
        part.append(piece)
        size += mine
    if part:
        yield part


def _size(piece: Piece) -> int:
    """Bytes, about."""
    if piece.lines:
        return piece.lines[1] - piece.lines[0]
    return pieces.GROUP_BYTES if piece.groups else sum(file.size for file in piece.files)


def _identity(plan: MaterializePlan, head: Sequence[RawRow]) -> str:
    """Of what the rows depend on besides their files: the plan, how they are read, and the code."""
    asked = plan.model_dump(mode="json", include=_ASKED, exclude={"checks": _OF_ALL_ROWS})
    first = [[row.place, row.value, row.error and str(row.error)] for row in head]
    text = json.dumps([asked, first, _code()], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _code() -> str:
    """Of the code that reads and checks rows, and of all libraries."""
    digest = hashlib.sha256(sys.version.encode())
    for folder in (Path(__file__).parent, Path(hone_api.__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    for name in sorted(f"{one.name} {one.version}" for one in metadata.distributions()):
        digest.update(name.encode())
    return digest.hexdigest()
