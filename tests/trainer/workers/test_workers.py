"""A Dataset by several processes: every file as one process writes it, and the same errors."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import checked, materialize
from hone_trainer.datasets.readers import pieces
from hone_trainer.datasets.readers.rows import RawRow
from hone_trainer.datasets.texts import language
from hone_trainer.errors import ConfigError, TrainerError
from hone_trainer.workers import parallel

pytestmark = pytest.mark.trainer
Fields = dict[str, Any]
Rows = list[Fields | str]
"""Text: a line that is not JSON."""
WORDS = ["river", "tower", "bridge", "market", "winter", "letter", "garden", "window", "doctor", "summer"]


def _words(seed: int, count: int) -> str:
    return " ".join(WORDS[(seed * 7 + at * at + at * seed) % len(WORDS)] + str(seed % 3) for at in range(count))


def _pair(n: int) -> Fields:
    mail = f" Write to a{n}@example.org." if n % 5 == 0 else ""
    return {"question": _words(n, 9), "answer": _words(n, 30) + mail, "topic": f"t{n % 4}"}


def _pairs() -> Rows:
    """Questions and answers: every ninth broken in one of three ways, some twice, some almost so."""
    rows: Rows = []
    for n in range(90):
        broken: Rows = ['{"question": "', {"question": " ", "answer": "a"}, {"question": f"{n}@example.org"}]
        if n % 9 == 4:
            rows.append(broken[n % 3])
        elif n % 9 == 7:
            rows.append(_pair(n - 7) if n % 2 else {**_pair(n - 7), "answer": _words(n - 7, 29)})
        else:
            rows.append(_pair(n))
    return rows


def _chats() -> Rows:
    def turns(n: int) -> list[Fields]:
        return [{"role": "user", "content": _words(n, 6)}, {"role": "assistant", "content": _words(n // 2, 20)}]

    return [{"messages": turns(n) if n % 8 else []} for n in range(70)]


def _preferences() -> Rows:
    def row(n: int) -> Fields:
        chosen, rejected = (_words(n // 2, 25), _words(n + 1, 25))
        return {"prompt": _words(n // 2, 9), "chosen": chosen, "rejected": rejected if n % 8 else None}

    return [row(n) for n in range(70)]


def _lines(rows: Rows) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def _table(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ("question", "answer", "topic"))
    writer.writeheader()
    writer.writerows(row for row in rows if not isinstance(row, str))
    return text.getvalue()


PAIRS: Fields = {"columns": {"prompt": "question", "completion": "answer"}, "ignoreColumns": ["topic"]}
CURATED: Fields = {"deduplicate": "Near", "personalData": "Redact", "minTokens": 4, "languages": ["en", "de", "la"]}
CASES: dict[str, tuple[str, Callable[[], str], Fields]] = {
    "lines": ("rows.jsonl", lambda: _lines(_pairs()), PAIRS),
    "curated lines": ("rows.jsonl", lambda: _lines(_pairs()), {**PAIRS, "curation": CURATED}),
    "table": (
        "rows.csv",
        lambda: _table(_pairs()),
        {
            **PAIRS,
            "curation": {
                "personalData": "Refuse",
                "deduplicate": "Exact",
                "balance": {"column": "topic", "maxRows": 9},
            },
            "splits": {"validation": "20%", "stratifyBy": "topic"},
        },
    ),
    "array of chats": ("rows.json", lambda: json.dumps(_chats()), {"splits": {"nearDuplicates": "Group"}}),
    "preferences": ("rows.jsonl", lambda: _lines(_preferences()), {"checks": {"maxTokens": 200, "maxRejected": "50%"}}),
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, bytes]]:
    """Materializes a file by a number of workers; gives the files of the Dataset."""

    def run(name: str, text: str, workers: int, **fields: Any) -> dict[str, bytes]:
        monkeypatch.setattr(materialize, "SMALL_BYTES", 0)
        monkeypatch.setattr(checked, "BATCH_ROWS", 8)
        monkeypatch.setattr(pieces, "BYTES", 700)
        monkeypatch.setattr(parallel, "cores", lambda: workers)
        source, store = tmp_path / name, tmp_path / f"store-{workers}"
        source.write_text(text)
        plan = {"name": "rows", "store": str(store), "source": {"uri": f"pvc://claim/{name}"}, **fields}
        plan = {"checks": {"maxRejected": "50%"}, **plan, "sourcePath": str(source)}
        result = materialize.run(MaterializePlan.model_validate(plan))
        assert result.rejected > 0, "bad rows are among the good ones"
        return {path.name: path.read_bytes() for path in sorted((store / str(result.path)).iterdir())}

    return run


@pytest.mark.parametrize("case", CASES)
def test_every_file_is_the_same_by_any_number_of_workers(files: Callable[..., dict[str, bytes]], case: str) -> None:
    name, text, fields = CASES[case]
    alone = files(name, text(), 1, **fields)
    assert {"train.jsonl", "rejected.jsonl", "report.json"} <= alone.keys()
    assert ("removed.jsonl" in alone) == bool(fields.get("curation"))
    for workers in (2, 3):
        assert files(name, text(), workers, **fields) == alone


def test_removed_rows_are_in_the_order_of_the_source(files: Callable[..., dict[str, bytes]]) -> None:
    """Workers take rows ahead: a step has judged later rows before the next one has judged earlier ones."""
    rows = [{**row, "answer": "No."} if n % 7 == 3 and isinstance(row, dict) else row for n, row in enumerate(_pairs())]
    curation = {"personalData": "Refuse", "minTokens": 40, "deduplicate": "Exact"}
    alone, three = (files("rows.jsonl", _lines(rows), workers, **PAIRS, curation=curation) for workers in (1, 3))
    removed = [json.loads(line) for line in alone["removed.jsonl"].splitlines()]
    assert {row["step"] for row in removed} == {"PersonalData", "Length", "ExactDuplicates"}
    assert [row["row"] for row in removed] == sorted(row["row"] for row in removed)
    assert sorted(alone) == sorted(three)
    assert alone == three


def test_workers_identify_languages(files: Callable[..., dict[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    parent, identify = os.getpid(), language.languages_of

    def identified(texts: Sequence[str]) -> list[str]:
        assert os.getpid() != parent, "the parent alone would identify 2,000 rows"
        return ["xx", *identify(texts)[1:]]

    monkeypatch.setattr(language, "languages_of", identified)
    report = json.loads(files("rows.jsonl", _lines(_pairs()), 2, **PAIRS)["report.json"])
    assert "xx" in [entry["language"] for entry in report["result"]["languages"]]


class _Check(checked.Check):
    """Fails in the process that checks row 40."""

    def plain(self, is_exact: bool) -> None:
        """Each row is checked by itself."""

    def row(self, raw: RawRow) -> Any:
        if json.dumps(_pair(39)).encode() in (raw.line or b""):
            self.fail()
        return super().row(raw)

    def fail(self) -> None:
        raise ConfigError("columns.prompt is not for row 40")


class _Killed(_Check):
    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_worker_is_that_of_the_dataset(
    files: Callable[..., dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(materialize, "Check", _Check)
    with pytest.raises(ConfigError, match="prompt is not for row 40") as caught:
        files("rows.jsonl", _lines(_pairs()), workers, **PAIRS)
    assert caught.value.code == "InvalidConfiguration"


def test_a_killed_worker_ends_with_a_code_and_leaves_nothing(
    files: Callable[..., dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(materialize, "Check", _Killed)
    with pytest.raises(TrainerError, match="a process that checks rows was killed") as caught:
        files("rows.jsonl", _lines(_pairs()), 2, **PAIRS)
    assert caught.value.code == "OutOfMemory"
    assert not list((tmp_path / "store-2" / "datasets").iterdir())


def test_a_small_source_starts_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(parallel, "ProcessPoolExecutor", refused)
    monkeypatch.setattr(parallel, "cores", lambda: 8)
    source = tmp_path / "rows.jsonl"
    source.write_text(_lines([row for row in _pairs() if isinstance(row, dict) and "topic" in row]))
    plan = {"name": "rows", "store": str(tmp_path / "store"), "source": {"uri": "pvc://claim/rows.jsonl"}}
    asked = MaterializePlan.model_validate({**plan, **PAIRS, "sourcePath": str(source)})
    assert materialize.run(asked).rows > 50
    with pytest.raises(AssertionError, match="a process was started"):
        parallel.Workers(count=2)
