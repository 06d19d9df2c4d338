"""What is known of one valid row, as columns: what duplicates, splits and the report are made of.

Whatever is counted later is counted of these columns: no row is parsed again.
"""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from typing import Any, NamedTuple

from hone_trainer.datasets.formats.tools import tool_faults
from hone_trainer.datasets.readers.rows import Record
from hone_trainer.datasets.texts import pitfalls
from hone_trainer.datasets.texts.statistics import length_of_texts
from hone_trainer.datasets.texts.texts import ANSWER_FIELDS, Texts
from hone_trainer.datasets.texts.words import normalised

TOOLS, NAMES, CONTROL, NOTHING, INVISIBLE, SAME_FORM, LATE_SYSTEM, LONG_ANSWER, PAIR, GOOD, BAD = (
    1 << bit for bit in range(11)
)
"""Bits of the column `flags`."""
ROLE_LETTERS = {"system": "s", "user": "u", "assistant": "a", "tool": "t"}
KEY_OF_TEXT = b"None\0text\0"
"""Before what a text is known by as a duplicate."""
_SPACE, _FACTOR = 2**64, 0x9E3779B97F4A7C15
ANSWER_CHARACTERS = 200
"""Longer answers are not compared: they hardly repeat, but as whole rows."""


class Features(NamedTuple):
    """Columns of a row; None: the row has no such thing."""

    length: int
    """Tokens, estimated."""
    exact: int | None
    """Hash of label and texts without case, white space and Unicode form."""
    question: int | None
    """Hash of what it asks; None: of a document, which asks nothing."""
    answer_hash: int | None
    """Hash of what answers are compared by."""
    answer: str | None = None
    """The last answer, if it is short."""
    roles: str | None = None
    """A letter for each turn of a conversation."""
    flags: int = 0
    untrained: int = 0
    """Turns of the assistant with weight 0."""
    faults: str | None = None
    """What is wrong with tools and calls, as a list in JSON."""
    asked: int | None = None
    """Hash of what makes answers comparable, where that is not the question."""
    better: int = 0
    """Characters of the chosen answer, or of the one that is judged."""
    worse: int = 0


def hash_of_text(text: str) -> int:
    """64 bits of a text in UTF-8."""
    return _hash(text.encode())


def _hash(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def features(record: Record, parts: Texts, is_exact: bool) -> Features:
    """Of a record, by its `texts_of`.

    Args:
        is_exact: whether duplicates are looked for.
    """
    length = length_of_texts(parts)
    if "text" in record:
        return Features(length, _hash(KEY_OF_TEXT + normalised(parts[0][1]).encode()) if is_exact else None, None, None)
    norms = [normalised(text) for _, text in parts]
    flags = _flags(parts)
    if len(record) == 2 and len(parts) == 2 and parts[0][0] == "prompt" and parts[1][0] == "completion":
        answer = parts[1][1]
        is_short = len(answer) <= ANSWER_CHARACTERS
        question, answer_hash = map(hash_of_text, norms)
        return Features(
            length,
            key_of_pair(question, answer_hash) % _SPACE if is_exact else None,
            question,
            answer_hash,
            answer if is_short else None,
            None,
            flags if is_short else flags | LONG_ANSWER,
        )
    exact = _exact(record, parts, norms) if is_exact else None
    return _of_turns(record, parts, norms, length, exact, flags)


def key_of_pair(question: Any, answer: Any) -> Any:
    """Hash of a pair of a prompt and a completion by theirs, modulo 2^64; also of arrays of numpy."""
    return question * _FACTOR + answer


def _exact(record: Record, parts: Texts, norms: list[str]) -> int:
    key = [str(record.get("label"))]
    for (where, _), norm in zip(parts, norms, strict=True):
        key += where, norm
    return hash_of_text("\0".join(key))


def _flags(parts: Texts) -> int:
    flags = 0
    for where, text in parts:
        if ("<" in text or "[" in text) and pitfalls.CONTROL_TOKEN.search(text):
            flags |= CONTROL
        if text.endswith(pitfalls.NOTHING) and text.rpartition("\n\n")[2] in pitfalls.NOTHING:
            flags |= NOTHING
        if not text.isascii() and where in ANSWER_FIELDS and pitfalls.shows_nothing(text):
            flags |= INVISIBLE
    return flags


def _of_turns(record: Record, parts: Texts, norms: list[str], length: int, exact: int | None, flags: int) -> Features:
    """Of a conversation, a preference, or any other record."""
    asks = record.get("messages", record.get("prompt"))
    turns: list[dict[str, Any]] = asks if isinstance(asks, list) else []
    rest: dict[str, Any] = {}
    if "messages" in record and len(record) == 1 and len(parts) == len(turns):
        last = max((at for at, turn in enumerate(turns) if turn["role"] == "assistant"), default=len(turns))
        asked, answered = (" ".join(filter(None, some)) for some in (norms[:last], norms[last : last + 1]))
    else:
        asked, answered = map(normalised, pitfalls.asked_and_answered(record))
    question, answer_hash = hash_of_text(asked), hash_of_text(answered)
    if faults := tool_faults(record):
        rest["faults"] = json.dumps(sorted(faults))
    if "chosen" in record:
        flags |= PAIR
        asked_of, better, worse = (pitfalls.text_of_part(record[side]) for side in ("prompt", "chosen", "rejected"))
        flags |= SAME_FORM if normalised(better) == normalised(worse) else 0
        rest["asked"] = hash_of_text(normalised("\0".join([asked_of, *sorted((better, worse))])))
        answer_hash = hash_of_text(normalised(better))
        rest["better"], rest["worse"] = (len(pitfalls.said(record[side])) for side in ("chosen", "rejected"))
    elif "label" in record:
        flags |= GOOD if record["label"] else BAD
        asked_of, answer_of = (pitfalls.text_of_part(record[side]) for side in ("prompt", "completion"))
        rest["asked"] = hash_of_text(normalised(f"{asked_of}\0{answer_of}"))
        answer_hash = hash_of_text(normalised(str(record["label"])))
        rest["better"] = len(pitfalls.said(record["completion"]))
    if "messages" in record:
        rest["roles"] = "".join([ROLE_LETTERS[turn["role"]] for turn in turns])
        if any(len(turn) > 2 for turn in turns):
            flags |= NAMES if any("name" in turn for turn in turns if turn["role"] != "tool") else 0
            flags |= TOOLS if any("tool_calls" in turn for turn in turns) else 0
            rest["untrained"] = sum(turn.get("weight") == 0 for turn in turns)
        flags |= TOOLS if "tools" in record else 0
    elif any(turn["role"] == "system" for turn in turns[1:]):
        flags |= LATE_SYSTEM
    if (answer := _answer(record)) is not None:
        if len(answer) > ANSWER_CHARACTERS:
            flags |= LONG_ANSWER
        else:
            rest["answer"] = answer
    return Features(length, exact, question, answer_hash, flags=flags, **rest)


def _answer(record: Record) -> str | None:
    if "messages" in record:
        answers = [turn["content"] for turn in record["messages"] if turn["role"] == "assistant"]
        return answers[-1] if answers and answers[-1] else None
    answer = record.get("completion")
    return answer if isinstance(answer, str) else None


def says_twice(roles: str) -> bool:
    """Whether a role other than the tool's speaks twice in a row."""
    return any(a == b != "t" for a, b in pairwise(roles))
