"""Rows and megabytes per second, and peak memory, of validating, deduplicating and tokenising a JSON Lines file.

    .venv/bin/python bench/dataset.py [--megabytes 100 1000] [--peers-up-to 1000] [--all-tokenised]

The file is made by repetition with variation: of 1,000 texts, each repetition has a third of its words replaced; a
tenth of the rows repeats an earlier one exactly, a tenth but for a few words. In the same run, on the same file:

- datasets: `load_dataset` and `map` with the very functions that Hone calls, near duplicates by rensa's deduplicator;
- personal data: the same rows with numbers, dates, paths and URLs among the words and, in one row of twenty, a planted
  sentence with personal data or what looks alike; redacted, and as they are.
- datatrove: the MinHash steps that made FineWeb, in an environment of its own (uv fetches it; left out without one);
- workers: Hone's validation and deduplication again by two workers, by the clock and by CPU time. The clock says little
  on a machine with other work; there, two ratios of CPU time bound the speed-up: all of it by that of one worker, and
  the share of the parent, which does its part alone.

Each measurement is a process of its own with one thread. Rates and ratios are of its CPU time, without imports: that of
the clock on an idle machine, and the same on a busy one. Below 1 Hone is the faster one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

BENCH = Path(__file__).parent
DATATROVE = ("datatrove==0.10.1", "orjson", "regex", "tokenizers", "xxhash<4")
COLUMNS = {"prompt": "question", "completion": "answer"}
TOKENISED_ROWS = 20_000
"""Rows that are tokenised unless all are: each by itself, so that their rate hardly depends on how many there are."""
WORKERS = 2
BUDGET_MIB = 1536
"""Peak memory that Hone may take for 1 GB."""


def write_rows(path: Path, megabytes: int, seed: int = 0) -> int:
    """Makes the file; gives its rows."""
    from hone_dev.planted import text, word_source

    rng = random.Random(seed)
    word = word_source(rng)
    texts = [(text(rng, word, 12, 40).split(), text(rng, word, 60, 240).split()) for _ in range(1000)]
    size, rows, last = 0, 0, [("", "")] * 1000
    with open(path, "wb") as file:
        while size < megabytes * 10**6:
            at = rng.randrange(len(texts))
            kind = rng.random() if last[at][0] else 1.0
            if kind < 0.1:
                made = last[at]
            elif kind < 0.2:
                made = (last[at][0], " ".join(_varied(rng, word, last[at][1].split(), 60)))
            else:
                question, answer = texts[at]
                made = last[at] = (" ".join(_varied(rng, word, question, 3)), " ".join(_varied(rng, word, answer, 3)))
            line = json.dumps({"question": made[0], "answer": made[1]}).encode() + b"\n"
            file.write(line)
            size, rows = size + len(line), rows + 1
    return rows


def write_noted(rows: Path, path: Path, seed: int = 0) -> None:
    """Makes a file of the rows with numbers and paths in each answer, and personal data in some."""
    from hone_dev.planted_personal import samples

    rng = random.Random(seed)
    sentences = [sample.text for sample in samples(seed)]
    with open(rows, encoding="utf-8") as lines, open(path, "w", encoding="utf-8") as file:
        for line in lines:
            row = json.loads(line)
            words = row["answer"].split()
            for _ in range(rng.randrange(5)):
                words.insert(rng.randrange(len(words)), _noted(rng))
            if rng.random() < 0.05:
                words.append(rng.choice(sentences))
            file.write(json.dumps({**row, "answer": " ".join(words)}) + "\n")


def _noted(rng: random.Random) -> str:
    number = rng.randrange(1000)
    ways = (
        f"{number}",
        f"{number}.{number}",
        f"2026-{1 + number % 12:02}-{10 + number % 19}",
        f"10.0.{number % 256}.7",
    )
    return rng.choice(
        (*ways, f"{number},{number:03}", f"/var/lib/app/{number}.log", f"https://example.org/docs/{number}.html")
    )


def _varied(rng: random.Random, word: Callable[[], str], words: list[str], every: int) -> list[str]:
    """A copy with one word in so many replaced."""
    made = list(words)
    for at in range(rng.randrange(every), len(made), every):
        made[at] = word()
    return made


# -- what is measured: each runs in a process of its own -------------------------------------------------


def hone_validate(rows: Path, work: Path) -> int:
    """Read, convert, check, divide, report, hash and publish."""
    return _materialised(rows, work, {}).rows


def hone_deduplicate(rows: Path, work: Path) -> int:
    """The same with exact and near duplicates removed."""
    return _materialised(rows, work, {"deduplicate": "Near"}).rows


def _materialised(rows: Path, work: Path, curation: dict[str, Any]) -> Any:
    from hone_api.plan import MaterializePlan
    from hone_trainer.datasets import materialize

    plan = {
        "name": "bench",
        "store": str(work / "store"),
        "source": {"uri": "pvc://bench/rows.jsonl"},
        "sourcePath": str(rows),
        "columns": COLUMNS,
        "splits": {"validation": "0%"},
        "curation": curation,
    }
    result = materialize.run(MaterializePlan.model_validate(plan))
    (work / "train").symlink_to(work / "store" / str(result.path) / "train.jsonl")
    return result


def hone_redact(rows: Path, work: Path) -> int:
    """The same with personal data redacted."""
    return _materialised(rows, work, {"personalData": "Redact"}).rows


def hone_tokenise(rows: Path, work: Path) -> int:
    """Normalised rows to ids and labels, one at a time."""
    encoder, count = _encoder(), 0
    for line in open(rows, encoding="utf-8"):  # noqa: SIM115
        encoder.encode(json.loads(line))
        count += 1
    return count


@cache
def _encoder() -> Any:
    from transformers import AutoTokenizer

    from hone_dev.models import smollm2
    from hone_trainer.encoding.conversation import Encoder

    return Encoder(AutoTokenizer.from_pretrained(smollm2()))


def datasets_validate(rows: Path, work: Path) -> int:
    """`load_dataset` and `map` with Hone's conversion; written as JSON Lines."""
    from datasets import load_dataset

    from hone_api.dataset import Format
    from hone_trainer.datasets.formats import FORMATS

    convert = FORMATS[Format.PROMPT_COMPLETION].normalise
    data = load_dataset("json", data_files=str(rows), split="train", cache_dir=str(work / "cache"))
    data = data.map(lambda row: convert(row, COLUMNS), remove_columns=data.column_names)
    data.to_json(str(work / "train"))
    return len(data)


