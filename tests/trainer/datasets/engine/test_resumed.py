"""Rows that an attempt checked before it was killed: the next one reads only the others, and writes the same files."""

from __future__ import annotations

import datetime
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from support.lives.attempts import Undisturbed, files, killed

from hone_api.plan import POD_INDEX_ENV, MaterializePlan
from hone_api.words.failures import FailureCode
from hone_trainer.datasets import checked, curation, materialize, stage_one
from hone_trainer.datasets.engine import dividing, parts
from hone_trainer.datasets.readers import pieces
from hone_trainer.datasets.readers.pieces import PieceRows
from hone_trainer.datasets.sources import downloads
from hone_trainer.errors import DataError, StoreError
from hone_trainer.reporting import task
from hone_trainer.store.part_folder import PartFolder
from hone_trainer.workers import parallel
from hone_trainer.workers.pods import Pod

pytestmark = pytest.mark.trainer
CURATION = {"deduplicate": "Near", "personalData": "Redact", "minTokens": 3}
Fields = dict[str, Any]


def _row(n: int) -> Fields:
    question = f"What does the keeper of the old tower {n % 90} do when the river {n % 7} rises in winter?"
    answer = f"The keeper lights lamp {n % 90} and calls the people of the town, then writes to a{n}@example.org."
    return {"question": question, "answer": " " if n % 17 == 4 else answer}


def _lines(numbers: range) -> str:
    return "".join('{"question": "\\n' if n % 23 == 5 else json.dumps(_row(n)) + "\n" for n in numbers)


def _write(folder: Path) -> None:
    """Large and small files of several kinds; among their rows are some that are refused, with dates in them."""
    folder.mkdir()
    (folder / "a.jsonl").write_text(_lines(range(40)))
    rows = [{**_row(n), "when": datetime.datetime(2026, 1, 1 + n % 20)} for n in range(40, 90)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "b.parquet", row_group_size=9)
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(_lines(range(90, 120)).encode(), 0, mtime=0))
    for n in range(120, 140, 2):
        (folder / f"d{n}.jsonl").write_text(_lines(range(n, n + 2)))
    (folder / "e.jsonl").write_text(_lines(range(140, 170)))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces and parts of a few rows."""
    monkeypatch.setattr(materialize, "SMALL_BYTES", 0)
    monkeypatch.setattr(checked, "BATCH_ROWS", 4)
    monkeypatch.setattr(pieces, "BYTES", 700)
    monkeypatch.setattr(pieces, "GROUP_BYTES", 1500)
    monkeypatch.setattr(stage_one, "SMALLEST", 0)
    monkeypatch.setattr(parallel, "cores", lambda: 2)


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., MaterializePlan]:
    _write(tmp_path / "source")

    def make(store: str = "store", **fields: Any) -> MaterializePlan:
        (kept := tmp_path / f"{store}-kept").mkdir(exist_ok=True)
        plan = {
            "name": "rows",
            "store": str(tmp_path / store),
            "source": {"uri": "pvc://claim/source"},
            "sourcePath": str(tmp_path / "source"),
            "columns": {"prompt": "question", "completion": "answer"},
            "ignoreColumns": ["when"],
            "checks": {"maxRejected": "50%"},
            "curation": CURATION,
            "downloadsPath": str(kept),
        }
        return MaterializePlan.model_validate({**plan, **fields})

    return make


Read = tuple[str, Any, Any]
"""First file, lines and row groups of a piece."""


def _named(piece: pieces.Piece) -> Read:
    return piece.files[0].name, piece.lines, piece.groups


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Read]]:
    """The pieces that were read since the last call, by any process."""
    log = tmp_path / "read"

    class Logged(PieceRows):
        def __init__(self, piece: pieces.Piece, max_bytes: int) -> None:
            super().__init__(piece, max_bytes)
            with open(log, "a") as file:
                file.write(json.dumps(_named(piece)) + "\n")

    monkeypatch.setattr(checked, "PieceRows", Logged)

    def take() -> list[Read]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted((tuple(json.loads(line)) for line in lines), key=str)

    return take


@pytest.fixture(scope="module")
def attempts() -> Undisturbed:
    return Undisturbed()


Whole = Callable[..., tuple[dict[str, bytes], list[Read]]]


@pytest.fixture
def whole(attempts: Undisturbed, plan: Callable[..., MaterializePlan], read: Callable[[], list[Read]]) -> Whole:
    """The files of an undisturbed attempt with these fields, and the pieces that it read."""
    return lambda **fields: attempts(plan, read, **fields)


def _kept(plan: MaterializePlan) -> list[Path]:
    return sorted((Path(str(plan.downloads_path)) / downloads.CHECKED).glob("*.parquet"))


class _Parts:
    """The parts of a source that an attempt asks the folder for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kept, self.missing = list[int](), list[int]()
        kept = parts.kept

        def asked(of: PartFolder, index: int, key: str) -> parts.CheckedPart | None:
            found = kept(of, index, key)
            (self.kept if found else self.missing).append(index)
            return found

        monkeypatch.setattr(stage_one, "kept", asked)


