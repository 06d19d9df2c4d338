"""What Hone's defaults train in a second next to TRL's: same model, rows, batch and adapter, in one run.

    make setup && .venv/bin/python bench/trainer_defaults.py [--data FOLDER] [--rows 24] [--sets chat,maths,forum]

Useful tokens are those of the assistant's answers, the same rows on both sides, so the ratio of useful tokens per
second is the inverse ratio of the time of one epoch (the second: the first warms up), by the clock, and by CPU time for
a busy machine. TRL's side is `SFTTrainer` with what SFTConfig has when nothing is said, and a rank-16 adapter on all
linear layers. It computes in bfloat16 then; so does Hone's side, by a setting on a CPU that has it. Exit code
1: a ratio is below 2.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from trainer_overhead import HERE, measure, write_plan

BATCH = 8
EPOCHS = 2
SMALLEST_RATIO = 2.0
LONGEST = 4_000
"""Characters of a row: both sides then train the same tokens, none is cut at the 1,024 tokens of TRL's default."""
Row = dict[str, Any]


def _chat(folder: Path) -> Iterator[Row]:
    """Short talks of several turns, in ShareGPT's form."""
    names = {"human": "user", "gpt": "assistant"}
    for talk in json.loads((folder / "fastchat" / "dummy_conversation.json").read_text()):
        yield {"messages": [{"role": names[t["from"]], "content": t["value"]} for t in talk["conversations"]]}


def _maths(folder: Path) -> Iterator[Row]:
    """A question and its worked answer."""
    for line in (folder / "gsm8k" / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        turns = (("user", row["question"]), ("assistant", row["answer"]))
        yield {"messages": [{"role": role, "content": text} for role, text in turns]}


def _forum(folder: Path) -> Iterator[Row]:
    """Questions with logs and answers, of very different lengths."""
    file = folder / "k8s_stackoverflow" / "k8s_so_messages_rows_0000-0499.jsonl"
    yield from map(json.loads, file.read_text().splitlines())


SETS: dict[str, Callable[[Path], Iterator[Row]]] = {"chat": _chat, "maths": _maths, "forum": _forum}


def pick(rows: Iterator[Row], count: int) -> list[Row]:
    """`count` rows by a seed, none too long."""
    fit = [row for row in rows if sum(len(m["content"]) for m in row["messages"]) < LONGEST]
    return random.Random(0).sample(fit, count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data", help="the public sets")
    parser.add_argument("--rows", type=int, default=24, help="rows of a set, a multiple of the batch")
    parser.add_argument("--sets", default=",".join(SETS), help="which, with commas between them")
    args = parser.parse_args()
    from hone_dev.models import models
    from hone_trainer import device

    training = {"epochs": str(EPOCHS), "batchSize": BATCH, "precision": "BFloat16" if device.here().bf16 else "Float32"}
    table = Table(
        "set",
        "TRL's defaults",
        "Hone's defaults",
        "useful tokens/s, ratio",
        "by CPU time",
        "peak memory, ratio",
        "held",
    )
    held = True
    for name in args.sets.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            rows = pick(SETS[name](args.data), args.rows)
            (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            plan = write_plan(folder, models.smollm2(), training)
            warm_up = args.rows // BATCH
            trl = measure(folder, [str(HERE / "plain_trl_defaults.py"), str(plan)], warm_up)
            ours = measure(folder, ["-m", "hone_trainer", "run", str(plan)], warm_up)
        ratio = trl.steps / ours.steps
        held = held and ratio >= SMALLEST_RATIO
        mark = "yes" if ratio >= SMALLEST_RATIO else "NO"
        cells = (
            f"{trl.steps:.1f} s",
            f"{ours.steps:.1f} s",
            f"{ratio:.2f}",
            f"{trl.cpu / ours.cpu:.2f}",
            f"{ours.peak / trl.peak:.2f}",
        )
        table.add_row(name, *cells, mark)
        print(f"{name}: TRL {trl}, Hone {ours}", file=sys.stderr)
    Console(width=110).print(table)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
