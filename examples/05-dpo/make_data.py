#!/usr/bin/env python3
"""Make the data of the examples 04 to 07 from the rows of example 02.

    python examples/05-dpo/make_data.py

writes `data.yaml` of each of them. It takes the rows from `examples/02-two-nodes/kubernetes-api.jsonl`; the same rows
give the same bytes. Made up here is only how an assistant says it: to the point, which is preferred, or with the small
talk that people complain about.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent
MAX_WORDS = 16  # of an answer: short rows keep the examples short
PAIRS, ANSWERS = 160, 160
FIELDS = 8  # of a page
OPENINGS = (
    "Great question!",
    "Sure, I can help with that.",
    "Thank you for asking!",
    "Of course, happy to help!",
    "Certainly! Let me explain.",
    "What a good thing to ask.",
    "As an AI language model, I can tell you this.",
    "I am glad that you ask.",
)
CLOSINGS = ("Hope this helps!", "Let me know what else you need.", "Have a great day!", "")
_FIELD = re.compile(r"`(?P<path>[^`]+)` (?:of|in) an? (?P<kind>\w+)")


@dataclass(frozen=True)
class Fact:
    """What a field is, with a question about it."""

    kind: str
    path: str
    question: str
    answer: str

    @property
    def draw(self) -> int:
        """A number that is random and always the same."""
        return int(hashlib.sha256(self.question.encode()).hexdigest(), 16)


def facts() -> list[Fact]:
    """The rows about the Kubernetes API, in their order there."""
    rows = [json.loads(line) for line in (EXAMPLES / "02-two-nodes" / "kubernetes-api.jsonl").read_text().splitlines()]
    found = []
    for row in rows:
        field = _FIELD.search(row["question"])
        assert field, row
        found.append(Fact(field["kind"], field["path"], row["question"], row["answer"].rpartition(" Type: ")[0]))
    return found


def pages(known: list[Fact]) -> list[dict[str, str]]:
    """Pages of reference as plain text, each some fields of a kind."""
    by_kind: dict[str, list[Fact]] = defaultdict(list)
    for fact in sorted(known, key=lambda fact: (fact.kind, fact.path)):
        by_kind[fact.kind].append(fact)
    texts = [
        f"# {kind}\n\n" + "\n".join(f"- `{fact.path}`: {fact.answer}" for fact in fields[start : start + FIELDS])
        for kind, fields in by_kind.items()
        for start in range(0, len(fields), FIELDS)
    ]
    return [{"text": text} for text in sorted(texts, key=lambda text: hashlib.sha256(text.encode()).hexdigest())]


def licence() -> list[dict[str, str]]:
    """Text that has nothing to do with Kubernetes: the paragraphs of this repository's licence."""
    paragraphs = re.split(r"\n\s*\n", (EXAMPLES.parent / "LICENSE").read_text())
    texts = [" ".join(paragraph.split()) for paragraph in paragraphs]
    return [{"text": text} for text in texts if 40 <= len(text.split()) <= 120]


def chatty(fact: Fact) -> str:
    """The answer with small talk around it."""
    opening, closing = OPENINGS[fact.draw % len(OPENINGS)], CLOSINGS[fact.draw // 64 % len(CLOSINGS)]
    return f"{opening} {fact.answer} {closing}".strip()


def preferences(known: list[Fact]) -> list[dict[str, str]]:
    """Pairs with the same content: to the point is preferred."""
    return [{"prompt": fact.question, "chosen": fact.answer, "rejected": chatty(fact)} for fact in known]


def answers(known: list[Fact]) -> list[dict[str, str]]:
    """What an assistant answered before anybody said what they prefer: nine of ten with small talk."""
    said = [(fact, chatty(fact) if fact.draw // 4096 % 10 else fact.answer) for fact in known]
    return [{"question": fact.question, "answer": text} for fact, text in said]


def config_map(name: str, about: str, **keys: list[dict[str, str]]) -> str:
    """A ConfigMap with rows as JSON Lines, a file a key."""
    text = (
        f"# {about} By examples/05-dpo/make_data.py from\n# examples/02-two-nodes/kubernetes-api.jsonl "
        f"(Apache-2.0, see examples/02-two-nodes/NOTICE).\n"
        f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n"
    )
    for key, rows in keys.items():
        text += f"  {key}.jsonl: |\n" + "".join(f"    {json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    return text


def files() -> dict[Path, str]:
    """What is committed, by path."""
    known = facts()
    short = [fact for fact in known if len(fact.answer.split()) <= MAX_WORDS]
    pairs, others = preferences(short[:PAIRS]), answers(short[PAIRS : PAIRS + ANSWERS])
    made = {
        "04-dapt": config_map(
            "kubernetes-pages", "Pages of reference, and text of another kind.", pages=pages(known), licence=licence()
        ),
        "05-dpo": config_map("kubernetes-pairs", "Answers that are preferred, and that are not.", rows=pairs),
        "06-reward": config_map("kubernetes-taste", "Answers that are preferred, and that are not.", rows=pairs),
        "07-rlhf": config_map(
            "kubernetes-chat", "Answers of an assistant, and which people prefer.", answers=others, preferences=pairs
        ),
    }
    return {EXAMPLES / example / "data.yaml": text for example, text in made.items()}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
        print(f"{path.relative_to(EXAMPLES)}: {text.count(chr(10))} lines, {len(text.encode()) // 1000} kB")