PLACES: dict[str, tuple[tuple[Any, str, int], int]] = {
    "before anything is kept": ((parts.PartWriter, "write", 1), 0),
    "while a part is written": ((parts.PartWriter, "write", 8), 7),
    "before a part has its name": ((parts.PartWriter, "finish", 9), 8),
    "when all rows are read": ((PartFolder, "remove_others", 1), 0),
    "while steps judge all rows": ((curation, "judge", 1), 0),
    "while rows are divided": ((dividing, "divide", 1), 0),
    "while splits are written": ((materialize, "write_splits", 1), 0),
    "before the report": ((materialize, "write_report", 1), 0),
}
"""Where an attempt is killed, and the parts that are kept by then; 0 after the first one: all."""
OFTEN = ("before anything is kept", "before a part has its name", "when all rows are read", "while splits are written")


@pytest.mark.parametrize(
    "place", [place if place in OFTEN else pytest.param(place, marks=pytest.mark.long) for place in PLACES]
)
def test_a_killed_attempt_loses_the_rows_of_one_part(
    place: str,
    plan: Callable[..., MaterializePlan],
    read: Callable[[], list[Read]],
    whole: Whole,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undisturbed, every = whole()
    point, kept = PLACES[place]
    if point[0] is parts.PartWriter:  # one process writes one part after the other
        monkeypatch.setattr(parallel, "cores", lambda: 1)
    killed(plan(), point)
    read()
    if not kept and place != "before anything is kept":
        kept = len(every)
    assert len(_kept(plan())) == kept
    seen = _Parts(monkeypatch)
    assert files(plan()) == undisturbed
    assert {"train.jsonl", "rejected.jsonl", "removed.jsonl", "report.json"} <= undisturbed.keys()
    assert len(read()) == len(seen.missing)
    assert len(seen.kept) == kept
    assert len(seen.kept) + len(seen.missing) == len(every)
    assert not list(Path(str(plan().downloads_path)).iterdir()), "all that was kept goes with the last row"


@pytest.mark.parametrize(
    "place",
    [
        "before a part has its name",
        *(
            pytest.param(place, marks=pytest.mark.long)
            for place in ("while steps judge all rows", "while splits are written")
        ),
    ],
)
def test_an_attempt_whose_parts_another_one_removes_says_so(
    place: str, plan: Callable[..., MaterializePlan], whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    (owner, name, _), _ = PLACES[place]
    inner = getattr(owner, name)

    def after_the_other(*arguments: Any, **named: Any) -> Any:
        for path in (Path(str(plan().downloads_path)) / downloads.CHECKED).iterdir():
            path.unlink(missing_ok=True)
        return inner(*arguments, **named)

    undisturbed, _ = whole()
    monkeypatch.setattr(owner, name, after_the_other)
    with pytest.raises(StoreError, match="another attempt at this Dataset runs, and removed rows from") as caught:
        materialize.run(plan())
    assert caught.value.code == FailureCode.STORAGE_ERROR
    monkeypatch.setattr(owner, name, inner)
    assert files(plan()) == undisturbed


def test_the_log_says_how_many_parts_are_done(
    plan: Callable[..., MaterializePlan], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "_EVERY_SECONDS", -1)
    with caplog.at_level("INFO", "hone.trainer"):
        result = materialize.run(plan())
    lines = [line for line in caplog.messages if " of " in line and line.endswith(" parts")]
    found = [re.fullmatch(r"dataset rows: ([\d,]+) rows, (\d+) of (\d+) parts", line) for line in lines]
    done = [(int(one[2]), int(one[3])) for one in found if one]
    assert done == [(n, len(done)) for n in range(1, len(done) + 1)]
    assert len(done) > 20
    assert found[-1]
    assert int(found[-1][1]) == result.rows + result.rejected + sum(step.removed for step in result.curation)


def _altered(source: Path) -> None:
    text = (source / "e.jsonl").read_text()
    (source / "e.jsonl").write_text(text.replace("lights lamp", "breaks lamp"))


def test_an_altered_file_is_read_again_and_no_other(
    plan: Callable[..., MaterializePlan], read: Callable[[], list[Read]], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(plan(), PLACES["while rows are divided"][0])
    _altered(Path(str(plan().source_path)))
    read()
    seen = _Parts(monkeypatch)
    again = files(plan())
    assert {name for name, *_ in read()} == {"e.jsonl"}
    assert len(seen.kept) > 15
    monkeypatch.undo()
    assert again == files(plan("undisturbed"))


def test_parts_of_a_pod_that_read_an_older_file_are_not_taken(
    plan: Callable[..., MaterializePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    materialize.share(shared := plan(pods=2), Pod(1, 2))
    _altered(Path(str(shared.source_path)))
    before = len(_kept(shared))
    seen = _Parts(monkeypatch)
    monkeypatch.setenv(POD_INDEX_ENV, "0")
    assert files(shared) == files(plan("undisturbed"))
    assert before > 10
    assert before - 5 < len(seen.kept) < before


def test_what_belongs_to_no_part_goes(plan: Callable[..., MaterializePlan]) -> None:
    killed(plan(), PLACES["while rows are divided"][0])
    before = _kept(plan())
    _altered(Path(str(plan().source_path)))
    killed(plan(), PLACES["while rows are divided"][0])
    assert len(_kept(plan())) == len(before)
    assert 0 < len({*before} - {*_kept(plan())}) < len(before)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:300] + b"!" + data[301:],
        *(pytest.param(cut, marks=pytest.mark.long) for cut in (lambda data: data[:-30], lambda _: b"")),
    ],
)
def test_a_damaged_part_is_read_again(
    damage: Callable[[bytes], bytes],
    plan: Callable[..., MaterializePlan],
    read: Callable[[], list[Read]],
    whole: Whole,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undisturbed, _ = whole()
    killed(plan(), PLACES["before the report"][0])
    for path in (kept := _kept(plan()))[:3]:
        path.write_bytes(damage(path.read_bytes()))
    read()
    seen = _Parts(monkeypatch)
    assert files(plan()) == undisturbed
    assert len(read()) == len(seen.missing)
    assert 3 <= len(seen.missing) < len(kept)


def _other_code(monkeypatch: pytest.MonkeyPatch) -> Fields:
    monkeypatch.setattr(stage_one, "_code", lambda: "another release")
    return {}


OTHERWISE: dict[str, Callable[[pytest.MonkeyPatch], Fields]] = {
    "another release": _other_code,
    "other columns": lambda _: {"columns": {"prompt": "answer", "completion": "question"}},
    "other personal data": lambda _: {"curation": {**CURATION, "personalData": "Keep"}},
    "longer rows": lambda _: {"checks": {"maxRejected": "50%", "maxTokens": 4000}},
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.long if case in ("other personal data", "longer rows") else ())
        for case in OTHERWISE
    ],
)
def test_rows_that_are_checked_otherwise_are_read_again(
    case: str, plan: Callable[..., MaterializePlan], whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(plan(), PLACES["before the report"][0])
    fields = OTHERWISE[case](monkeypatch)
    seen = _Parts(monkeypatch)
    again = files(plan(**fields))
    assert not seen.kept
    assert again == whole(**fields)[0]


def test_a_check_of_all_rows_is_edited_and_none_is_read_again(
    plan: Callable[..., MaterializePlan], read: Callable[[], list[Read]], whole: Whole
) -> None:
    with pytest.raises(DataError) as caught:
        materialize.run(plan(checks={"maxRejected": "1%"}))
    assert caught.value.code == FailureCode.TOO_MANY_BAD_ROWS
    assert read()
    again = files(plan())
    assert not read()
    assert again == whole()[0]


def test_of_a_small_source_nothing_is_kept(plan: Callable[..., MaterializePlan], monkeypatch: Any) -> None:
    monkeypatch.setattr(stage_one, "SMALLEST", 10**6)
    killed(plan(), PLACES["before the report"][0])
    assert not (Path(str(plan().downloads_path)) / downloads.CHECKED).exists()


def test_one_process_keeps_what_two_read(
    plan: Callable[..., MaterializePlan],
    read: Callable[[], list[Read]],
    whole: Whole,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the other way round: a pod may have other cores."""
    undisturbed, _ = whole()
    for first, second in ((1, 2), (2, 1)):
        monkeypatch.setattr(parallel, "cores", lambda count=first: count)
        killed(plan(f"store-{first}"), PLACES["when all rows are read"][0])
        _kept(plan(f"store-{first}"))[3].unlink()
        read()
        monkeypatch.setattr(parallel, "cores", lambda count=second: count)
        with monkeypatch.context() as patch:
            seen = _Parts(patch)
            assert files(plan(f"store-{first}")) == undisturbed
        assert seen.kept
        assert len(read()) == len(seen.missing)
