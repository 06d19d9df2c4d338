"""Splits are written by several processes, each at its places, in whatever order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.rows import counting

from hone_trainer.datasets import checked
from hone_trainer.datasets.engine import dividing, relation, writing
from hone_trainer.store import contents
from hone_trainer.workers.parallel import Workers

pytestmark = pytest.mark.trainer


class _LastIsEarly(Workers):
    """What comes last is done before the second one begins."""

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        first, *middle, last = items
        done = function(first), function(last)
        yield first, done[0]
        yield from ((item, function(item)) for item in middle)
        yield last, done[1]


def test_files_and_their_hashes_do_not_depend_on_who_writes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "BATCH_ROWS", 5)
    monkeypatch.setattr(checked, "GROUP_ROWS", 5)
    monkeypatch.setattr(relation, "READ_BYTES", 1)
    records = [{"prompt": f"Was ist {n}?", "completion": "x" * (n % 7)} for n in range(90)]
    lines = {"train.jsonl": "", "test.jsonl": ""}
    with counting.relation(records) as rows:
        dividing.keep(rows)
        rows.execute(
            "CREATE TABLE divided AS SELECT row, (CASE WHEN row % 4 = 0 THEN 3 ELSE 1 END)::UTINYINT AS code FROM kept"
        )
        assert len([*rows.wanted("SELECT row FROM kept")]) == 18
        hashes = writing.write_splits(rows, tmp_path, _LastIsEarly())
    for number, record in enumerate(records, 1):
        line = json.dumps(record)
        lines["train.jsonl" if number % 4 else "test.jsonl"] += line + "\n"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == lines
    assert hashes == contents.hashes_of(tmp_path)


class _OneByteMore(Workers):
    """The size of a line was counted wrong."""

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        for task in items:
            places = {code: place._replace(end=place.end + 1) for code, place in task.places.items()}
            yield task, function(task._replace(places=places))


def test_a_line_that_is_not_where_it_was_counted_ends_the_dataset(tmp_path: Path) -> None:
    with counting.relation([{"prompt": "Was?", "completion": "x"}]) as rows:
        dividing.keep(rows)
        rows.execute("CREATE TABLE divided AS SELECT row, 1::UTINYINT AS code FROM kept")
        with pytest.raises(RuntimeError, match=r"train.jsonl: lines end at byte \d+, not at \d+"):
            writing.write_splits(rows, tmp_path, _OneByteMore())
