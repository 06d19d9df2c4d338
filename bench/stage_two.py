"""The statements of a Dataset's second stage over synthetic rows, by DuckDB and by polars: CPU seconds, peak memory.

    uv run --with duckdb==2.0.1 --with polars==2.1.0 --with numpy --with pyarrow bench/stage_two.py [--rows 10000000]

Of the rows, a tenth repeats another one exactly, a hundredth shares a band with another one, and a fifth a question.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy

BANDS = 9
ROWS_OF_PART = 1_000_000


def write(folder: Path, rows: int) -> None:
    """Parts with the columns that these statements read."""
    import pyarrow
    import pyarrow.parquet

    random = numpy.random.default_rng(1)
    for part, start in enumerate(range(0, rows, ROWS_OF_PART)):
        count = min(ROWS_OF_PART, rows - start)

        def hashes(of: Any = None, count: int = count) -> Any:
            some = random.integers(0, 2**63, count, dtype=numpy.uint64)
            return some if of is None else numpy.where(random.random(count) < of[0], of[1] * numpy.uint64(977), some)

        near = random.integers(0, rows // 200 + 1, count).astype(numpy.uint64)
        columns = {
            "row": numpy.arange(start, start + count),
            "exact": hashes((0.2, random.integers(0, rows // 10, count).astype(numpy.uint64))),
            "content": hashes(),
            "question": hashes((0.2, random.integers(0, rows // 10, count).astype(numpy.uint64))),
            "label": random.integers(0, 1000, count).astype(str),
            "length": random.integers(10, 5000, count).astype(numpy.uint32),
            **{f"band{n}": hashes((0.01, near + numpy.uint64(n))) for n in range(BANDS)},
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"{part:06}.parquet", compression="zstd")


def duckdb(folder: Path, memory: str) -> dict[str, int]:
    """SQL, with a limit on memory."""
    import duckdb as engine

    con = engine.connect(config={"memory_limit": memory, "temp_directory": str(folder / "spilled"), "threads": 2})
    con.execute(f"CREATE VIEW parts AS SELECT * FROM read_parquet('{folder}/*.parquet')")

    def one(sql: str) -> Any:
        return con.execute(sql).fetchone()[0]

    con.execute(
        "CREATE TABLE repeats AS WITH firsts AS (SELECT exact, min(row) AS first FROM parts GROUP BY exact"
        " HAVING count(*) > 1) SELECT row, first FROM parts JOIN firsts USING (exact) WHERE row <> first"
    )
    con.execute("CREATE VIEW left_rows AS SELECT * FROM parts ANTI JOIN repeats USING (row)")
    con.execute("CREATE TABLE pairs (low BIGINT, high BIGINT)")
    for n in range(BANDS):
        con.execute(
            f"INSERT INTO pairs WITH keys AS (SELECT row, band{n} AS key FROM left_rows), met AS (SELECT key FROM keys"
            " GROUP BY key HAVING count(*) > 1), alike AS (SELECT row, first_value(row) OVER w AS first,"
            " lag(row) OVER w AS before FROM keys SEMI JOIN met USING (key)"
            " WINDOW w AS (PARTITION BY key ORDER BY row))"
            " SELECT first, row FROM alike WHERE first <> row"
            " UNION SELECT before, row FROM alike WHERE before IS NOT NULL"
        )
    return {
        "repeats": one("SELECT count(*) FROM repeats"),
        "pairs": one("SELECT count(*) FROM (SELECT DISTINCT low, high FROM pairs)"),
        "shared questions": one(
            "SELECT count(*) FROM (SELECT question FROM left_rows GROUP BY question HAVING count(*) > 1)"
        ),
        "over balance": one(
            "SELECT count(*) FROM (SELECT row_number() OVER (PARTITION BY label ORDER BY content, row) AS rank"
            " FROM left_rows) WHERE rank > 5000"
        ),
        "lengths": one("SELECT count(*) FROM (SELECT length, count(*) FROM left_rows GROUP BY length)"),
        "validation": one(f"SELECT count(*) FROM left_rows WHERE content < {2**63 // 20}"),
    }


def polars(folder: Path, memory: str) -> dict[str, int]:
    """Its streaming engine; memory: without meaning."""
    import polars as pl

    def count(frame: Any) -> int:
        return int(frame.select(pl.len()).collect(engine="streaming").item())

    parts = pl.scan_parquet(f"{folder}/*.parquet")
    firsts = (
        parts.group_by("exact").agg(pl.col("row").min().alias("first"), pl.len().alias("n")).filter(pl.col("n") > 1)
    )
    repeats = folder / "repeats.parquet.pl"
    parts.join(firsts, on="exact").filter(pl.col("row") != pl.col("first")).select("row", "first").sink_parquet(repeats)
    left = parts.join(pl.scan_parquet(repeats), on="row", how="anti")
    for n in range(BANDS):
        keys = left.select("row", key=pl.col(f"band{n}"))
        met = keys.group_by("key").agg(pl.len().alias("n")).filter(pl.col("n") > 1)
        some = (
            keys.join(met, on="key", how="semi")
            .sort("key", "row")
            .with_columns(first=pl.col("row").first().over("key"), before=pl.col("row").shift(1).over("key"))
        )
        both = pl.concat(
            [
                some.filter(pl.col("first") != pl.col("row")).select(low="first", high="row"),
                some.filter(pl.col("before").is_not_null()).select(low="before", high="row"),
            ]
        ).unique()
        both.sink_parquet(folder / f"pairs-{n}.pl")
    over = (
        left.select("label", "content", "row")
        .sort("label", "content", "row")
        .select(rank=pl.int_range(pl.len()).over("label"))
        .filter(pl.col("rank") >= 5000)
    )
    return {
        "repeats": count(pl.scan_parquet(repeats)),
        "pairs": count(pl.scan_parquet(f"{folder}/pairs-*.pl").unique()),
        "shared questions": count(left.group_by("question").agg(pl.len().alias("n")).filter(pl.col("n") > 1)),
        "over balance": count(over),
        "lengths": count(left.group_by("length").agg(pl.len())),
        "validation": count(left.filter(pl.col("content") < 2**63 // 20)),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="The statements of a Dataset's second stage, by two engines.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--memory", nargs="+", default=["1GB"], help="limit of DuckDB's memory; polars has none")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, folder, memory = options.one
        begin = time.monotonic()
        found = globals()[name](Path(folder), memory)
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu, seconds = used.ru_utime + used.ru_stime, time.monotonic() - begin
        print(
            f"{name:8} {memory:>6}: {cpu:6.1f} CPU s, {seconds:6.1f} s, {used.ru_maxrss // 1024:6,} MiB, {found}",
            flush=True,
        )
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="stage-two-") as folder:
        write(Path(folder), options.rows)
        for memory in options.memory:
            subprocess.run([sys.executable, __file__, "--one", "duckdb", folder, memory], check=False)
        subprocess.run([sys.executable, __file__, "--one", "polars", folder, "none"], check=False)


if __name__ == "__main__":
    main()
