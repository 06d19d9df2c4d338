"""Compares Hone's encoder with `datasets.map`: tokens per CPU second, with the same template and masks.

    make setup && .venv/bin/python bench/encode.py [--megabytes 20] [--repeats 3] [--kinds prose,code] [--busy]
    .venv/bin/python bench/encode.py --quick

Rows are real text of the installed packages (bench/real_text.py: chats, prose, code), or read from files of normalised
rows. The tokenizer is SmolLM2's. On the same rows, in processes of their own, alternating:

- chats: Hone's encoder, with its checks, writes its folder; `load_dataset` and `map` of `apply_chat_template(...,
  return_assistant_tokens_mask=True)`, as TRL's SFTTrainer calls it for `assistant_only_loss`, with SmolLM2's template
  and `{% generation %}` around what the assistant says. Token ids and masks of both are compared, row for row.
- prose, code, texts: Hone's encoder of DAPT, without a bound on the length; `map` of the tokenizer in batches,
  with end of sequence.

Rates are tokens a second of CPU, of a process and its workers, without imports; of the repeats, the one with the least
CPU time counts, since other work on the machine only adds to it. With two workers, `clock` is the time of one worker by
that of two, the median of the repeats, and `CPU` is what the CPU seconds of parent and workers allow on two idle cores.
What the parent does before the first chunk is back, such as finding the chunks, counts as done alone.

Exit code 1 when a bound is missed: 1.2 times the rate of the reference on one core, 1.4 times itself with two workers
(by the clock; with --busy, for a machine that others use, by CPU), 6 bytes a token on the disk, equal ids and masks.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RATE, SPEED_UP, BYTES = 1.2, 1.4, 6.0
"""Bounds: tokens a CPU second by those of the reference; two workers by one; bytes a token."""
MEASURED = ("hone 1", "hone 2", "datasets")


@dataclass(frozen=True)
class Run:
    """One process. Seconds by the clock, of its own CPU, and of its workers' CPU."""

    rows: int
    tokens: int
    seconds: float
    parent: float
    workers: float
    alone: float
    """Of the parent's CPU seconds, those before the first part was there."""
    bytes: int
    digest: str
    """Of token ids and labels of all rows, in order."""

    @property
    def cpu(self) -> float:
        return self.parent + self.workers

    @property
    def rate(self) -> float:
        """Tokens a CPU second."""
        return self.tokens / self.cpu


# -- rows ------------------------------------------------------------------------------------------------------------


def write(kind: str, path: Path, megabytes: float) -> None:
    """Rows of a kind."""
    import real_text

    real_text.write(kind, path, megabytes)


# -- what is measured, each in a process of its own -------------------------------------------------------------------


def hone(kind: str, rows: Path, work: Path, workers: int) -> Run:
    """Hone's encoder, file to folder, with the tokenizer as a run opens it."""
    from hone_dev.models.models import smollm2
    from hone_trainer.encoding import chunks, mapped, writing
    from hone_trainer.encoding.conversation import Encoder
    from hone_trainer.encoding.split_file import Policy
    from hone_trainer.methods.dapt import DocumentEncoder
    from hone_trainer.models import base_model

    tokenizer: Any = base_model.open_base(smollm2()).tokenizer
    encoder: Any = Encoder(tokenizer) if kind == "chats" else DocumentEncoder(tokenizer, 2**30)
    task = writing.Task(rows, encoder, Policy(None), len(tokenizer), kind)
    target = work / "encoded"
    encoder.encode(_first(rows))  # imports what is imported at first use
    clock = _Clock()
    writing.write(task, target, chunks.chunks(rows), lambda lines, tokens: clock.note_part(), workers)
    clock.stop()
    made = mapped.Mapped(target)
    digest = _digest((row.input_ids, row.labels) for row in made)
    return clock.run(len(made), made.counts.tokens, _size(target), digest)


