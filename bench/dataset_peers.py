"""What a user of `datasets`, polars or DuckDB would write for the work of a Dataset, for bench/dataset.py.

    python bench/dataset_peers.py {datasets,polars,duckdb} ROWS WORK [--prompt question] [--completion answer]

Rows whose prompt and completion are texts with something in them; each once, by the text without case and white space
at its ends; one of twenty, by a hash, for validation; both parts as JSON Lines. One thread. No advice, no report, no
reasons for what is left out, and one bad line ends it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

SHARE = 20


def by_datasets(rows: Path, work: Path, prompt: str, completion: str) -> int:
    """Batched functions, as its documentation advises."""
    import datasets

    seen: set[bytes] = set()

    def keys(batch: dict[str, Any]) -> list[str]:
        return [
            f"{a.strip().lower()}\0{b.strip().lower()}" for a, b in zip(batch[prompt], batch[completion], strict=True)
        ]

    def good(batch: dict[str, Any]) -> list[bool]:
        made = []
        for a, b, key in zip(batch[prompt], batch[completion], keys(batch), strict=True):
            digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
            made.append(bool(a and a.strip() and b and b.strip()) and digest not in seen)
            seen.add(digest)
        return made

    def held(batch: dict[str, Any]) -> list[bool]:
        return [hashlib.blake2b(key.encode(), digest_size=4).digest()[0] * SHARE < 256 for key in keys(batch)]

    data = datasets.load_dataset("json", data_files=str(rows), split="train", cache_dir=str(work / "cache"))
    data = data.select_columns([prompt, completion]).rename_columns({prompt: "prompt", completion: "completion"})
    prompt, completion = "prompt", "completion"
    data = data.filter(good, batched=True)
    data.filter(held, batched=True).to_json(str(work / "validation.jsonl"))
    data.filter(lambda batch: [not one for one in held(batch)], batched=True).to_json(str(work / "train.jsonl"))
    return len(data)


def by_polars(rows: Path, work: Path, prompt: str, completion: str) -> int:
    """Its streaming engine."""
    import polars as pl

    data = (
        pl.scan_ndjson(rows)
        .select(prompt=pl.col(prompt), completion=pl.col(completion))
        .filter(*(pl.col(name).str.strip_chars().str.len_bytes() > 0 for name in ("prompt", "completion")))
        .with_columns(key=pl.concat_str(pl.col("prompt", "completion").str.strip_chars().str.to_lowercase()).hash())
        .unique("key", keep="first", maintain_order=True)
        .collect(engine="streaming")
    )
    for name, part in (("validation", data["key"] % SHARE == 0), ("train", data["key"] % SHARE != 0)):
        data.filter(part).drop("key").write_ndjson(work / f"{name}.jsonl")
    return len(data)


def by_duckdb(rows: Path, work: Path, prompt: str, completion: str) -> int:
    """SQL."""
    import duckdb

    database = duckdb.connect(config={"threads": 1})
    database.execute(
        f"""create table rows as select "{prompt}" as prompt, "{completion}" as completion,
        hash(lower(trim("{prompt}")), lower(trim("{completion}"))) as key
        from read_json('{rows}', format = 'newline_delimited')
        where length(trim("{prompt}")) > 0 and length(trim("{completion}")) > 0
        qualify row_number() over (partition by key) = 1"""
    )
    for name, sign in (("validation", "="), ("train", "<>")):
        part = f"select prompt, completion from rows where key % {SHARE} {sign} 0"
        database.execute(f"copy ({part}) to '{work / name}.jsonl' (format json)")
    return int(database.execute("select count(*) from rows").fetchone()[0])


PEERS = {"datasets": by_datasets, "polars": by_polars, "duckdb": by_duckdb}


def main() -> None:
    """One peer, in a process of its own; imports do not count."""
    parser = argparse.ArgumentParser(description="One peer on one file.")
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("rows", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--prompt", default="question")
    parser.add_argument("--completion", default="answer")
    options = parser.parse_args()
    os.environ["POLARS_MAX_THREADS"] = "1"
    __import__(options.name)
    start, cpu = time.monotonic(), time.process_time()
    left = PEERS[options.name](options.rows, options.work, options.prompt, options.completion)
    # Not ru_maxrss: a process inherits that of the one that starts it.
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    found = {"rows": left, "seconds": time.monotonic() - start, "cpu": time.process_time() - cpu}
    print(json.dumps({**found, "peak_mib": peak / 1024}))


if __name__ == "__main__":
    main()
