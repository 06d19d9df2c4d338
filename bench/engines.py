"""Engines on what is global in a Dataset: duplicates, near duplicates, groups, splits and contamination, as SQL.

    .venv/bin/python bench/engines.py [--rows 10000000] [--engines duckdb shared daft ray spark] [--folder /var/tmp]

All of them run the same statements over the same Parquet files, with two workers on one machine: DuckDB with two
threads and 2 GB; `shared`, two processes of DuckDB with 1 GB each that have the keys by their remainder and meet in
files alone; Daft in one process; Daft on Ray, two nodes; Spark, two executors of 1 GB. Each engine has a process with
packages of its own, which uv fetches; Spark needs Java 17. CPU time and memory are those of all processes, as the
kernel counts them in a control group: be root. The digest is of the verdict of each row. Needs 120 bytes of disk a row.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

BANDS, GRAMS, PARTS, NODES = 8, 4, 64, 2
_LOWEST = -(2**63) + 2**64 // 20
"""Groups below are validation."""
PACKAGES: dict[str, tuple[str, ...]] = {
    "duckdb": ("duckdb==2.0.1",),
    "shared": ("duckdb==2.0.1",),
    "daft": ("daft==0.7.26", "pyarrow"),
    "ray": ("daft[ray]==0.7.26", "ray==2.60.0", "pyarrow"),
    "spark": ("pyspark==4.3.0",),
}
Put = Callable[[str, str], None]
"""Writes what a statement gives to Parquet, under a name that later statements know."""


# -- rows and statements -----------------------------------------------------------------------------------------


def write_rows(rows: int, folder: Path) -> None:
    """Rows as stage 1 leaves them, without their text: 5 % are exact copies, 5 % share about half of their bands with
    another row, 10 % its question."""
    import numpy
    import pyarrow
    from pyarrow import parquet

    names = ["content", "grp", "question", *(f"b{n}" for n in range(BANDS)), *(f"n{n}" for n in range(GRAMS))]
    random = numpy.random.default_rng(7)
    columns = {name: random.integers(-(2**63), 2**63, rows, dtype=numpy.int64) for name in names}
    kind, like = random.random(rows), numpy.minimum(random.integers(0, rows, rows), numpy.arange(rows))

    def copy(names: list[str], chosen: Any) -> None:
        for name in names:
            columns[name][chosen] = columns[name][like[chosen]]

    near = (kind >= 0.05) & (kind < 0.1)
    for band in range(BANDS):
        copy([f"b{band}"], near & (random.random(rows) < 0.5))
    copy(["grp", "question"], near)
    copy(["question"], (kind >= 0.1) & (kind < 0.2))
    copy(names, kind < 0.05)
    asked = [columns["n1"][random.integers(0, rows, 20_000)], random.integers(-(2**63), 2**63, 80_000)]
    parquet.write_table(pyarrow.table({"gram": numpy.concatenate(asked)}), folder / "evalgrams.parquet")
    (folder / "parts").mkdir()
    ends = numpy.linspace(0, rows, PARTS + 1).astype(int)
    for n, (start, end) in enumerate(pairwise(ends)):
        part = {"row": numpy.arange(start, end), **{name: column[start:end] for name, column in columns.items()}}
        parquet.write_table(pyarrow.table(part), folder / "parts" / f"{n:05}.parquet", use_dictionary=False)


def by_key(parts: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Statements whose rows meet by one key each.

    Args:
        parts: for the name of a key, what is read: all rows, or those of a share of the keys.
    """

    def first(key: str) -> str:
        return f"SELECT {key} AS k, min(row) AS first FROM {parts(key)} GROUP BY {key} HAVING count(*) > 1"

    def others(key: str, keys: str) -> str:
        found = f"SELECT {keys}.first, parts.row FROM {parts(key)} JOIN {keys} ON parts.{key} = {keys}.k"
        return f"{found} WHERE parts.row > {keys}.first"

    yield "exact", first("content")
    yield "removed", others("content", "exact")
    for n in range(BANDS):
        yield f"keys{n}", first(f"b{n}")
        yield f"pairs{n}", others(f"b{n}", f"keys{n}")
    yield "questions", first("question")
    yield "asked", others("question", "questions")
    for n in range(GRAMS):
        on = f"parts.n{n} = evalgrams.gram"
        yield f"grams{n}", f"SELECT DISTINCT parts.row FROM {parts(f'n{n}')} JOIN evalgrams ON {on}"


