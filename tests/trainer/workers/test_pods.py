"""A Dataset by several pods, here processes of one machine: the same files as by one, also if a pod is killed."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from hone_api.plan import MaterializePlan
from hone_api.plan.fields import WorkerPods
from hone_dev.cluster.objectstore import free_port
from hone_trainer.datasets import batches, checked, journal, materialize, pieces, resumed
from hone_trainer.workers import parallel
from hone_trainer.workers import pods as worker_pods

pytestmark = pytest.mark.trainer
ROWS = 120
CURATION = {"deduplicate": "Near", "personalData": "Redact", "minTokens": 3}


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


def _plan(source: Path, store: Path, workers: dict[str, Any] | None) -> MaterializePlan:
    fields = {
        "name": "rows",
        "store": str(store),
        "source": {"uri": "pvc://claim/rows.jsonl"},
        "sourcePath": str(source),
        "columns": {"prompt": "question", "completion": "answer"},
        "checks": {"maxRejected": "50%"},
        "curation": CURATION,
        "workers": workers,
    }
    return MaterializePlan.model_validate({name: value for name, value in fields.items() if value})


def _files(plan: MaterializePlan) -> dict[str, bytes]:
    folder = Path(plan.store) / str(materialize.run(plan).path)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@contextmanager
def _pod(plan: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A pod that works for another one, as a process group."""
    command = [sys.executable, "-m", "hone_trainer", "work", str(plan)]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("write", [_write_rows, _write_files])
def test_three_pods_write_the_same_files_although_one_is_killed(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialize, "SMALL_BYTES", 0)
    monkeypatch.setattr(batches, "ROWS", 8)
    monkeypatch.setattr(pieces, "BYTES", 700)
    monkeypatch.setattr(parallel, "cores", lambda: 1)
    write(source := tmp_path / "rows.jsonl")
    alone = _files(_plan(source, tmp_path / "one", None))
    plan = _plan(source, tmp_path / "three", {"pods": 3, "host": "127.0.0.1", "port": free_port("127.0.0.1")})
    (tmp_path / "plan.json").write_text(plan.model_dump_json(by_alias=True, exclude_none=True))
    places, lead = tmp_path / "places", os.getpid()
    places.mkdir()

    class Check(checked.Check):
        """Waits until both other pods work, and ends the first of them while it has rows."""

        def rows(self, batch: Sequence[batches.Packed]) -> list[Any]:
            import time

            if os.getppid() != lead:
                (places / str(os.getpgid(0))).touch()
                mine = sorted(places.iterdir())[0].name == str(os.getpgid(0))
                if mine and len(list(places.iterdir())) == 2 and not (tmp_path / "killed").exists():
                    (tmp_path / "killed").touch()
                    os.killpg(0, signal.SIGKILL)
            deadline = time.monotonic() + 600
            while len(list(places.iterdir())) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
            return super().rows(batch)

    monkeypatch.setattr(materialize, "Check", Check)
    with ExitStack() as stack:
        pods = [stack.enter_context(_pod(tmp_path / "plan.json")) for _ in range(2)]
        assert _files(plan) == alone
        assert (tmp_path / "killed").exists()
        assert sorted(pod.wait(600) for pod in pods) == [-signal.SIGKILL, 0]
    assert {"train.jsonl", "rejected.jsonl", "removed.jsonl", "report.json"} <= alone.keys()


def _killed_as_it_joins(lead: int, killed: Path) -> None:
    if os.getppid() != lead and not killed.exists():
        killed.touch()
        os.killpg(0, signal.SIGKILL)


LATE = """
import time
from pathlib import Path
deadline = time.monotonic() + 10
while not Path({!r}).exists() and time.monotonic() < deadline:
    time.sleep(0.1)
"""