def datasets_deduplicate(rows: Path, work: Path) -> int:
    """The same, then `filter` with Hone's n-grams and rensa's deduplicator."""
    from datasets import load_dataset
    from rensa import RMinHashDeduplicator

    from hone_api.dataset import Format
    from hone_trainer.datasets.curation.words import ngrams, split_words
    from hone_trainer.datasets.formats import FORMATS
    from hone_trainer.datasets.texts import joined

    convert = FORMATS[Format.PROMPT_COMPLETION].normalise
    seen = RMinHashDeduplicator(threshold=0.8, num_perm=128, use_lsh=True, num_bands=16)
    data = load_dataset("json", data_files=str(rows), split="train", cache_dir=str(work / "cache"))
    data = data.map(lambda row: convert(row, COLUMNS), remove_columns=data.column_names)

    def first(row: dict[str, Any], index: int) -> bool:
        return bool(seen.add_pairs([(str(index), ngrams(split_words(joined(row)), 3))])[0])

    data = data.filter(first, with_indices=True)
    data.to_json(str(work / "train"))
    return len(data)


def datasets_tokenise(rows: Path, work: Path) -> int:
    """`map` with Hone's encoder into the cache."""
    from datasets import load_dataset

    encoder = _encoder()
    data = load_dataset("json", data_files=str(rows), split="train", cache_dir=str(work / "cache"))

    def encode(row: dict[str, Any]) -> dict[str, list[int]]:
        made = encoder.encode(row)[0]
        return {"input_ids": made.input_ids, "labels": made.labels}

    return len(data.map(encode, remove_columns=data.column_names))