def components(put: Put, changed: Callable[[str], int]) -> str:
    """The lowest row that each row is connected with; the name of the table."""
    pairs = " UNION ALL ".join(f"SELECT first, row FROM pairs{n}" for n in range(BANDS))
    put("pairs", f"SELECT DISTINCT first AS a, row AS b FROM ({pairs}) AS every_pair")
    put("edges", "SELECT a, b FROM pairs UNION ALL SELECT b AS a, a AS b FROM pairs")
    put("labels0", "SELECT a AS row, CASE WHEN a < min(b) THEN a ELSE min(b) END AS label FROM edges GROUP BY a")
    for n in range(100):
        old, new = f"labels{n}", f"labels{n + 1}"
        put(
            new,
            "SELECT edges.a AS row, min(CASE WHEN x.label < y.label THEN x.label ELSE y.label END) AS label "
            f"FROM edges JOIN {old} AS x ON edges.a = x.row JOIN {old} AS y ON edges.b = y.row GROUP BY edges.a",
        )
        differ = f"{old}.label <> {new}.label"
        if not changed(f"SELECT count(*) AS n FROM {old} JOIN {new} ON {old}.row = {new}.row WHERE {differ}"):
            return new
    raise AssertionError("the labels do not settle")


def verdicts(labels: str) -> str:
    """What becomes of each row. Daft takes a condition that is NULL for the value NULL, so it is made false."""
    grams = " UNION ".join(f"SELECT row FROM grams{n}" for n in range(GRAMS))
    return f"""SELECT parts.row AS row, CASE WHEN removed.row IS NOT NULL THEN 'exact'
        WHEN coalesce(l.label < parts.row, false) THEN 'near' WHEN met.row IS NOT NULL THEN 'contaminated'
        WHEN coalesce(asked.first * 7919, parts.grp) < {_LOWEST} THEN 'validation' ELSE 'train' END AS verdict
        FROM parts LEFT JOIN removed ON parts.row = removed.row LEFT JOIN {labels} AS l ON parts.row = l.row
        LEFT JOIN (SELECT DISTINCT row FROM ({grams}) AS every_gram) AS met ON parts.row = met.row
        LEFT JOIN asked ON parts.row = asked.row"""


def run(put: Put, count: Callable[[str], int]) -> None:
    """All statements."""
    for name, statement in by_key(lambda key: "parts"):
        put(name, statement)
    put("verdict", verdicts(components(put, count)))


# -- the engines -------------------------------------------------------------------------------------------------


class _DuckDb:
    def __init__(self, rows: Path, out: Path, threads: int, name: str = "all") -> None:
        import duckdb

        self._database, self._out, self._name = duckdb.connect(), out, name
        options = f"threads={threads}; SET memory_limit='{threads}GB'; SET temp_directory='{out}/spilt-{name}'"
        self.execute(f"SET {options}; SET preserve_insertion_order=false")
        self.view("every_part", f"{rows}/parts/*.parquet")
        self.execute(f"CREATE VIEW parts AS FROM every_part; CREATE VIEW evalgrams AS FROM '{rows}/evalgrams.parquet'")

    def execute(self, statement: str) -> None:
        self._database.execute(statement)

    def view(self, name: str, files: str) -> None:
        self.execute(f"CREATE VIEW {name} AS FROM '{files}'")

    def put(self, name: str, statement: str) -> None:
        (folder := self._out / name).mkdir(exist_ok=True)
        self.execute(f"COPY ({statement}) TO '{folder}/{self._name}.parquet'")
        self.view(name, f"{folder}/{self._name}.parquet")

    def count(self, statement: str) -> int:
        return int(self._database.execute(statement).fetchall()[0][0])


def duckdb(rows: Path, out: Path) -> None:
    """One process."""
    engine = _DuckDb(rows, out, NODES)
    run(engine.put, engine.count)


def share(rows: Path, out: Path, index: int) -> None:
    """The keys whose remainder is the index."""
    engine = _DuckDb(rows, out, 1, str(index))
    for name, statement in by_key(lambda key: f"(FROM every_part WHERE abs({key} % {NODES}) = {index}) AS parts"):
        engine.put(name, statement)


def shared(rows: Path, out: Path) -> None:
    """Two processes for what meets by a key; then one."""
    command = [sys.executable, __file__, "--share"]
    others = [subprocess.Popen([*command, str(n), str(rows), str(out)]) for n in range(NODES)]
    assert not any(process.wait() for process in others)
    engine = _DuckDb(rows, out, 1)
    for name, _ in by_key(str):
        engine.view(name, f"{out}/{name}/*.parquet")
    engine.put("verdict", verdicts(components(engine.put, engine.count)))