def test_a_pod_that_is_killed_as_it_joins_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of the leading pod are late, so that the other pod is the first to join."""
    workers = WorkerPods(pods=2, host="127.0.0.1", port=free_port("127.0.0.1"))
    plan = _plan(tmp_path / "rows.jsonl", tmp_path, workers.model_dump())
    (tmp_path / "plan.json").write_text(plan.model_dump_json(by_alias=True, exclude_none=True))
    killed, options = tmp_path / "killed", worker_pods._worker
    late = LATE.format(str(killed))
    monkeypatch.setattr(worker_pods, "_worker", lambda: options() | {"preload": [late], "preload_argv": []})
    with _pod(tmp_path / "plan.json") as pod:
        pool = worker_pods.PodPool(workers, 1, _killed_as_it_joins, [os.getpid(), killed])
        try:
            assert pod.wait(600) == -signal.SIGKILL
            assert [pool.submit(abs, number).result() for number in (-1, -2)] == [1, 2]
        finally:
            pool.shutdown()
    assert killed.exists()


LEADER = """
import os, signal, sys
from pathlib import Path
from hone_api.plan import MaterializePlan
from hone_trainer.datasets import batches, journal, materialize, pieces, resumed
from hone_trainer.workers import parallel

batches.ROWS, pieces.BYTES, resumed.SMALLEST, resumed.PART_BYTES = 8, 700, 0, 1500
parallel.cores = lambda: 1
finish, calls = journal.PartWriter.finish, []

def dying(writer):
    calls.append(1)
    if len(calls) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    finish(writer)

journal.PartWriter.finish = dying
materialize.run(MaterializePlan.model_validate_json(Path(sys.argv[1]).read_text()))
"""


def test_the_attempt_after_a_killed_leading_pod_checks_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialize, "SMALL_BYTES", 0)
    monkeypatch.setattr(batches, "ROWS", 8)
    monkeypatch.setattr(pieces, "BYTES", 700)
    monkeypatch.setattr(resumed, "SMALLEST", 0)
    monkeypatch.setattr(resumed, "PART_BYTES", 1500)
    monkeypatch.setattr(parallel, "cores", lambda: 1)
    _write_files(source := tmp_path / "rows")
    alone = _files(_plan(source, tmp_path / "one", None))
    (kept := tmp_path / "kept").mkdir()
    pods = {"pods": 2, "host": "127.0.0.1", "port": free_port("127.0.0.1")}
    plan = _plan(source, tmp_path / "two", pods).model_copy(update={"downloads_path": str(kept)})
    (path := tmp_path / "plan.json").write_text(plan.model_dump_json(by_alias=True, exclude_none=True))
    with _pod(path):
        assert subprocess.run([sys.executable, "-c", LEADER, str(path)], check=False).returncode == -signal.SIGKILL
    assert len(list(kept.glob("checked/*.arrow"))) == 5
    asked: list[bool] = []
    has = journal.Journal.has
    monkeypatch.setattr(journal.Journal, "has", lambda *args: asked.append(has(*args)) or asked[-1])
    with _pod(path):
        assert _files(plan) == alone
    assert asked.count(True) == 5
    assert not list(kept.iterdir())


def test_a_pod_whose_leader_ends_while_it_joins_waits_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader's port is open, and its scheduler ends in the middle of the first try."""
    import distributed
    from distributed.comm.core import CommClosedError

    joined = []

    class Joins(distributed.Nanny):
        async def start_unsafe(self) -> Any:
            joined.append(self)
            if len(joined) == 1:
                raise CommClosedError("in <TCP (closed) ConnectionPool>: Stream is closed")
            raise OSError("enough is seen")

    monkeypatch.setattr(distributed, "Nanny", Joins)
    with socket.create_server(("127.0.0.1", 0)) as leader:
        place = WorkerPods(pods=2, host="127.0.0.1", port=leader.getsockname()[1])
        with pytest.raises(RuntimeError, match="failed to start"):
            worker_pods.work(place, 1)
    assert len(joined) == 2