MEASURED: dict[str, Callable[[Path, Path], int]] = {
    f.__name__: f
    for f in (
        hone_validate,
        hone_deduplicate,
        hone_redact,
        hone_tokenise,
        datasets_validate,
        datasets_deduplicate,
        datasets_tokenise,
    )
}


# -- the run -----------------------------------------------------------------------------------------------


def measure(name: str, rows: Path, work: Path, workers: int = 1) -> dict[str, float]:
    """One measurement: rows left, seconds by the clock and of CPU (of it the parent's), peak MiB of a process."""
    work.mkdir()
    command = [sys.executable, __file__, "--measure", name, str(rows), str(work), "--workers", str(workers)]
    if name == "datatrove":
        script = [str(BENCH / "datatrove_minhash.py"), str(rows), str(work)]
        packages = [word for package in DATATROVE for word in ("--with", package)]
        command = [str(Path(sys.executable).with_name("uv")), "run", "-q", "--no-project", "--isolated", *packages]
        command += ["--python", sys.executable, "python", *script]
    environment = {
        **os.environ,
        **{"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"},
        **{"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"},
    }
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(name: str, rows: Path, work: Path, workers: int) -> None:
    """In the process of its own."""
    import logging

    if name.startswith("datasets"):
        import datasets  # noqa: F401
    import hone_trainer.datasets.materialize  # noqa: F401
    from hone_trainer.workers import parallel

    logging.disable(logging.WARNING)
    if name.endswith("tokenise"):
        _encoder()
    started, worked = time.monotonic(), time.process_time()
    with mock.patch.object(parallel, "cores", return_value=workers):
        left = MEASURED[name](rows, work)
    seconds, parent = time.monotonic() - started, time.process_time() - worked
    mine, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu, peak = parent + theirs.ru_utime + theirs.ru_stime, max(mine.ru_maxrss, theirs.ru_maxrss) / 1024
    print(json.dumps({"rows": left, "seconds": seconds, "cpu": cpu, "parent": parent, "peak_mib": peak}))


