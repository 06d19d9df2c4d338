"""A Dataset by several pods, here processes of one machine: the same files as by one, also if they are killed."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from hone_api.plan import POD_INDEX_ENV

pytestmark = pytest.mark.trainer
ROWS = 120
CURATION = {"deduplicate": "Near", "personalData": "Redact", "minTokens": 3}
POD = """
import os, sys, time
from hone_trainer import __main__
from hone_trainer.datasets import materialize, stage_one
from hone_trainer.datasets.readers import pieces
from hone_trainer.datasets.engine.parts import PartWriter

pieces.BYTES, pieces.FILES = 700, 4
finish = PartWriter.finish

def slow(writer, about):
    time.sleep(0.05)
    return finish(writer, about)

PartWriter.finish = slow
sys.exit(__main__.main(["materialize", sys.argv[1]]))
"""


def _write_rows(path: Path) -> None:
    lines = []
    for n in range(ROWS):
        question = f"What does the keeper of the old tower {n % 90} do when the river {n % 7} rises in winter?"
        answer = f"The keeper lights lamp {n % 90} and calls the people of the town, then writes to a{n}@example.org."
        lines.append('{"question": "' if n % 50 == 9 else f'{{"question": "{question}", "answer": "{answer}"}}')
    path.write_text("\n".join(lines) + "\n")


def _write_files(folder: Path) -> None:
    """The same rows as files of several kinds: large ones, and small ones that share a piece."""
    folder.mkdir()
    _write_rows(path := folder / "lines.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    table = pyarrow.Table.from_pylist([json.loads(line) for line in lines[:30] if line.endswith("}\n")])
    pyarrow.parquet.write_table(table, folder / "a.parquet", row_group_size=11)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(lines[30:70]).encode()))
    for number in range(70, 100, 2):
        (folder / f"c{number}.jsonl").write_text("".join(lines[number : number + 2]))
    path.write_text("".join(lines[100:]))


class Dataset:
    """A source, and what its pods leave."""

    def __init__(self, source: Path, folder: Path, pods: int | None) -> None:
        folder.mkdir()
        self.store, self.kept, self._plan = folder / "store", folder / "kept", folder / "plan.json"
        fields: dict[str, Any] = {
            "kind": "Materialize",
            "contract": 1,
            "name": "rows",
            "store": str(self.store),
            "source": {"uri": "pvc://claim/rows.jsonl"},
            "sourcePath": str(source),
            "columns": {"prompt": "question", "completion": "answer"},
            "checks": {"maxRejected": "50%"},
            "curation": CURATION,
            "downloadsPath": str(self.kept),
        }
        self._plan.write_text(json.dumps(fields | ({"pods": pods} if pods else {})))

    def start(self, index: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, POD_INDEX_ENV: str(index)}
        return subprocess.Popen([sys.executable, "-c", POD, str(self._plan)], env=environment, start_new_session=True)

    @property
    def parts(self) -> list[Path]:
        return list(self.kept.glob("checked/*.parquet"))

    @property
    def files(self) -> dict[str, bytes]:
        (folder,) = (self.store / "datasets").glob("[!.]*")
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(("write", "pods"), [pytest.param(_write_rows, 2, marks=pytest.mark.long), (_write_files, 3)])
def test_several_pods_write_the_same_as_one_although_all_are_killed(
    write: Callable[[Path], None], pods: int, tmp_path: Path
) -> None:
    """At a random moment each, after some parts are there; then each of them is replaced."""
    write(source := tmp_path / "rows.jsonl")
    alone, shared = Dataset(source, tmp_path / "one", None), Dataset(source, tmp_path / "shared", pods)
    assert alone.start(0).wait() == 0
    assert {"train.jsonl", "rejected.jsonl", "removed.jsonl", "report.json"} <= alone.files.keys()
    first = [shared.start(index) for index in range(pods)]
    while not shared.parts:
        assert first[0].poll() is None
        time.sleep(0.01)
    for process in random.sample(first, pods):
        time.sleep(random.random() / 5)
        os.killpg(process.pid, signal.SIGKILL)
    assert {process.wait() for process in first} <= {0, -signal.SIGKILL}
    assert first[0].returncode == -signal.SIGKILL
    assert shared.parts
    second = [shared.start(index) for index in range(pods)]
    assert [process.wait() for process in second] == [0] * pods
    assert shared.files == alone.files


def test_another_pod_leaves_only_its_share_and_the_first_one_takes_it(tmp_path: Path) -> None:
    _write_rows(source := tmp_path / "rows.jsonl")
    shared = Dataset(source, tmp_path / "shared", 3)
    assert shared.start(1).wait() == 0
    assert {int(path.name.partition("-")[0]) % 3 for path in shared.parts} == {1}
    made = {path.name: path.stat().st_ino for path in shared.parts}
    lead = shared.start(0)
    taken = set()
    while lead.poll() is None:
        with suppress(FileNotFoundError):  # it is removed in the end
            taken |= {path.name for path in shared.parts if made.get(path.name) == path.lstat().st_ino}
        time.sleep(0.02)
    assert lead.returncode == 0
    assert taken == made.keys()
    assert shared.files
