"""Preparing a Dataset next to what people would write: rows and megabytes per CPU second, and peak memory.

    .venv/bin/python bench/dataset.py [--megabytes 20 100] [--all-tokenised]
    .venv/bin/python bench/dataset.py --written [--rows FILE]

Exit code 1 when a process of Hone takes more than 1.5 GiB, or, with --written, more CPU time than BOUNDS. In one run,
on the same generated file of JSON Lines:

- personal data: the same rows with numbers, dates, paths and URLs among the words and, in one row of twenty, a planted
  sentence with personal data or what looks alike; redacted, and as they are.

With --written only: check, remove exact duplicates, hold a twentieth out and write, by Hone (also with near duplicates
removed) and as a user of `datasets`, polars or DuckDB would write it (bench/dataset_peers.py), on functions with their
docstrings from the installed packages (bench/real_text.py), on rows of 60 bytes, or on a file with question and answer.
uv fetches polars and DuckDB; without it: "not installed".
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from dataset_steps import BUDGET_MIB, PEERS, measure, write_noted, write_real, write_rows, write_short

BOUNDS = {"real": ("datasets", 1.5), "given": ("datasets", 1.5), "short": ("polars", 10)}
"""Most CPU time of Hone with exact duplicates removed, as a multiple of a peer's."""
TOKENISED_ROWS = 20_000
"""Rows that are tokenised unless all are: each by itself, so that their rate hardly depends on how many there are."""


def run(megabytes: int, folder: Path, tokenised: int | None) -> Iterator[tuple[str, int, dict[str, float]]]:
    """(name, rows in, measurement) one after the other; tokenising reads the first of what deduplicating left."""
    rows = folder / f"rows-{megabytes}.jsonl"
    count = write_rows(rows, megabytes)
    for step in ("validate", "deduplicate"):
        yield f"hone_{step}", count, measure(f"hone_{step}", rows, folder / f"hone-{step}")
    noted = folder / "noted.jsonl"
    write_noted(rows, noted)
    for name, step in (("hone_keep", "hone_validate"), ("hone_redact", "hone_redact")):
        yield name, count, measure(step, noted, folder / name)
    sample = folder / "sample.jsonl"
    with open(folder / "hone-deduplicate" / "train", "rb") as left, open(sample, "wb") as file:
        file.writelines(islice(left, tokenised))
    size = {"mb": sample.stat().st_size / 10**6}
    made = measure("hone_tokenise", sample, folder / "hone-tokenise")
    yield "hone_tokenise", int(made["rows"]), {**made, **size}


def report(megabytes: int, folder: Path, options: argparse.Namespace, missed: list[str]) -> float:
    """Prints the table of one size; gives the CPU seconds of Hone's two steps that see all rows."""
    found: dict[str, tuple[int, dict[str, float]]] = {}
    tokenised = None if options.all_tokenised else TOKENISED_ROWS
    _head(f"{megabytes} MB")
    for name, count, made in run(megabytes, folder, tokenised):
        found[name] = (count, made)
        _line(name, count, made, made.get("mb", megabytes))
    cpu = {name: made["cpu"] for name, (_, made) in found.items()}
    print(f"personal data: redacted / kept {cpu['hone_redact'] / cpu['hone_keep']:.2f} of the time")
    peak = max(made["peak_mib"] for _, made in found.values())
    print(f"peak of a process of hone {peak:,.0f} MiB, {peak / BUDGET_MIB:.0%} of {BUDGET_MIB} MiB")
    if peak > BUDGET_MIB:
        missed.append(f"{peak:,.0f} MiB at {megabytes} MB: over {BUDGET_MIB} MiB")
    count, left = found["hone_deduplicate"][0], found["hone_deduplicate"][1]["rows"]
    total = cpu["hone_deduplicate"] + cpu["hone_tokenise"] * left / found["hone_tokenise"][0]
    rates = f"{count / total:,.0f} rows/s, {megabytes / total:.2f} MB/s"
    print(f"validate + deduplicate + tokenise: {rates}", flush=True)
    return cpu["hone_deduplicate"]


def _head(title: str) -> None:
    print(
        f"\n{title:22} {'rows in':>9} {'left':>9} {'clock s':>8} {'CPU s':>8} {'rows/s':>8} {'MB/s':>6} {'peak MiB':>9}"
    )


def _line(name: str, count: int, made: dict[str, float], megabytes: float) -> None:
    print(f"{name:22} {count:9,} {made['rows']:9,.0f} {made['seconds']:8.1f} {made['cpu']:8.1f}", end="")
    print(f" {count / made['cpu']:8,.0f} {megabytes / made['cpu']:6.2f} {made['peak_mib']:9,.0f}", flush=True)


def written(rows: Path, title: str, folder: Path) -> bool:
    """Prints Hone next to its peers on one file; whether it keeps within BOUNDS."""
    with open(rows, "rb") as file:
        count = sum(1 for _ in file)
    megabytes = rows.stat().st_size / 10**6
    _head(f"{title}, {megabytes:.1f} MB")
    cpu = {}
    near = () if title == "short" else ("hone_deduplicate",)  # sums are alike on purpose
    for name in ("hone_exact", *near, *PEERS):
        try:
            made = measure(name, rows, folder / f"{rows.stem}-{name}")
        except (OSError, subprocess.CalledProcessError):
            print(f"{name:22} not installed")
            continue
        cpu[name] = made["cpu"]
        _line(name, count, made, megabytes)
    print(
        ", ".join(f"hone / {name} {cpu['hone_exact'] / cpu[name]:.1f}" for name in PEERS if name in cpu),
        "of the CPU time",
    )
    peer, most = BOUNDS[title]
    kept = peer not in cpu or cpu["hone_exact"] <= most * cpu[peer]
    print("" if kept else f"more than {most} times {peer}")
    return kept


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Throughput and memory of a Dataset's preparation.")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[20, 100])
    parser.add_argument(
        "--all-tokenised", action="store_true", help=f"tokenise all rows that are left, not {TOKENISED_ROWS:,} of them"
    )
    parser.add_argument("--folder", type=Path, help="for files of some three times the size; default: temporary")
    parser.add_argument("--written", action="store_true", help="only next to what people would write")
    parser.add_argument("--rows", type=Path, help="with --written: rows with question and answer; default: see above")
    options = parser.parse_args()
    if options.written:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-dataset-") as place:
            folder, size = Path(place), max(options.megabytes)
            files = {"given": options.rows} if options.rows else {}
            for name, write in (("real", write_real), ("short", write_short)) if not files else ():
                files[name] = folder / f"{name}.jsonl"
                write(files[name], size)
            return int(not all([written(rows, name, folder) for name, rows in files.items()]))
    totals: dict[int, float] = {}
    missed: list[str] = []
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-dataset-") as folder:
            totals[megabytes] = report(megabytes, Path(folder), options, missed)
    small, large = min(totals), max(totals)
    if small != large:
        growth = (totals[large] / large) / (totals[small] / small)
        print(f"\nvalidate + deduplicate, time per MB at {large} MB / at {small} MB: {growth:.2f} (1: linear)")
    print("".join(f"MISSED: {bound}\n" for bound in missed) or "all bounds are held")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