def run(
    megabytes: int, folder: Path, peers: bool, tokenised: int | None
) -> Iterator[tuple[str, int, dict[str, float]]]:
    """(name, rows in, measurement) one after the other; tokenising reads the first of what deduplicating left."""
    rows = folder / f"rows-{megabytes}.jsonl"
    count = write_rows(rows, megabytes)
    families = ("hone", "datasets") if peers else ("hone",)
    for step in ("validate", "deduplicate"):
        made = measure(f"hone_{step}", rows, folder / f"hone-{step}-2", WORKERS)
        yield f"hone_{step}_{WORKERS}", count, made
    for family in families:
        for step in ("validate", "deduplicate"):
            yield f"{family}_{step}", count, measure(f"{family}_{step}", rows, folder / f"{family}-{step}")
    if peers:
        try:
            yield "datatrove", count, measure("datatrove", rows, folder / "datatrove")
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"datatrove is left out: {error}")
    noted = folder / "noted.jsonl"
    write_noted(rows, noted)
    for name, step in (("hone_keep", "hone_validate"), ("hone_redact", "hone_redact")):
        yield name, count, measure(step, noted, folder / name)
    sample = folder / "sample.jsonl"
    with open(folder / "hone-deduplicate" / "train", "rb") as left, open(sample, "wb") as file:
        file.writelines(itertools.islice(left, tokenised))
    for family in families:
        made = measure(f"{family}_tokenise", sample, folder / f"{family}-tokenise")
        yield f"{family}_tokenise", int(made["rows"]), {**made, "mb": sample.stat().st_size / 10**6}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Throughput and memory of a Dataset's preparation.")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--peers-up-to", type=int, default=100, help="megabytes up to which the others run, too")
    parser.add_argument(
        "--all-tokenised", action="store_true", help=f"tokenise all rows that are left, not {TOKENISED_ROWS:,} of them"
    )
    parser.add_argument("--folder", type=Path, help="for files of some three times the size; default: temporary")
    parser.add_argument("--measure", nargs=3, metavar=("NAME", "ROWS", "WORK"), help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, rows, work = options.measure
        measured(name, Path(rows), Path(work), options.workers)
        return
    totals: dict[int, float] = {}
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-dataset-") as folder:
            totals[megabytes] = _report(megabytes, Path(folder), options)
    sizes = sorted(totals)
    if len(sizes) > 1:
        small, large = sizes[0], sizes[-1]
        growth = (totals[large] / large) / (totals[small] / small)
        print(f"\nvalidate + deduplicate, time per MB at {large} MB / at {small} MB: {growth:.2f} (1: linear)")


def _report(megabytes: int, folder: Path, options: argparse.Namespace) -> float:
    """Prints the table of one size; gives the CPU seconds of Hone's two steps that see all rows."""
    found: dict[str, tuple[int, dict[str, float]]] = {}
    peers, tokenised = megabytes <= options.peers_up_to, None if options.all_tokenised else TOKENISED_ROWS
    print(f"\n{f'{megabytes} MB':22} {'rows in':>9} {'left':>9} {'clock s':>8} {'CPU s':>8}", end="")
    print(f" {'rows/s':>8} {'MB/s':>6} {'peak MiB':>9}", flush=True)
    for name, count, made in run(megabytes, folder, peers, tokenised):
        found[name] = (count, made)
        print(f"{name:22} {count:9,} {made['rows']:9,.0f} {made['seconds']:8.1f} {made['cpu']:8.1f}", end="")
        rate = made.get("mb", megabytes) / made["cpu"]
        print(f" {count / made['cpu']:8,.0f} {rate:6.2f} {made['peak_mib']:9,.0f}", flush=True)
    cpu = {name: made["cpu"] for name, (_, made) in found.items()}
    for step in ("validate", "deduplicate"):
        _report_workers(step, found[f"hone_{step}"][1], found[f"hone_{step}_{WORKERS}"][1])
    for step in ("validate", "deduplicate", "tokenise") if peers else ():
        print(f"{step}: hone / datasets {cpu[f'hone_{step}'] / cpu[f'datasets_{step}']:.2f} of the time")
    print(f"personal data: redacted / kept {cpu['hone_redact'] / cpu['hone_keep']:.2f} of the time")
    if "datatrove" in cpu:
        alone = cpu["hone_deduplicate"] - cpu["hone_validate"]
        print(f"near duplicates alone: hone / datatrove {alone / cpu['datatrove']:.2f} of the time")
    peak = max(made["peak_mib"] for name, (_, made) in found.items() if name.startswith("hone"))
    print(f"peak of hone {peak:,.0f} MiB, {peak / BUDGET_MIB:.0%} of {BUDGET_MIB} MiB")
    count, left = found["hone_deduplicate"][0], found["hone_deduplicate"][1]["rows"]
    total = cpu["hone_deduplicate"] + cpu["hone_tokenise"] * left / found["hone_tokenise"][0]
    rate = f"{count / total:,.0f} rows/s, {megabytes / total:.2f} MB/s"
    print(f"validate + deduplicate + tokenise: {rate}", flush=True)
    return cpu["hone_deduplicate"]


def _report_workers(step: str, one: dict[str, float], several: dict[str, float]) -> None:
    """What workers give by the clock, and what their CPU times allow on an idle machine."""
    more, share = several["cpu"] / one["cpu"], several["parent"] / several["cpu"]
    bound = min(WORKERS, 1 / share) / more
    print(
        f"{step}: {WORKERS} workers / 1 {one['seconds'] / several['seconds']:.2f} times as fast by the clock;", end=" "
    )
    print(f"CPU {more:.2f} times, {share:.0%} of it the parent's: at most {bound:.2f} times as fast")


if __name__ == "__main__":
    main()
