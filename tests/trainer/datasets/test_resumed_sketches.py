"""Sketches of near duplicates that an attempt made before it was killed: the next one makes only the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attempts import Undisturbed, files, killed

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import batches, detect, downloads, materialize, pieces, resumed
from hone_trainer.datasets.curation import kept_sketches, near
from hone_trainer.workers import parallel

pytestmark = pytest.mark.trainer
CURATION = {"deduplicate": "Near", "personalData": "Redact"}
LATE = (materialize, "_divide", 1)
"""Where an attempt is killed once all sketches were made."""


def _write(path: Path, verb: str = "lights") -> None:
    """The verb is in the last rows."""
    rows = []
    for n in range(80):
        question = f"What does the keeper of the old tower {n % 50} do when the river {n % 7} rises in winter?"
        answer = (
            f"The keeper {verb if n > 59 else 'takes'} lamp {n % 50}, calls the town and writes to a{n}@example.org."
        )
        rows.append({"prompt": question, "completion": answer})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers for batches of a few short rows, whose sketches are larger than they are."""
    monkeypatch.setattr(resumed, "_CURATED", 9)
    monkeypatch.setattr(materialize, "SMALL_BYTES", 0)
    monkeypatch.setattr(batches, "ROWS", 4)
    monkeypatch.setattr(detect, "SAMPLE_ROWS", 20)
    monkeypatch.setattr(pieces, "BYTES", 2000)
    monkeypatch.setattr(resumed, "SMALLEST", 0)
    monkeypatch.setattr(parallel, "cores", lambda: 2)


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., MaterializePlan]:
    _write(tmp_path / "rows.jsonl")

    def make(store: str = "store", **fields: Any) -> MaterializePlan:
        (kept := tmp_path / f"{store}-kept").mkdir(exist_ok=True)
        plan = {
            "name": "rows",
            "store": str(tmp_path / store),
            "source": {"uri": "pvc://claim/rows.jsonl"},
            "sourcePath": str(tmp_path / "rows.jsonl"),
            "curation": CURATION,
            "splits": {"validation": "0%"},
            "downloadsPath": str(kept),
        }
        return MaterializePlan.model_validate({**plan, **fields})

    return make


Sketched = Callable[[], set[str]]