def reference(kind: str, rows: Path, work: Path) -> Run:
    """`datasets`, file to its cache."""
    import datasets
    from transformers import AutoTokenizer

    from hone_dev.models.models import smollm2

    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    template = marked(str(tokenizer.chat_template))
    eos = tokenizer.eos_token_id

    def chat(row: dict[str, Any]) -> dict[str, Any]:
        made = tokenizer.apply_chat_template(
            row["messages"], chat_template=template, return_dict=True, return_assistant_tokens_mask=True
        )
        return {"input_ids": made["input_ids"], "assistant_masks": made["assistant_masks"]}

    def text(batch: dict[str, Any]) -> dict[str, Any]:
        return {"input_ids": [[*ids, eos] for ids in tokenizer(batch["text"])["input_ids"]]}

    first = _first(rows)  # imports what is imported at first use
    _ = chat(first) if kind == "chats" else text({"text": [first["text"]]})
    clock = _Clock()
    data = datasets.load_dataset("json", data_files=str(rows), split="train", cache_dir=str(work))
    old = data.column_names
    made = data.map(chat, remove_columns=old) if kind == "chats" else data.map(text, batched=True, remove_columns=old)
    clock.stop()
    tokens = sum(map(len, made["input_ids"]))
    size = sum(Path(file["filename"]).stat().st_size for file in made.cache_files)
    return clock.run(len(made), tokens, size, _digest(map(_labelled, made)))


def marked(template: str) -> str:
    """SmolLM2's template with marks around the assistant's content and end of turn, as TRL's training templates have.

    Raises:
        ValueError: the template is another one.
    """
    head = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    if template.count(head) != 1:
        raise ValueError("the tokenizer's chat template is not the one of SmolLM2")
    said = (
        "{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}{% generation %}"
        "{{message['content'] + '<|im_end|>'}}{% endgeneration %}{% else %}"
        "{{message['content'] + '<|im_end|>'}}{% endif %}{{'\n'}}"
    )
    return template.replace(head, said)


