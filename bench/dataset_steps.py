"""What the benchmarks of Datasets measure: steps of Hone, each in a process of its own.

The file of `write_rows` is made by repetition with variation: of 1,000 texts, each repetition has a third of its words
replaced; a tenth of the rows repeats an earlier one exactly, a tenth except for a few words.

Each process has one thread. Rates and ratios are of its CPU time, without imports: that of the clock on an idle
machine, and the same on a busy one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

BENCH = Path(__file__).parent
PEERS = {"datasets": (), "polars": ("polars==2.1.0",), "duckdb": ("duckdb==2.0.1",)}
"""What bench/dataset_peers.py has, and the packages that it needs in addition to this environment's."""
COLUMNS = {"prompt": "question", "completion": "answer"}
LIBRARIES = ("pyarrow.compute", "pyarrow.json", "pyarrow.parquet", "duckdb", "jinja2")
"""That Hone imports when it needs them: as those of its peers, before the time is taken."""
BUDGET_MIB = 1536
"""Peak memory that a process of Hone may take."""
QUIET = {
    **{"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"},
    **{"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"},
}
"""Environment of a process that has one thread and no hub."""


def write_rows(path: Path, megabytes: int, seed: int = 0) -> int:
    """Makes the file; gives its rows."""
    from hone_dev.campaigns.planted import text, word_source

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


def write_real(path: Path, megabytes: float) -> int:
    """Functions and their docstrings as questions and answers; gives the rows."""
    from real_text import write

    write("chats", path, megabytes)
    pairs = [[turn["content"] for turn in json.loads(line)["messages"]] for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({"question": a, "answer": b}) + "\n" for a, b in pairs))
    return len(pairs)


def write_short(path: Path, megabytes: float) -> int:
    """Rows of some 60 bytes; gives their number."""
    rows = int(megabytes * 10**6 / 60)
    with open(path, "w", encoding="utf-8") as file:
        for n in range(rows):
            file.write(json.dumps({"question": f"What is {n} + {n % 97}?", "answer": f"It is {n + n % 97}."}) + "\n")
    return rows


def write_noted(rows: Path, path: Path, seed: int = 0) -> None:
    """Makes a file of the rows with numbers and paths in each answer, and personal data in some."""
    from hone_dev.campaigns.planted_personal import samples

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


def hone_exact(rows: Path, work: Path) -> int:
    """The same with exact duplicates removed, and a twentieth held out."""
    return _materialised(rows, work, {"deduplicate": "Exact"}, "5%").rows


def hone_deduplicate(rows: Path, work: Path) -> int:
    """The same with exact and near duplicates removed."""
    return _materialised(rows, work, {"deduplicate": "Near"}).rows


def _materialised(rows: Path, work: Path, curation: dict[str, Any], held: str = "0%") -> Any:
    from hone_api.plan import MaterializePlan
    from hone_trainer.datasets import materialize

    plan = {
        "name": "bench",
        "store": str(work / "store"),
        "source": {"uri": "pvc://bench/rows.jsonl"},
        "sourcePath": str(rows),
        "columns": COLUMNS,
        "splits": {"validation": held},
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
    from hone_dev.models.models import smollm2
    from hone_trainer.encoding.conversation import Encoder
    from hone_trainer.models import base_model

    return Encoder(base_model.open_base(smollm2()).tokenizer)


MEASURED: dict[str, Callable[[Path, Path], int]] = {
    f.__name__: f
    for f in (
        hone_validate,
        hone_exact,
        hone_deduplicate,
        hone_redact,
        hone_tokenise,
    )
}


# -- processes ---------------------------------------------------------------------------------------------


def measure(name: str, rows: Path, work: Path) -> dict[str, float]:
    """One measurement: rows left, seconds by the clock and of CPU, peak MiB of a process."""
    work.mkdir()
    command = [sys.executable, __file__, name, str(rows), str(work)]
    if name in PEERS:
        script = (BENCH / "dataset_peers.py", name, str(rows), str(work))
        command = [sys.executable, *map(str, script)] if find_spec(name) else _with(PEERS[name], *script)
    done = subprocess.run(command, env={**os.environ, **QUIET}, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {"peak_mib": max(found.get("parent_mib", 0), found.get("worker_mib", 0)), **found}


def _with(packages: Sequence[str], script: Path, *arguments: str) -> list[str]:
    """The command of a script in an environment of its own, which uv makes."""
    added = [word for package in packages for word in ("--with", package)]
    uv = [str(Path(sys.executable).with_name("uv")), "run", "-q", "--no-project", "--isolated", *added]
    return [*uv, "--python", sys.executable, "python", str(script), *arguments]


def measured(name: str, rows: Path, work: Path) -> None:
    """In the process of its own."""
    import logging

    import hone_trainer.datasets.materialize  # noqa: F401
    from hone_trainer.workers import parallel

    for library in LIBRARIES:
        import_module(library)

    logging.disable(logging.WARNING)
    if name.endswith("tokenise"):
        _encoder()
    started, before = time.monotonic(), time.process_time()
    with mock.patch.object(parallel, "cores", return_value=1):
        left = MEASURED[name](rows, work)
    seconds, parent = time.monotonic() - started, time.process_time() - before
    theirs = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {"rows": left, "seconds": seconds, "cpu": parent + theirs.ru_utime + theirs.ru_stime}
    peaks = {"parent_mib": peak_mib(), "worker_mib": theirs.ru_maxrss / 1024}
    print(json.dumps({**found, **peaks}))


def peak_mib() -> float:
    """The most memory of this process. Not ru_maxrss: a process inherits that of the one that starts it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """One measurement, in the process of its own."""
    parser = argparse.ArgumentParser(description="One step on one file; `measure` starts it.")
    parser.add_argument("name", choices=MEASURED)
    parser.add_argument("rows", type=Path)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    measured(options.name, options.rows, options.work)


if __name__ == "__main__":
    main()
