"""Stage one: the pieces of a source into parts, by any number of workers in any order.

Where a source is large and its files are known by their version, parts outlast the attempt: the next one makes those
alone that are missing.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

import hone_api
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.checked import Check, PartMaker
from hone_trainer.datasets.curation import Each, Global, Step
from hone_trainer.datasets.engine.parts import CheckedPart, kept
from hone_trainer.datasets.readers import pieces
from hone_trainer.datasets.readers.pieces import Piece
from hone_trainer.datasets.readers.read import DataFile
from hone_trainer.datasets.readers.rows import RawRow
from hone_trainer.datasets.sources.downloads import CHECKED
from hone_trainer.store.part_folder import PartFolder
from hone_trainer.workers.parallel import Workers
from hone_trainer.workers.pods import ALONE, Pod

SMALLEST = 64 * 2**20
"""Bytes of a source whose parts are kept, and compressed: those of a smaller one are made again in seconds."""
_ASKED = {"format", "columns", "ignore_columns", "splits", "checks", "curation", "limits"}
_OF_ALL_ROWS = {"min_rows", "max_rejected", "max_rejected_rows", "languages", "min_language_share"}
"""Checks that need no row again when they are changed."""
Task = tuple[int, str, Piece]
See = Callable[[CheckedPart, int], None]


def maker_of(
    plan: MaterializePlan,
    check: Check,
    steps: Mapping[str, Step],
    folder: PartFolder,
    files: Sequence[DataFile],
    most: int,
) -> PartMaker:
    """What makes the parts of files; most: bound on the unpacked bytes of one."""
    each = {place: step for place, step in enumerate(steps.values()) if isinstance(step, Each)}
    every = [step for step in steps.values() if isinstance(step, Global)]
    sketching = next((step.sketching for step in every if step.sketching), None)
    is_exact = plan.curation.deduplicate != "None" or bool(plan.curation.deduplicate_against)
    return PartMaker(check, plan, each, sketching, is_exact, folder, most, _size(files) >= SMALLEST)


def kept_folder(plan: MaterializePlan, files: Sequence[DataFile]) -> Path | None:
    """Where parts are kept for other pods and another attempt; None where they are not worth it."""
    if plan.downloads_path is None or not all(file.version for file in files):
        return None
    if plan.pods is None and _size(files) < SMALLEST:
        return None
    folder = Path(plan.downloads_path) / CHECKED
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def parts(
    maker: PartMaker, files: Sequence[DataFile], workers: Workers, see: See, pod: Pod = ALONE
) -> list[CheckedPart]:
    """The parts of the files that this pod does, in order; each is shown to a function, with the number of all parts.

    Raises:
        SourceError, StoreError: as `read.raw_rows`.
    """
    folder, done = maker.folder, dict[int, CheckedPart]()
    every = list(pieces.pieces(files, maker.max_bytes))

    def missing() -> Iterator[Task]:
        for index in pod.order(len(every)):
            piece = every[index]
            key = folder.key(_about(piece))
            if pod.count > 1:
                folder.look_again()
            if (part := kept(folder, index, key)) is None:
                yield index, key, piece
            else:
                done[index] = part
                see(part, len(every))

    made = workers.map(maker.make, missing())
    import duckdb  # noqa: F401 - the next stage needs it; a tenth of a second, in which the workers check rows

    for (index, *_), part in made:
        done[index] = part
        see(part, len(every))
    in_order = [done[index] for index in sorted(done)]
    if pod.count == 1:
        folder.remove_others(part.path for part in in_order)
    return in_order


def identity(plan: MaterializePlan, head: Sequence[RawRow]) -> str:
    """Of what rows depend on besides their files: the plan, how they are read, and the code."""
    asked = plan.model_dump(mode="json", include=_ASKED, exclude={"checks": _OF_ALL_ROWS})
    sets = [one.model_dump(mode="json") for one in plan.evaluation_sets]
    first = [[row.place, row.value, row.error and str(row.error)] for row in head]
    text = json.dumps([asked, sets, first, _code()], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _size(files: Sequence[DataFile]) -> int:
    return sum(file.size for file in files)


def _about(piece: Piece) -> list[object]:
    return [[[file.name, file.version] for file in piece.files], piece.lines, piece.groups, piece.row, piece.is_first]


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
