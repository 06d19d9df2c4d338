"""Rows and megabytes per second, and peak memory, of validating, deduplicating and tokenising a JSON Lines file.

    .venv/bin/python bench/dataset.py [--megabytes 100 1000] [--peers-up-to 1000] [--all-tokenised]

Exit code 1 when a bound is missed: two workers are 1.8 times as fast as one (by the critical path), 1.5 GiB a process.

The file is made by repetition with variation: of 1,000 texts, each repetition has a third of its words replaced; a
tenth of the rows repeats an earlier one exactly, a tenth but for a few words. In the same run, on the same file:

- datasets: `load_dataset` and `map` with the very functions that Hone calls, near duplicates by rensa's deduplicator;
- personal data: the same rows with numbers, dates, paths and URLs among the words and, in one row of twenty, a planted
  sentence with personal data or what looks alike; redacted, and as they are.
- datatrove: the MinHash steps that made FineWeb, in an environment of its own (uv fetches it; left out without one);
- workers: Hone's validation, deduplication and tokenising again by two workers, by the clock and by CPU time. The clock
  says little on a machine with other work. There, the critical path is what an idle one takes: of each phase the CPU
  time of the parent, or that of all processes by two if it is longer; nothing else runs where the parent is alone.

With --gigabytes, only Hone's validation and deduplication by two workers, at each of these sizes: a verdict on the
memory of each process, and on the CPU time by gigabyte at the smallest and at each other size. Files need six times the
largest size.

    .venv/bin/python bench/dataset.py --gigabytes 1 2 4 10 --folder /var/tmp

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
import shutil
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
"""Peak memory that a process of Hone may take."""
STEPS = ("validate", "deduplicate", "tokenise")
SPEED_UP = 1.8
"""Of two workers on two idle cores: validation, deduplication and tokenising together."""
LINEAR = 0.15
"""How much the CPU time by gigabyte may differ."""


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
    """Normalised rows to ids and labels, as a run's encoding does it."""
    from hone_trainer.encoding import chunks, writing
    from hone_trainer.encoding.split_file import Policy
    from hone_trainer.workers import parallel

    encoder = _encoder()
    task = writing.Task(rows, encoder, Policy(None), 2**17, "SFT")
    pieces = chunks.chunks(rows)
    writing.write(task, work / "encoded", pieces, lambda lines, tokens: None, parallel.cores())
    return sum(piece.lines for piece in pieces)


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
    found["peak_mib"] = max(found["parent_mib"], found["worker_mib"])
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
    started, phases = time.monotonic(), Phases()
    with mock.patch.object(parallel, "cores", return_value=workers), phases.of_workers(parallel.Workers):
        left = MEASURED[name](rows, work)
    seconds, parent, critical = time.monotonic() - started, phases.parent, phases.critical(workers)
    mine, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    found = {"rows": left, "seconds": seconds, "cpu": parent + theirs.ru_utime + theirs.ru_stime, "parent": parent}
    peaks = {"parent_mib": mine.ru_maxrss / 1024, "worker_mib": theirs.ru_maxrss / 1024}
    print(json.dumps({**found, "critical": critical, **peaks}))


class Phases:
    """CPU seconds of this process and of its children, cut where the workers begin or end something."""

    def __init__(self) -> None:
        self._started = self._last = (time.process_time(), 0.0)
        self._cuts: list[tuple[float, float]] = []

    @property
    def parent(self) -> float:
        return time.process_time() - self._started[0]

    def critical(self, cores: int) -> float:
        """What idle cores take: in each phase the parent's time, or an even share of all if that is longer."""
        self._cut()
        return sum(max(parent, (parent + children) / cores) for parent, children in self._cuts)

    def of_workers(self, workers: Any) -> Any:
        """Patches the class, so that a phase begins and ends with each of its maps."""
        apply = workers.map

        def map_in_phase(this: Any, function: Any, items: Any) -> Iterator[Any]:
            self._cut()
            yield from apply(this, function, items)
            self._cut()

        return mock.patch.object(workers, "map", map_in_phase)

    def _cut(self) -> None:
        now = (time.process_time(), _children_cpu())
        self._cuts.append((now[0] - self._last[0], max(0.0, now[1] - self._last[1])))
        self._last = now


