"""RAFT sets (Zhang et al. 2024, arXiv 2403.10131): each question gets its oracle document and k distractors.

For a share of the rows, 1 - P in the paper, the oracle is left out: the model learns to answer from memory when no
document helps. Which rows these are, and which documents distract, depends on the seed and the row alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from hone_api.dataset.dataset import Format
from hone_api.dataset.synthesis import Raft
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.readers.rows import RawRow, RowError
from hone_trainer.errors import ConfigError

BEGIN, END = "##begin_quote##", "##end_quote##"
"""The paper's markers around quotes from a document."""
ROLES = ("question", "oracle", "distractors", "reasoning", "answer", "system", "text", "id")
Row = dict[str, Any]


def built(plan: MaterializePlan, rows: Iterator[RawRow]) -> tuple[MaterializePlan, Iterator[RawRow]]:
    """The plan for the rows that come of it, and these; as `build`."""
    return plan.model_copy(update={"format": Format.RAFT, "columns": {}}), build(rows, plan)


def build(rows: Iterator[RawRow], plan: MaterializePlan) -> Iterator[RawRow]:
    """RAFT rows from rows with a question, and rows without one, which are documents.

    A document is a row with `text`; its name is its `id`, or its file's name. A question's `oracle` is a document's
    name or the document itself. Every oracle is also a document. Reads all rows before it gives the first.

    Raises:
        ConfigError: the source has fewer documents than raft.distractors asks for.
    """
    assert plan.raft is not None
    documents: dict[str, str] = {}
    questions: list[tuple[RawRow, Row]] = []
    broken: list[RawRow] = []
    for row in rows:
        if row.value is None:
            broken.append(row)
            continue
        value = {role: row.value.get(plan.columns.get(role, role)) for role in ROLES}
        if value["question"] is not None or not isinstance(value["text"], str):
            questions.append((row, value))
        else:
            documents[str(value["id"] or row.place.partition(":")[0].partition(",")[0])] = value["text"]
    yield from broken
    pool = sorted({*documents.values(), *(text for _, value in questions for text in _oracle(value, documents))})
    for row, value in questions:
        try:
            yield RawRow(row.number, row.place, {**(row.value or {}), **_built(value, documents, pool, plan.raft)})
        except RowError as error:
            yield RawRow(row.number, row.place, error=error)


def _built(value: Row, documents: dict[str, str], pool: Sequence[str], settings: Raft) -> Row:
    oracle = _oracle(value, documents)
    if not oracle:
        raise RowError("MissingColumn", "oracle is missing: the document that has the answer, or its name")
    unknown = [text for text in oracle if documents and text not in documents.values() and len(text.split()) == 1]
    if unknown:
        raise RowError("UnknownDocument", f"oracle {unknown[0][:80]!r} is not a document of the source")
    own = value["distractors"] if isinstance(value["distractors"], list) else []
    key = [value["question"], oracle]
    chosen = distractors([t for t in pool if t not in own], oracle, settings.distractors - len(own), settings.seed, key)
    kept = {role: value[role] for role in ("question", "reasoning", "answer", "system") if value[role] is not None}
    return arrange({**kept, "oracle": oracle, "distractors": [*own, *chosen]}, settings)


def _oracle(value: Row, documents: dict[str, str]) -> list[str]:
    oracles = value["oracle"] if isinstance(value["oracle"], list) else [value["oracle"]]
    return [documents.get(text, text) for text in oracles if isinstance(text, str) and text.strip()]


def distractors(pool: Sequence[str], oracle: Sequence[str], count: int, seed: int, key: Any) -> list[str]:
    """Documents of the pool other than the oracle.

    Raises:
        ConfigError: there are too few.
    """
    others = [text for text in pool if text not in oracle]
    if count > len(others):
        raise ConfigError(f"raft.distractors asks for {count} documents more than the source's other {len(others)}")
    return Random(f"{seed}:{_hash(key)}").sample(others, max(count, 0))


def arrange(row: Row, settings: Raft) -> Row:
    """The row as it is trained on: without its oracle for the share of rows that is to lack it."""
    share = float(settings.without_oracle.removesuffix("%")) / 100
    drawn = Random(f"{settings.seed}:oracle:{_hash([row['question'], row['oracle']])}").random()
    return {**row, "oracle": []} if drawn < share and row["distractors"] else row


def wrong_quotes(reasoning: str, oracle: Sequence[str]) -> str | None:
    """What is wrong with the quotes of a reasoning: there is none, or one is not in the oracle word for word."""
    quotes = re.findall(f"{BEGIN}(.*?){END}", reasoning, re.S)
    if not quotes:
        return "the reasoning quotes nothing"
    documents = [" ".join(text.split()) for text in oracle]
    for quote in quotes:
        words = " ".join(quote.split()).strip(" \"'“”")
        if not words or not any(words in document for document in documents):
            return f"the quote {words[:60]!r} is not in the document"
    return None


def _hash(key: Any) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
