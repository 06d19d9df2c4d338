#!/usr/bin/env python3
"""Make rows of mixed quality: answers of example 02, and what else a team's own export holds.

    python examples/09-curated-data/make_data.py

writes `data.yaml`. It takes the rows from `examples/02-two-nodes/kubernetes-api.jsonl`; the same rows give the same
bytes. The other rows are made up here. People find such rows in their own files: the auto-reply
of a help desk, answers in another language, pasted logs, rows that are there many times.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent
CONFIG_MAP = "help-desk"
GOOD, HELD_OUT, AUTO_REPLIES, FOREIGN, LOGS, SHORT, REPEATED, EMPTY = 96, 24, 44, 16, 16, 12, 24, 6
CONTAMINATED, PERSONAL = 3, 6

AUTO_REPLY = (
    "Thank you for contacting the platform team! We have received your question and opened ticket {number} for you. "
    "One of our colleagues will look into it and get back to you as soon as possible, usually within two working days. "
    "Please do not reply to this message, as nobody reads the answers that are sent to this address."
)
GERMAN = (
    "Dieses Feld wird vom Team nicht mehr gepflegt, bitte wenden Sie sich mit Ihrer Frage an die Kollegen in Bonn.",
    "Das steht ausführlich in unserer internen Dokumentation, die Sie nach der Anmeldung im Portal finden können.",
    "Leider können wir diese Frage erst nach der Umstellung beantworten, wir bitten Sie bis dahin um etwas Geduld.",
    "Bitte ändern Sie diesen Wert nicht ohne vorherige Absprache, sonst werden Ihre Anwendungen neu gestartet.",
)
PASTED = (
    "#### ---- ... #### {a} {b} {c} ... #### 0x{a:x} 0x{b:x} ... #### [{c}] ... #### ---- {b} {a} ... ####",
    "{a}:{b}:{c} ... ### {b}.{c}.{a} ### ... 0x{c:x} 0x{a:x} ### ... {c}/{b}/{a} ### ... {a} {c} ### ...",
)
CURT = ("n/a", "?", "see wiki", "done", "ok", "TBD")
PEOPLE = ("anna.berg@example.org", "+44 20 7946 0958", "li.wei@example.com", "(212) 555-0142")
Row = dict[str, object]


def source() -> list[Row]:
    """The rows about the Kubernetes API, from the last one on: examples 02 and 03 have the first ones."""
    lines = (EXAMPLES / "02-two-nodes" / "kubernetes-api.jsonl").read_text().splitlines()
    return [json.loads(line) for line in reversed(lines)]


def rows() -> tuple[list[Row], list[Row]]:
    """(raw rows in random order, held-out rows that are clean)."""
    every, rng = iter(source()), random.Random(0)

    def take(count: int) -> list[Row]:
        return [next(every) for _ in range(count)]

    held_out, good = take(HELD_OUT), take(GOOD)
    for row in good[:PERSONAL]:
        row["answer"] = f"{row['answer']} Ask {rng.choice(PEOPLE)} for more."
    bad: list[Row] = [*_disguised(rng, rng.sample(good[PERSONAL:], 2)), *held_out[:CONTAMINATED]]
    for number, row in enumerate(take(AUTO_REPLIES)):
        bad.append(row | {"answer": AUTO_REPLY.format(number=47100 + number)})
    bad += [row | {"answer": rng.choice(GERMAN)} for row in take(FOREIGN)]
    bad += [row | {"answer": _log(rng)} for row in take(LOGS)]
    bad += [row | {"answer": rng.choice(CURT)} for row in take(SHORT)]
    bad += [row | {"answer": rng.choice(("", None, 7))} for row in take(EMPTY)]
    mixed = [*good, *bad]
    rng.shuffle(mixed)
    return mixed, held_out


def _disguised(rng: random.Random, originals: list[Row]) -> Iterator[Row]:
    """The same rows again and again, except for case and white space."""
    ways = (str, str.upper, lambda text: text.replace(" ", "  "), lambda text: f"{text}\n")
    for _ in range(REPEATED // len(originals)):
        way = rng.choice(ways)
        yield from ({name: way(str(value)) for name, value in row.items()} for row in originals)


def _log(rng: random.Random) -> str:
    return "\n".join(
        rng.choice(PASTED).format(a=rng.randrange(10**6), b=rng.randrange(10**4), c=rng.randrange(10**5))
        for _ in range(2)
    )


def data() -> str:
    """What is committed."""
    raw, held_out = rows()
    head = (
        f"# {len(raw)} rows of mixed quality and {len(held_out)} clean ones, from\n"
        "# examples/02-two-nodes/kubernetes-api.jsonl by examples/09-curated-data/make_data.py (see NOTICE).\n"
        f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {CONFIG_MAP}\ndata:\n"
    )
    return head + "".join(
        f"  {name}.jsonl: |\n" + "".join(f"    {json.dumps(row, ensure_ascii=False)}\n" for row in found)
        for name, found in (("rows", raw), ("held-out", held_out))
    )


if __name__ == "__main__":
    (EXAMPLES / "09-curated-data" / "data.yaml").write_text(data())