def _children_cpu() -> float:
    """CPU seconds of the children that live, and of those that ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = ended.ru_utime + ended.ru_stime
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


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
    size = {"mb": sample.stat().st_size / 10**6}
    made = measure("hone_tokenise", sample, folder / "hone-tokenise-2", WORKERS)
    yield f"hone_tokenise_{WORKERS}", int(made["rows"]), {**made, **size}
    for family in families:
        made = measure(f"{family}_tokenise", sample, folder / f"{family}-tokenise")
        yield f"{family}_tokenise", int(made["rows"]), {**made, **size}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Throughput and memory of a Dataset's preparation.")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--gigabytes", type=float, nargs="+", help="only Hone's steps that see all rows, at each size")
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
        return 0
    if options.gigabytes:
        return _report_stages([round(1000 * size) for size in options.gigabytes], options.folder)
    totals: dict[int, float] = {}
    missed: list[str] = []
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-dataset-") as folder:
            totals[megabytes] = _report(megabytes, Path(folder), options, missed)
    sizes = sorted(totals)
    if len(sizes) > 1:
        small, large = sizes[0], sizes[-1]
        growth = (totals[large] / large) / (totals[small] / small)
        print(f"\nvalidate + deduplicate, time per MB at {large} MB / at {small} MB: {growth:.2f} (1: linear)")
    print("".join(f"MISSED: {bound}\n" for bound in missed) or "all bounds are held")
    return 1 if missed else 0


def _report_stages(sizes: list[int], folder: Path | None) -> int:
    """Validation and deduplication by two workers at each size in MB: prints a line for each, then the verdict."""
    first, missed = 0.0, []
    print(f"{'MB':>7} {'rows in':>11} {'left':>11} {'clock s':>9} {'CPU s':>9} {'s/GB':>7} {'critical s':>10}", end="")
    print(f" {'parent MiB':>10} {'worker MiB':>10}")
    for size in sorted(sizes):
        with tempfile.TemporaryDirectory(dir=folder, prefix="bench-dataset-") as work:
            rows = Path(work) / "rows.jsonl"
            if shutil.disk_usage(work).free < 6 * size * 10**6:
                missed.append(f"{size} MB are not measured: six times as much must be free in {work}")
                continue
            count = write_rows(rows, size)
            made = measure("hone_deduplicate", rows, Path(work) / "hone", WORKERS)
        each = made["cpu"] / size * 1000
        first = first or each
        print(f"{size:7,} {count:11,} {made['rows']:11,.0f} {made['seconds']:9,.1f} {made['cpu']:9,.1f}", end="")
        print(
            f" {each:7.1f} {made['critical']:10,.1f} {made['parent_mib']:10,.0f} {made['worker_mib']:10,.0f}",
            flush=True,
        )
        if abs(each / first - 1) > LINEAR:
            missed.append(f"{each:.1f} CPU s/GB at {size} MB, {first:.1f} at the smallest: over {LINEAR:.0%} apart")
        if made["peak_mib"] > BUDGET_MIB:
            missed.append(f"{made['peak_mib']:,.0f} MiB at {size} MB: over {BUDGET_MIB} MiB")
    verdict = f"memory below {BUDGET_MIB} MiB a process, time linear within {LINEAR:.0%}"
    print("".join(f"MISSED: {bound}\n" for bound in missed) or verdict)
    return 1 if missed else 0


def _report(megabytes: int, folder: Path, options: argparse.Namespace, missed: list[str]) -> float:
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
    steps = {step: (found[f"hone_{step}"][1], found[f"hone_{step}_{WORKERS}"][1]) for step in STEPS}
    for step, (single, several) in steps.items():
        _report_workers(step, single, several)
    weights = {"deduplicate": 1.0, "tokenise": found["hone_deduplicate"][1]["rows"] / found["hone_tokenise"][0]}
    ratio = _ratio(steps, weights, "cpu", "critical")
    print(
        f"validate + deduplicate + tokenise: {WORKERS} workers / 1 {_ratio(steps, weights, 'seconds', 'seconds'):.2f}",
        end="",
    )
    print(f" times as fast by the clock, {ratio:.2f} by CPU (bound {SPEED_UP})")
    if ratio < SPEED_UP:
        missed.append(f"two workers are {ratio:.2f} times as fast as one at {megabytes} MB")
    for step in ("validate", "deduplicate", "tokenise") if peers else ():
        print(f"{step}: hone / datasets {cpu[f'hone_{step}'] / cpu[f'datasets_{step}']:.2f} of the time")
    print(f"personal data: redacted / kept {cpu['hone_redact'] / cpu['hone_keep']:.2f} of the time")
    if "datatrove" in cpu:
        alone = cpu["hone_deduplicate"] - cpu["hone_validate"]
        print(f"near duplicates alone: hone / datatrove {alone / cpu['datatrove']:.2f} of the time")
    peak = max(made["peak_mib"] for name, (_, made) in found.items() if "hone" in name)
    print(f"peak of a process of hone {peak:,.0f} MiB, {peak / BUDGET_MIB:.0%} of {BUDGET_MIB} MiB")
    if peak > BUDGET_MIB:
        missed.append(f"{peak:,.0f} MiB at {megabytes} MB: over {BUDGET_MIB} MiB")
    count, left = found["hone_deduplicate"][0], found["hone_deduplicate"][1]["rows"]
    total = cpu["hone_deduplicate"] + cpu["hone_tokenise"] * left / found["hone_tokenise"][0]
    rates = f"{count / total:,.0f} rows/s, {megabytes / total:.2f} MB/s"
    print(f"validate + deduplicate + tokenise: {rates}", flush=True)
    return cpu["hone_deduplicate"]


def _report_workers(step: str, one: dict[str, float], several: dict[str, float]) -> None:
    """What workers give by the clock, and what their CPU times allow on an idle machine."""
    clock, share = one["seconds"] / several["seconds"], several["parent"] / several["cpu"]
    print(f"{step}: {WORKERS} workers / 1 {clock:.2f} times as fast by the clock,", end=" ")
    print(f"{one['cpu'] / several['critical']:.2f} by CPU; CPU {several['cpu'] / one['cpu']:.2f} times,", end=" ")
    print(f"{share:.0%} of it the parent's")


def _ratio(
    steps: dict[str, tuple[dict[str, float], dict[str, float]]], weights: dict[str, float], one: str, several: str
) -> float:
    """Of one worker's figure by that of several, over steps with their weights."""
    mine = sum(weight * steps[step][0][one] for step, weight in weights.items())
    return mine / sum(weight * steps[step][1][several] for step, weight in weights.items())


if __name__ == "__main__":
    sys.exit(main())
