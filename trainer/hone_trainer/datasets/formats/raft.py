"""RAFT: a question, documents, one with the answer and others as distractors, and the answer with its reasoning.

Zhang et al. 2024, "RAFT: Adapting Language Model to Domain Specific RAG" (arXiv 2403.10131): the model sees the oracle
among distractors, in some rows distractors alone, and learns to answer with the reasoning first, quoting the oracle.
Documents are marked and joined as in the authors' builder (gorilla/raft/raft.py), the answer is written as in the
paper's prompt: `##Reason: … ##Answer: …`.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

from hone_trainer.datasets.formats.base import Fields, RowFormat
from hone_trainer.datasets.readers.rows import Record, RowError, optional_text, text_of, type_name


def prompt_of(question: str, documents: Sequence[str]) -> str:
    """The documents, in the order of a hash of them all and the question, and the question.

    The order must not reveal the oracle, and must be the same whenever the row is read.
    """
    key = json.dumps([question, sorted(documents)]).encode()
    shuffled = sorted(documents)
    random.Random(hashlib.sha256(key).digest()).shuffle(shuffled)
    marked = "".join(f"<DOCUMENT>{document}</DOCUMENT>\n" for document in shuffled)
    return marked + question


def completion_of(answer: str, reasoning: str | None) -> str:
    """The answer after its reasoning; without one, the answer as it is."""
    return f"##Reason: {reasoning}\n##Answer: {answer}" if reasoning else answer


def _raft(fields: Fields) -> Record:
    question = text_of(fields["question"], "question")
    oracle = _texts(fields.get("oracle"), "oracle")
    distractors = [text for text in _texts(fields.get("distractors"), "distractors") if text not in oracle]
    if not oracle and not distractors:
        raise RowError("MissingColumn", "oracle and distractors are missing: a RAFT row has documents")
    answer, reasoning = text_of(fields["answer"], "answer"), optional_text(fields.get("reasoning"), "reasoning")
    record = {
        "prompt": prompt_of(question, [*oracle, *distractors]),
        "completion": completion_of(answer, reasoning),
    }
    system = optional_text(fields.get("system"), "system")
    if system is None:
        return record
    turns = (("system", system), ("user", record["prompt"]), ("assistant", record["completion"]))
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def _texts(value: Any, what: str) -> list[str]:
    """One text or a list of them; also the authors' {sentences: [[text, …]]}."""
    if isinstance(value, dict):
        value = [text for group in value.get("sentences") or [] for text in group]
    if value in (None, "", []):
        return []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise RowError("WrongType", f"{what} is {type_name(value)}, not a text or a list of texts")
    return [text_of(text, f"{what}[{i}]") for i, text in enumerate(value)]


def _recognises(fields: Fields) -> bool:
    texts = all(isinstance(fields.get(role), str) for role in ("question", "answer"))
    return texts and any(fields.get(role) for role in ("oracle", "distractors"))


RAFT = RowFormat(
    name="RAFT",
    required=("question", "answer"),
    optional=("oracle", "distractors", "reasoning", "system"),
    convert=_raft,
    recognises=_recognises,
    why="question, answer and documents (oracle, distractors)",
    by_columns=False,
)
