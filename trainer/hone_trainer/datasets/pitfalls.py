"""What harms training although the rows are valid: counted while rows pass, for the advice (`advice`)."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hone_trainer.datasets.curation.words import normalised
from hone_trainer.datasets.formats.tools import tool_faults
from hone_trainer.datasets.rows import Record
from hone_trainer.datasets.texts import ANSWER_FIELDS, joined, texts

CONTROL_TOKEN = re.compile(
    r"<[|｜][^<>|｜\s]{1,40}[|｜]>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad)>"
)
"""Of ChatML, Llama, Mistral, Gemma, DeepSeek. Which of them a base model knows is known when it is trained."""
_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols of Unicode that are shown as nothing."""
_NOTHING = ("nan", "NaN", "<NA>", "NaT")
"""How pandas writes an empty cell as a text."""
_MIX = 0x9E3779B97F4A7C15


class Conflict(NamedTuple):
    """Questions that have several answers, and the rows that ask them."""

    questions: int
    rows: int


class Answers:
    """Which answers a question has: 16 bytes of memory a row."""

    def __init__(self) -> None:
        self._questions, self._answers = array("Q"), array("Q")

    def see(self, question: int, answer: str) -> None:
        """Note a row, by the hash of its question."""
        self._questions.append(question)
        self._answers.append(_hash(answer))

    def add(self, other: Answers) -> None:
        """Note the rows of another one."""
        self._questions.extend(other._questions)
        self._answers.extend(other._answers)

    def conflict(self) -> Conflict:
        """What is known by now."""
        import numpy

        questions, answers = (numpy.array(hashes, dtype=numpy.uint64) for hashes in (self._questions, self._answers))
        _, first = numpy.unique(questions * numpy.uint64(_MIX) ^ answers, return_index=True)
        different, count = numpy.unique(questions[first], return_counts=True)
        several = different[count > 1]
        return Conflict(len(several), int(numpy.isin(questions, several).sum()))


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
    answers: Answers = field(default_factory=Answers)

    def see(self, record: Record, text: str, question: int) -> None:
        """Count one row; text is all of its text, question the hash of what it asks."""
        if "text" in record:  # a document has no question and is not a conversation
            return
        turns = _turns(record)
        self.tools.update(tool_faults(record))
        self.without_answer_last += "messages" in record and turns[-1]["role"] != "assistant"
        self.late_system += any(turn["role"] == "system" for turn in turns[1:])
        self.control_tokens += CONTROL_TOKEN.search(text) is not None
        self.nothing += any(
            value.endswith(_NOTHING) and value.rpartition("\n\n")[2] in _NOTHING for _, value in texts(record)
        )
        if not text.isascii():
            self.invisible += any(_shows_nothing(value) for where, value in texts(record) if where in ANSWER_FIELDS)
        if "chosen" in record:
            self._see_pair(record)
        elif "label" in record:
            self._see_judged(record)
        else:
            self.answers.see(question, _asked_and_answered(record)[1])

    def add(self, other: Pitfalls) -> None:
        """Count the rows of another one."""
        add_numbers(self, other)
        add_numbers(self.lengths, other.lengths)
        self.tools.update(other.tools)
        self.answers.add(other.answers)

    def _see_pair(self, record: Record) -> None:
        question, better, worse = (_text(record[side]) for side in ("prompt", "chosen", "rejected"))
        self.same_but_form += normalised(better) == normalised(worse)
        self.answers.see(_hash("\0".join([question, *sorted((better, worse))])), better)
        one, better, worse = self.lengths, _said(record["chosen"]), _said(record["rejected"])
        one.pairs, one.better, one.worse = one.pairs + 1, one.better + len(better), one.worse + len(worse)
        one.longer, one.shorter = one.longer + (len(better) > len(worse)), one.shorter + (len(better) < len(worse))

    def _see_judged(self, record: Record) -> None:
        question, answer = _text(record["prompt"]), _text(record["completion"])
        self.answers.see(_hash(f"{question}\0{answer}"), str(record["label"]))
        one, answer = self.lengths, _said(record["completion"])
        if record["label"]:
            one.better, one.better_rows = one.better + len(answer), one.better_rows + 1
        else:
            one.worse, one.worse_rows = one.worse + len(answer), one.worse_rows + 1


def add_numbers(to: object, counts: object) -> None:
    """Add the fields of a dataclass that are numbers to those of another one of its class."""
    for name, value in vars(counts).items():
        if isinstance(value, int):
            setattr(to, name, getattr(to, name) + value)


def _turns(record: Record) -> Sequence[dict[str, Any]]:
    """The turns of a conversation, or of a prompt of turns."""
    turns = record.get("messages", record.get("prompt"))
    return turns if isinstance(turns, list) else ()


def question_hash(record: Record) -> int:
    """A hash of what the row asks: its prompt, or all turns before the last answer, in whatever case and spacing."""
    return _hash(_asked_and_answered(record)[0])


def _asked_and_answered(record: Record) -> tuple[str, str]:
    """All before the last answer, with the tools that it could use, and that answer."""
    if "messages" in record:
        turns = record["messages"]
        last = max((at for at, turn in enumerate(turns) if turn["role"] == "assistant"), default=len(turns))
        return _text([record.get("tools"), turns[:last]]), _text(turns[last : last + 1])
    answer = next((record[name] for name in ("completion", "answer", "tests") if name in record), None)
    return _text(record.get("prompt")), _text(answer)


def _text(part: Any) -> str:
    """All texts of a part of a record."""
    return joined({"": part})


def _said(answer: Any) -> str:
    """The assistant's text in an answer, without the turns of tools and users in between."""
    return _text([turn for turn in answer if turn["role"] == "assistant"] if isinstance(answer, list) else answer)


def _shows_nothing(text: str) -> bool:
    return text != "" and all(
        char in _BLANK_LETTERS or unicodedata.category(char) in ("Cc", "Cf", "Zs", "Zl", "Zp") for char in text
    )


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(normalised(text).encode(), digest_size=8).digest())