def daft(rows: Path, out: Path) -> None:
    """One process, all cores."""
    import daft

    tables = {"parts": daft.read_parquet(f"{rows}/parts/*.parquet")}
    tables["evalgrams"] = daft.read_parquet(f"{rows}/evalgrams.parquet")

    def put(name: str, statement: str) -> None:
        daft.sql(statement, **tables).write_parquet(str(out / name))
        tables[name] = daft.read_parquet(f"{out}/{name}/*.parquet")

    run(put, lambda statement: int(daft.sql(statement, **tables).to_pydict()["n"][0]))


def ray(rows: Path, out: Path) -> None:
    """Daft on two nodes of Ray, a core each."""
    import daft as engine
    import ray

    program = str(Path(sys.executable).with_name("ray"))
    few = ["--num-cpus=1", "--object-store-memory=1000000000"]
    head = ["--head", "--node-ip-address=127.0.0.1", "--port=26379", "--include-dashboard=false"]
    for node in (head, ["--address=127.0.0.1:26379"]):
        subprocess.run([program, "start", *node, *few], check=True, stdout=subprocess.DEVNULL)
    ray.init(address="127.0.0.1:26379", log_to_driver=False)
    engine.set_runner_ray()
    daft(rows, out)


def spark(rows: Path, out: Path) -> None:
    """A master and two workers, a core each."""
    import pyspark
    from pyspark.sql import SparkSession

    home = Path(pyspark.__file__).parent
    environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_DAEMON_MEMORY": "256m"}
    address = "spark://127.0.0.1:27077"
    part = "org.apache.spark.deploy"
    master = [f"{part}.master.Master", "--host", "127.0.0.1", "--port", "27077", "--webui-port", "27080"]
    worker = [f"{part}.worker.Worker", "--host", "127.0.0.1", "--cores", "1", "--memory", "1g", address]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    daemons = []
    for arguments in (master, *[worker] * NODES):
        daemons.append(subprocess.Popen([str(home / "bin" / "spark-class"), *arguments], **silent))
        time.sleep(6)
    options = {
        **{"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.ui.enabled": "false"},
        **{"spark.driver.memory": "1g", "spark.executor.memory": "1g", "spark.executor.cores": "1"},
        **{"spark.local.dir": str(out / "spilt"), "spark.sql.shuffle.partitions": "16"},
    }
    session = SparkSession.builder.master(address).config(map=options).getOrCreate()

    def put(name: str, statement: str) -> None:
        session.sql(statement).write.parquet(str(out / name))
        session.read.parquet(str(out / name)).createOrReplaceTempView(name)

    session.read.parquet(str(rows / "parts")).createOrReplaceTempView("parts")
    session.read.parquet(str(rows / "evalgrams.parquet")).createOrReplaceTempView("evalgrams")
    run(put, lambda statement: int(session.sql(statement).first()[0]))
    session.stop()
    for daemon in daemons:
        daemon.terminate()


ENGINES = {function.__name__: function for function in (duckdb, shared, daft, ray, spark)}


# -- the run -----------------------------------------------------------------------------------------------------


def measure(name: str, rows: Path, out: Path, python: str) -> dict[str, Any]:
    """Seconds by the clock and of CPU of all processes, peak MiB of all of them."""
    from memory_group import counted

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with counted() as (group, usage):
        started = time.monotonic()
        command = [python, "-P", __file__, "--run", name, str(rows), str(out)]
        subprocess.run(command, env=environment, check=True, preexec_fn=group.join)
        seconds = time.monotonic() - started
    return {"engine": name, "seconds": round(seconds), "cpu": round(usage.cpu, 1), "peak": round(usage.peak)}


def digest(folder: Path) -> list[Any]:
    """The number of rows, and a hash of what became of each."""
    import duckdb

    statement = f"SELECT count(*), bit_xor(hash(row, verdict)) FROM '{folder}/*.parquet'"
    return list(duckdb.connect().execute(statement).fetchall()[0])


def python_with(packages: tuple[str, ...], folder: Path) -> tuple[str, float]:
    """A Python that has the packages, and their installed size in MiB."""
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([uv, "pip", "install", "-q", "--python", python, *packages], check=True)
    size = sum(path.stat().st_size for path in (folder / "lib").rglob("*") if path.is_file())
    return python, size / 2**20


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Engines on what is global in a Dataset.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--share", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        ENGINES[options.run[0]](*map(Path, options.run[1:]))
    elif options.share:
        share(*map(Path, options.share[1:]), int(options.share[0]))
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            (rows := Path(folder) / "rows").mkdir()
            write_rows(options.rows, rows)
            for name in options.engines:
                (out := Path(folder) / name).mkdir()
                python, size = python_with(PACKAGES[name], out / "venv")
                figures = measure(name, rows, out, python)
                print(json.dumps({**figures, "installed": round(size), "digest": digest(out / "verdict")}), flush=True)
                shutil.rmtree(out)


if __name__ == "__main__":
    main()
