"""What a model is shown: seed rows or documents of the source, with ids by content."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hone_api.dataset.dataset import Format
from hone_api.dataset.synthesis import FROM_DOCUMENTS
from hone_api.plan import MaterializePlan
from hone_api.words.failures import FailureCode
from hone_trainer.datasets.curation import personal_data
from hone_trainer.datasets.formats import detect
from hone_trainer.datasets.readers.rows import RawRow, Record, RowError
from hone_trainer.datasets.synthesis import markup
from hone_trainer.errors import DataError

MAX_ITEMS = 100_000
"""Rows and passages that are held; a source may have more."""
PASSAGE_CHARACTERS = 2000
"""Longest passage of a document, about the 512 tokens of the RAFT authors' builder."""


@dataclass(frozen=True)
class Seed:
    """A seed row as question and answer."""

    id: str
    prompt: str
    completion: str
    system: str | None
    group: str
    """Value of splits.groupBy, or the id: what must not cross splits."""

    @property
    def text(self) -> str:
        """All of it, for the reviewer and the comparison with generated rows."""
        return f"{self.prompt}\n\n{self.completion}"


@dataclass(frozen=True)
class Passage:
    """A part of a document that fits into a prompt."""

    id: str
    text: str
    group: str
    """Of its document: questions about one document never cross splits."""


@dataclass(frozen=True)
class Material:
    """Seeds or passages; the other list is empty."""

    seeds: list[Seed]
    passages: list[Passage]
    unusable: int = 0
    """Rows of the source that are neither."""


def load(plan: MaterializePlan, rows: Iterator[RawRow]) -> Material:
    """The source's rows, as the template needs them, without what curation.personalData leaves out of rows.

    The endpoint is shown none of it, then, and no message quotes it.

    Raises:
        DataError: EmptySource, UnknownFormat; TooManyBadRows when no row can be used.
        ConfigError: a format or role that cannot be.
    """
    assert plan.synthesis is not None
    documents = plan.synthesis.template in FROM_DOCUMENTS
    head = list(itertools.islice(rows, detect.SAMPLE_ROWS))
    sample = [personal_data.redacted(row.value, plan) for row in head if row.value is not None]
    if not sample:
        raise DataError(FailureCode.EMPTY_SOURCE, f"the source of Dataset {plan.name} holds no row that can be read")
    expected = Format.TEXT if documents and plan.format == Format.AUTO else plan.format
    detected = detect.choose(expected, plan.columns, sample, plan.ignore_columns)
    material, problem = Material([], []), ""
    unusable = 0
    for row in itertools.islice(itertools.chain(head, rows), MAX_ITEMS):
        try:
            if row.value is None:
                raise row.error or RowError("WrongType", "the row is empty")
            record = detected.normalise(personal_data.redacted(row.value, plan))
            group = _group(plan, row.value)
            if documents:
                material.passages.extend(_passages(record, group))
            else:
                material.seeds.append(_seed(record, group))
        except RowError as error:
            unusable += 1
            problem = problem or personal_data.redact_message(f"{row.place}: {error}", plan)
    if not material.seeds and not material.passages:
        what = "document" if documents else "seed row"
        raise DataError(
            FailureCode.TOO_MANY_BAD_ROWS, f"no row of the source is a {what} for {plan.synthesis.template}: {problem}"
        )
    return Material(material.seeds, material.passages, unusable)


def identity(value: Any) -> str:
    """16 hexadecimal digits of the content."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _group(plan: MaterializePlan, row: dict[str, Any]) -> str | None:
    column = plan.splits.group_by
    if column is None:
        return None
    if row.get(column) is None:
        raise RowError("MissingColumn", f"column {column} (splits.groupBy) is missing")
    return identity(row[column])


def _seed(record: Record, group: str | None) -> Seed:
    """The first question and its answer."""
    system = None
    if "messages" in record:
        turns = record["messages"]
        system = next((t["content"] for t in turns if t["role"] == "system"), None)
        spoken = [t for t in turns if t["role"] in ("user", "assistant")]
        prompt, completion = (spoken[0]["content"], spoken[1]["content"]) if len(spoken) > 1 else (None, None)
    else:
        prompt, completion = record.get("prompt"), record.get("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise RowError("WrongType", "a seed row is a question and an answer, both texts")
    id = identity(record)
    return Seed(id, prompt, completion, system, group or id)


def _passages(record: Record, group: str | None) -> list[Passage]:
    """A document's paragraphs without tags of HTML, as many together as fit."""
    if not isinstance(record.get("text"), str):
        raise RowError("WrongType", "a document is a row with a text: name format Text and the column")
    of_document = group or identity(record)
    return [Passage(identity(text), text, of_document) for text in split(markup.shown(record["text"]))]


def split(text: str, longest: int = PASSAGE_CHARACTERS) -> list[str]:
    """A document in passages of at most `longest` characters: paragraphs stay whole where they fit."""
    out: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        for part in _pieces(paragraph.strip(), longest):
            if out and len(out[-1]) + 2 + len(part) <= longest:
                out[-1] += f"\n\n{part}"
            elif part:
                out.append(part)
    return out


def _pieces(paragraph: str, longest: int) -> Iterator[str]:
    while len(paragraph) > longest:
        at = max(paragraph.rfind(mark, 0, longest) for mark in (". ", "\n", " "))
        at = at + 1 if at > 0 else longest
        yield paragraph[:at].strip()
        paragraph = paragraph[at:].strip()
    yield paragraph