@pytest.fixture
def sketched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sketched:
    """Rows that any process has made a sketch of since the last call."""
    log, made = tmp_path / "sketched", near._Finder.sketches

    def sketches(self: near._Finder, rows: Any) -> Any:
        with open(log, "a") as file:
            file.write("".join(f"{row.line}\n" for row in rows))
        return made(self, rows)

    monkeypatch.setattr(near._Finder, "sketches", sketches)

    def take() -> set[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        assert len(lines) == len(set(lines))
        return set(lines)

    return take


@pytest.fixture(scope="module")
def attempts() -> Undisturbed:
    return Undisturbed()


Whole = Callable[..., tuple[dict[str, bytes], set[str]]]


@pytest.fixture
def whole(attempts: Undisturbed, plan: Callable[..., MaterializePlan], sketched: Sketched) -> Whole:
    """The files of an undisturbed attempt with these fields, and the rows that it made sketches of."""
    return lambda **fields: attempts(plan, sketched, **fields)


def _sketches(plan: MaterializePlan) -> Path:
    return Path(str(plan.downloads_path)) / downloads.CURATED / "sketches"


@pytest.mark.parametrize("number", [1, 9])
def test_sketches_are_made_once(
    number: int, plan: Callable[..., MaterializePlan], sketched: Sketched, whole: Whole
) -> None:
    undisturbed, every = whole()
    killed(plan(), (kept_sketches.KeptSketches, "_write", number))
    sketched()
    assert files(plan()) == undisturbed
    again = sketched()
    assert len(every) - len(again) == (number - 1) * batches.ROWS
    killed(plan(), LATE)
    assert sketched() == every
    assert files(plan()) == undisturbed
    assert not sketched()
    assert not _sketches(plan()).exists()


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], bool]] = {
    "cut off": (lambda data: data[:-9], True),
    "a byte in the middle": (lambda data: data[: len(data) // 2] + b"!!" + data[len(data) // 2 + 2 :], True),
    "a byte of the first head": (lambda data: data[:20] + b"\xff" + data[21:], False),
    "nothing": (lambda _: b"", False),
    "something else": (lambda _: b"\xff" * 5000, False),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_sketches_are_made_again(
    case: str, plan: Callable[..., MaterializePlan], sketched: Sketched, whole: Whole
) -> None:
    undisturbed, every = whole()
    killed(plan(), LATE)
    change, are_some_kept = DAMAGES[case]
    path = _sketches(plan())
    path.write_bytes(change(path.read_bytes()))
    sketched()
    killed(plan(), LATE)
    again = sketched()
    assert again
    assert (again < every) == are_some_kept
    assert files(plan()) == undisturbed
    assert not sketched(), "what was made again is kept"


def test_sketches_of_other_rows_are_made_again(plan: Callable[..., MaterializePlan], sketched: Sketched) -> None:
    killed(plan(), LATE)
    every = sketched()
    _write(Path(str(plan().source_path)), "breaks")
    again = files(plan())
    assert 0 < len(sketched()) < len(every) // 2
    assert again == files(plan("undisturbed"))


@pytest.mark.parametrize(
    "fields",
    [
        {"curation": {**CURATION, "nearDuplicates": {"ngram": 2}}},
        {"curation": {**CURATION, "nearDuplicates": {"similarity": "60%"}}},
        {"curation": {}, "splits": {"nearDuplicates": "Group"}},
    ],
    ids=str,
)
def test_sketches_of_other_settings_are_made_again(
    fields: dict[str, Any], plan: Callable[..., MaterializePlan], sketched: Sketched, whole: Whole
) -> None:
    undisturbed, every = whole(**fields)
    killed(plan(), LATE)
    sketched()
    assert files(plan(**fields)) == undisturbed
    assert sketched() == every


def test_sketches_that_would_take_the_room_of_the_rows_are_not_kept(
    plan: Callable[..., MaterializePlan], sketched: Sketched, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = Path(str(plan().source_path)).stat().st_size
    monkeypatch.setattr(resumed, "_CURATED", 0.2)
    killed(plan(), LATE)
    every = sketched()
    assert 0.1 * size < _sketches(plan()).stat().st_size <= 0.2 * size
    again = files(plan())
    assert 0 < len(sketched()) < len(every)
    assert again == whole()[0]


@pytest.mark.parametrize("most", [0, 300, 3000])
def test_sketches_are_not_kept_where_a_disk_has_no_room_for_them(
    most: int, plan: Callable[..., MaterializePlan], whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, _ = whole()
    opened = kept_sketches.KeptSketches._opened
    rooms = list[int]()

    class Full:
        """The file on a disk that takes so many bytes."""

        def __init__(self, file: Any) -> None:
            self._file, self._room = file, most

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def write(self, data: bytes) -> int:
            written: int = self._file.write(data[: self._room])
            self._room -= written
            if not written:
                raise OSError(28, "No space left on device")
            return written

        def truncate(self, *size: int) -> None:
            self._file.truncate(*size)
            rooms.extend(size)

    monkeypatch.setattr(kept_sketches.KeptSketches, "_opened", lambda self: Full(opened(self)))
    assert files(plan()) == undisturbed
    assert rooms == [0], "what there is of them gives way to the rows"


def test_two_attempts_at_once_do_not_share_the_file(
    plan: Callable[..., MaterializePlan], whole: Whole, tmp_path: Path
) -> None:
    one = kept_sketches.KeptSketches(tmp_path / "kept" / "sketches", "", 0)
    first = one._opened()
    assert first is not None
    with first:
        assert one._opened() is None
        assert files(plan()) == whole()[0]
    second = one._opened()
    assert second is not None
    second.close()
