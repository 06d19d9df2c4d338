"""What harms training although the rows are valid: counts for the advice (`advice`), and what is known of one row."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hone_trainer.datasets.readers.rows import Record
from hone_trainer.datasets.texts.texts import joined

CONTROL_TOKEN = re.compile(
    r"<[|｜][^<>|｜\s]{1,40}[|｜]>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad)>"
)
"""Of ChatML, Llama, Mistral, Gemma, DeepSeek. Which of them a base model knows is known when it is trained."""
_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols of Unicode that are shown as nothing."""
NOTHING = ("nan", "NaN", "<NA>", "NaT")
"""How pandas writes an empty cell as a text."""


def control_tokens(text: str) -> list[int]:
    """Where control tokens begin in a text; those that overlap may be missing."""
    if "INST]" in text:
        return [match.start() for match in CONTROL_TOKEN.finditer(text)]
    found, at = [], text.find("<")
    while at >= 0:  # faster than the pattern's own search
        if CONTROL_TOKEN.match(text, at):
            found.append(at)
        at = text.find("<", at + 1)
    return found


class Conflict(NamedTuple):
    """Questions that have several answers, and the rows that ask them."""

    questions: int
    rows: int


@dataclass
class AnswerLengths:
    """Characters of the answers that are preferred and of those that are not; a pair counts for both."""

    better: int = 0
    """Characters of chosen answers, or of those labelled good."""
    worse: int = 0
    better_rows: int = 0
    worse_rows: int = 0
    longer: int = 0
    """Pairs whose chosen answer is the longer one."""
    shorter: int = 0
    pairs: int = 0


@dataclass
class Pitfalls:
    """Counts over accepted rows."""

    without_answer_last: int = 0
    """Conversations that do not end with the assistant."""
    late_system: int = 0
    """Rows with a system turn after the first turn."""
    control_tokens: int = 0
    invisible: int = 0
    """Rows with an answer that shows nothing: zero-width characters alone."""
    nothing: int = 0
    """Rows with a text, or a last paragraph (an Alpaca input), that is an empty cell of pandas."""
    same_but_form: int = 0
    """Pairs whose answers differ in case and white space alone."""
    tools: Counter[str] = field(default_factory=Counter)
    """Rows by what is wrong with their tools or calls."""
    lengths: AnswerLengths = field(default_factory=AnswerLengths)
    conflict: Conflict = field(default_factory=lambda: Conflict(0, 0))


def asked_and_answered(record: Record) -> tuple[str, str]:
    """All before the last answer, with the tools that it could use, and that answer."""
    if "messages" in record:
        turns = record["messages"]
        last = max((at for at, turn in enumerate(turns) if turn["role"] == "assistant"), default=len(turns))
        return text_of_part([record.get("tools"), turns[:last]]), text_of_part(turns[last : last + 1])
    answer = next((record[name] for name in ("completion", "answer", "tests") if name in record), None)
    return text_of_part(record.get("prompt")), text_of_part(answer)


def text_of_part(part: Any) -> str:
    """All texts of a part of a record."""
    return joined({"": part})


def said(answer: Any) -> str:
    """The assistant's text in an answer, without the turns of tools and users in between."""
    return text_of_part(
        [turn for turn in answer if turn["role"] == "assistant"] if isinstance(answer, list) else answer
    )


def shows_nothing(text: str) -> bool:
    return text != "" and all(
        char in _BLANK_LETTERS or unicodedata.category(char) in ("Cc", "Cf", "Zs", "Zl", "Zp") for char in text
    )
