"""Engines on the work that Hone's workers do: rows per CPU second, start, memory, and whether the result is the same.

    .venv/bin/python bench/engines.py [--megabytes 10 60] [--engines fork dask daft ray datatrove]

Each engine checks the rows of a JSON Lines file and counts them, by the very functions of a Dataset's Job, with two
workers on one machine. It runs in a process of its own, with packages of its own, which uv fetches. Two sizes give two
numbers: what a row costs, from the difference, and what the engine costs before the first row. CPU time and memory are
those of all processes that the engine started, as the kernel counts them in a control group: be root. The digest is of
all rows in the order in which they came back: it is the same for every engine that keeps the source's order.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from memory_group import counted

WORKERS = 2
ROWS = 256
"""Of a batch, as in `hone_trainer.datasets.batches`."""
PACKAGES: dict[str, tuple[str, ...]] = {
    "one": (),
    "fork": (),
    "dask": ("distributed==2026.8.0",),
    "daft": ("daft==0.7.26", "pyarrow"),
    "ray": ("ray[data]==2.60.0",),
    "datatrove": ("datatrove==0.10.1", "orjson", "regex", "xxhash<4"),
}
PLAN = {
    "name": "bench",
    "store": "store",
    "source": {"uri": "pvc://bench/rows.jsonl"},
    "columns": {"prompt": "question", "completion": "answer"},
}


@cache
def _functions() -> tuple[Any, Any]:
    """What checks rows and what counts them; made once in each process."""
    from hone_api.plan import MaterializePlan
    from hone_trainer.datasets import detect
    from hone_trainer.datasets.checked import Check
    from hone_trainer.datasets.counted import Count

    plan = MaterializePlan.model_validate(PLAN)
    sample = [{"question": "How many?", "answer": "Three of them."}]
    return Check(plan, detect.choose(plan.format, plan.columns, sample, plan.ignore_columns)), Count(0)


def work(lines: list[bytes]) -> list[str]:
    """A batch of lines of a file as canonical rows, with the hashes of their groups."""
    from hone_trainer.datasets.rows import RawRow

    check, count = _functions()
    rows = check.rows([RawRow(number, "rows.jsonl", line=line) for number, line in enumerate(lines, 1)])
    counted = count.rows(rows)
    return [f"{group:016x}\t{row.line}" for group, row in zip(counted.groups, rows, strict=True)]


def _batches(path: Path) -> Iterator[list[bytes]]:
    with open(path, "rb") as lines:
        while batch := list(itertools.islice(lines, ROWS)):
            yield batch


# -- the engines: each gives the results in the order in which they come back ----------------------------


def one(path: Path, folder: Path) -> Iterable[str]:
    """No engine, one process."""
    return itertools.chain.from_iterable(map(work, _batches(path)))


def fork(path: Path, folder: Path) -> Iterable[str]:
    """Hone's own: `concurrent.futures`, forked."""
    from hone_trainer.workers.parallel import Workers

    with Workers([work], WORKERS) as workers:
        for _, rows in workers.map(work, _batches(path)):
            yield from rows


def dask(path: Path, folder: Path) -> Iterable[str]:
    """Tasks of Dask's scheduler, as many at a time as `fork` has."""
    from collections import deque

    from dask import config
    from distributed import Client, LocalCluster

    waiting: deque[Any] = deque()
    config.set({"distributed.worker.profile.enabled": False, "distributed.scheduler.http.routes": []})
    with LocalCluster(WORKERS, 1, host="127.0.0.1", memory_limit=0, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            for batch in _batches(path):
                waiting.append(client.submit(work, batch, pure=False))
                if len(waiting) > 2 * WORKERS:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()


def daft(path: Path, folder: Path) -> Iterable[str]:
    """A batch method in processes, on Daft's native runner."""
    import daft as engine
    import pyarrow

    @engine.cls(max_concurrency=WORKERS, use_process=True)
    class Checked:
        @engine.method.batch(return_dtype=engine.DataType.string(), batch_size=ROWS)
        def rows(self, lines: engine.Series) -> list[str]:
            return work(lines.to_pylist())

    lines = list(itertools.chain.from_iterable(_batches(path)))
    table = pyarrow.table({"line": pyarrow.array(lines, pyarrow.large_binary())})
    frame = engine.from_arrow(table)
    for row in frame.select(Checked().rows(frame["line"]).alias("row")).iter_rows():
        yield row["row"]


def ray(path: Path, folder: Path) -> Iterable[str]:
    """Ray Data: `map_batches` over blocks that are kept in order."""
    import ray as engine
    from ray.data import DataContext

    engine.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, object_store_memory=256 * 2**20)
    DataContext.get_current().execution_options.preserve_order = True
    DataContext.get_current().enable_progress_bars = False
    rows = engine.data.read_text(str(path)).map_batches(
        lambda batch: {"row": work([line.encode() for line in batch["text"]])}, batch_size=ROWS
    )
    for row in rows.iter_rows():
        yield row["row"]
    engine.shutdown()