def _labelled(row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Ids and labels up to the last trained token: Hone's rows end there, and the template adds a line break."""
    ids, mask = row["input_ids"], row.get("assistant_masks") or [0] + [1] * (len(row["input_ids"]) - 1)
    end = len(mask) - mask[::-1].index(1)
    return ids[:end], [token if counts else -100 for token, counts in zip(ids[:end], mask, strict=False)]


def _first(rows: Path) -> dict[str, Any]:
    with open(rows, encoding="utf-8") as file:
        row: dict[str, Any] = json.loads(next(file))
    return row


def _digest(rows: Any) -> str:
    import hashlib

    hasher = hashlib.sha256()
    for ids, labels in rows:
        hasher.update(json.dumps([ids, labels]).encode())
    return hasher.hexdigest()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


class _Clock:
    """Time of this process and of its children that have ended, from its making to `stop`."""

    def __init__(self) -> None:
        self._from = self._now()
        self._first = 0.0

    @staticmethod
    def _now() -> tuple[float, float, float]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.monotonic(), time.process_time(), children.ru_utime + children.ru_stime

    def stop(self) -> None:
        self._spent = [now - then for now, then in zip(self._now(), self._from, strict=True)]

    def note_part(self) -> None:
        """A part is done."""
        self._first = self._first or time.process_time() - self._from[1]

    def run(self, rows: int, tokens: int, size: int, digest: str) -> Run:
        return Run(rows, tokens, *self._spent, self._first, size, digest)


def measured(name: str, kind: str, rows: Path, work: Path) -> Run:
    """In the process of its own."""
    import logging

    logging.disable(logging.WARNING)
    if name == "datasets":
        return reference(kind, rows, work)
    import pyarrow  # noqa: F401

    return hone(kind, rows, work, int(name.split()[1]))


# -- the run ---------------------------------------------------------------------------------------------------------


def measure(name: str, kind: str, rows: Path, folder: Path, core: int | None) -> Run:
    """One measurement.

    Args:
        core: the one that the process may use; None: all.
    """
    env = {
        **os.environ,
        **{"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        **{"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"},
    }
    with tempfile.TemporaryDirectory(dir=folder) as work:
        command = [sys.executable, __file__, "--measure", name, kind, str(rows), work]
        pinned = (lambda: os.sched_setaffinity(0, {core})) if core is not None else None
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=pinned)
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def speed_up(one: Run, two: Run) -> float:
    """By how much two workers are faster on two idle cores, by CPU seconds: after the first part, parent and workers
    have two cores, a worker has one, and so has the parent."""
    return one.cpu / (two.alone + max((two.cpu - two.alone) / 2, two.workers / 2, two.parent - two.alone))


def compare(kind: str, rows: Path, folder: Path, repeats: int, busy: bool, console: Console) -> list[str]:
    """Measures, prints, and gives the bounds that are missed."""
    core = min(os.sched_getaffinity(0))
    found: dict[str, list[Run]] = {name: [] for name in MEASURED}
    for _ in range(repeats):
        for name in MEASURED:
            found[name].append(measure(name, kind, rows, folder, None if name == "hone 2" else core))
    table = Table(title=f"{kind}: {found['datasets'][0].rows:,} rows, {rows.stat().st_size / 1e6:.0f} MB")
    for column in ("", "clock s", "CPU s", "parent", "tokens/CPU s", "bytes/token"):
        table.add_column(column, justify="left" if not column else "right")
    for name, runs in found.items():
        run = min(runs, key=lambda run: run.cpu)
        seconds = statistics.median(run.seconds for run in runs)
        table.add_row(
            name,
            *(f"{seconds:.1f}", f"{run.cpu:.1f}", f"{run.parent / run.cpu:.0%}"),
            *(f"{run.rate:,.0f}", f"{run.bytes / run.tokens:.2f}"),
        )
    console.print(table)
    clock = statistics.median(
        one.seconds / two.seconds for one, two in zip(found["hone 1"], found["hone 2"], strict=True)
    )
    one, two, other = (min(found[name], key=lambda run: run.cpu) for name in MEASURED)
    rate, cpu = one.rate / other.rate, speed_up(one, two)
    size = max(run.bytes / run.tokens for run in found["hone 1"])
    same = len({run.digest for runs in found.values() for run in runs}) == 1
    console.print(f"{kind}: hone / datasets on one core {rate:.2f} (bound {RATE})")
    console.print(f"{kind}: two workers / one {clock:.2f} by the clock, {cpu:.2f} by CPU (bound {SPEED_UP})")
    console.print(f"{kind}: ids and masks are {'the same' if same else 'DIFFERENT'}")
    missed = {
        "hone / datasets": rate < RATE,
        "two workers / one": (cpu if busy else clock) < SPEED_UP,
        "bytes a token": size > BYTES,
        "ids and masks": not same,
    }
    return [f"{kind}: {name}" for name, is_missed in missed.items() if is_missed]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Tokens a second of the encoder.")
    parser.add_argument("--megabytes", type=float, default=20, help="of each kind, or what there is")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kinds", default="chats,prose,code", help="with commas between them")
    parser.add_argument("--chats", type=Path, help="instead: normalised rows with messages")
    parser.add_argument("--texts", type=Path, help="instead: normalised rows with text")
    parser.add_argument("--busy", action="store_true", help="others use the machine: bound the speed-up by CPU time")
    parser.add_argument("--measure", nargs=4, metavar=("NAME", "KIND", "ROWS", "WORK"), help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="8 MB of each kind, once, bound by CPU")
    options = parser.parse_args()
    if options.quick:
        options.megabytes, options.repeats, options.busy = 8, 1, True
    if options.measure:
        name, kind, rows, work = options.measure
        print(json.dumps(asdict(measured(name, kind, Path(rows), Path(work)))))
        return 0
    console, missed = Console(), []
    with tempfile.TemporaryDirectory(prefix="bench-encode-") as temporary:
        folder = Path(temporary)
        files = {"chats": options.chats, "texts": options.texts}
        files = {kind: rows for kind, rows in files.items() if rows}
        for kind in () if files else options.kinds.split(","):
            files[kind] = folder / f"{kind}.jsonl"
            write(kind, files[kind], options.megabytes)
        for kind, rows in files.items():
            missed += compare(kind, rows, folder, options.repeats, options.busy, console)
    for name in missed:
        console.print(f"[red]missed: {name}")
    console.print(f"bounds: {f'{len(missed)} missed' if missed else 'all held'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
