"""Makes data.yaml: pages to read and questions to answer from examples 04 and 03, and everyday questions.

    python examples/11-chain/make_data.py

The everyday questions are what a small model knows before, and should know afterwards.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

EXAMPLES = Path(__file__).resolve().parent.parent
PAGES = 48
PAGE_CHARACTERS = 700
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
OPPOSITES = (
    "hot cold, big small, tall short, old new, fast slow, light dark, wet dry, full empty, hard soft, loud quiet, "
    "early late, near far, open closed, rich poor, strong weak, thick thin, clean dirty, happy sad, deep shallow, "
    "wide narrow, sharp blunt, true false, first last, smooth rough, sweet sour"
)
PLURALS = (
    "mouse mice, child children, foot feet, tooth teeth, man men, woman women, goose geese, leaf leaves, knife knives, "
    "city cities, baby babies, box boxes, bus buses, wolf wolves, shelf shelves"
)
CAPITALS = (
    "France Paris, Italy Rome, Spain Madrid, Portugal Lisbon, Germany Berlin, Austria Vienna, Poland Warsaw, "
    "Hungary Budapest, Greece Athens, Norway Oslo, Sweden Stockholm, Finland Helsinki, Denmark Copenhagen, "
    "Ireland Dublin, Japan Tokyo, China Beijing, India Delhi, Egypt Cairo, Kenya Nairobi, Peru Lima, Chile Santiago, "
    "Cuba Havana, Canada Ottawa, Russia Moscow, Turkey Ankara"
)


def pairs(text: str) -> list[list[str]]:
    """Pairs of words, which commas part."""
    return [pair.split() for pair in text.split(", ")]


def everyday() -> list[dict[str, str]]:
    """Questions that need no manual, each with a whole sentence as answer."""
    found = [
        (f"What comes after {now}?", f"After {now} comes {then}.")
        for names in (DAYS, MONTHS)
        for now, then in zip(names, [*names[1:], names[0]], strict=True)
    ]
    found += [
        (f"What is the opposite of {one}?", f"The opposite of {one} is {other}.") for one, other in pairs(OPPOSITES)
    ]
    found += [(f"What is the plural of {one}?", f"The plural of {one} is {many}.") for one, many in pairs(PLURALS)]
    found += [
        (f"What is the capital of {land}?", f"The capital of {land} is {city}.") for land, city in pairs(CAPITALS)
    ]
    found += [(f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}.") for a in range(2, 9) for b in range(2, 9, 2)]
    found += [(f"Count from {a} to {a + 4}.", ", ".join(map(str, range(a, a + 5))) + ".") for a in range(1, 21)]
    return [{"question": question, "answer": answer} for question, answer in found]


def _rows(example: str, key: str) -> list[dict[str, str]]:
    config_map = yaml.safe_load((EXAMPLES / example / "data.yaml").read_text())
    return [json.loads(line) for line in config_map["data"][key].splitlines()]


def _lines(rows: list[dict[str, str]]) -> str:
    return "".join(f"    {json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def files() -> dict[Path, str]:
    """The text of every file that is made."""
    pages = [{"text": row["text"][:PAGE_CHARACTERS]} for row in _rows("04-dapt", "pages.jsonl")[:PAGES]]
    parts = {"pages": pages, "questions": _rows("03-qlora", "rows.jsonl"), "everyday": everyday()}
    text = (
        "# Pages and questions about the Kubernetes API (Apache-2.0, see examples/02-two-nodes/NOTICE), and\n"
        "# everyday questions. By examples/11-chain/make_data.py.\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kubernetes-course\ndata:\n"
    )
    text += "".join(f"  {name}.jsonl: |\n{_lines(rows)}" for name, rows in parts.items())
    return {EXAMPLES / "11-chain" / "data.yaml": text}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