def datatrove(path: Path, folder: Path) -> Iterable[str]:
    """Two tasks. The file is divided first, so each task reads and writes its own files."""
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.base import PipelineStep
    from datatrove.pipeline.writers import JsonlWriter

    class Read(PipelineStep):
        name = "rows"
        type = "reader"

        def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
            every = list(_batches(path))
            share = -(-len(every) // world_size)
            for number, row in enumerate(
                itertools.chain.from_iterable(map(work, every[rank * share : (rank + 1) * share]))
            ):
                yield Document(text=row, id=str(number))

    steps = [Read(), JsonlWriter(str(folder / "out"), compression=None)]
    LocalPipelineExecutor(steps, tasks=WORKERS, workers=WORKERS, logging_dir=str(folder / "log")).run()
    for file in sorted((folder / "out").iterdir()):
        with open(file, encoding="utf-8") as lines:
            yield from (json.loads(line)["text"] for line in lines)


ENGINES: dict[str, Callable[[Path, Path], Iterable[str]]] = {
    function.__name__: function for function in (one, fork, dask, daft, ray, datatrove)
}


# -- the run -----------------------------------------------------------------------------------------------


def measured(name: str, rows: str) -> None:
    """In the process of its own: runs the engine, and prints what came back."""
    digest, count = hashlib.sha256(), 0
    with tempfile.TemporaryDirectory() as folder:
        for row in ENGINES[name](Path(rows), Path(folder)):
            digest.update(row.encode())
            count += 1
    print(json.dumps({"rows": count, "digest": digest.hexdigest()[:12]}))


def measure(name: str, rows: Path, python: str) -> dict[str, Any]:
    """Rows, digest, seconds by the clock and of CPU of all processes, peak MiB of all of them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    here = Path(__file__).parents[1]
    paths = (here / "bench", here / "crds", here / "trainer", here / "dev", sysconfig.get_paths()["purelib"])
    environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    # Imported, so that each process finds the functions by their names.
    command = [python, "-P", "-c", "import engines, sys; engines.measured(*sys.argv[1:])", name, str(rows)]
    with counted() as (group, usage):
        started = time.monotonic()
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=group.join
        )
        seconds = time.monotonic() - started
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds, "cpu": usage.cpu, "peak": usage.peak}


def python_with(packages: tuple[str, ...], folder: Path) -> tuple[str, float]:
    """A Python that has the packages, and their installed size in MiB; the rest it finds in this one's folder."""
    if not packages:
        return sys.executable, 0.0
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([uv, "pip", "install", "-q", "--python", python, *packages], check=True)
    size = sum(path.stat().st_size for path in (folder / "lib").rglob("*") if path.is_file())
    return python, size / 2**20


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Engines on the work of a Dataset's workers.")
    parser.add_argument("--megabytes", type=int, nargs=2, default=[10, 60])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    from dataset import write_rows

    print(
        f"{'engine':10} {'rows/CPU s':>10} {'start CPU s':>11} {'clock s':>8} {'peak MiB':>9} {'size MiB':>9}  digest"
    )
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{megabytes}.jsonl" for megabytes in options.megabytes]
        for file, megabytes in zip(files, options.megabytes, strict=True):
            write_rows(file, megabytes)
        for name in options.engines:
            python, size = python_with(PACKAGES[name], Path(folder) / name)
            try:
                _report(name, size, *(measure(name, file, python) for file in files))
            except subprocess.CalledProcessError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)


def _report(name: str, size: float, small: dict[str, Any], large: dict[str, Any]) -> None:
    a_row = (large["cpu"] - small["cpu"]) / (large["rows"] - small["rows"])
    print(f"{name:10} {1 / a_row:10,.0f} {small['cpu'] - a_row * small['rows']:11.1f} {large['seconds']:8.1f}", end="")
    print(f" {large['peak']:9,.0f} {size:9,.0f}  {large['digest']}")


if __name__ == "__main__":
    main()
