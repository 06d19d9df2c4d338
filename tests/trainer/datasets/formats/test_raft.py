"""RAFT sets built from documents and questions: k distractors, a share without the oracle, the same again and again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize
from hone_trainer.errors import ConfigError

pytestmark = pytest.mark.trainer

DOCUMENTS = {f"page-{i}": f"Page {i} says that valve number {i} opens at {i * 7} degrees." for i in range(12)}
QUESTIONS = [
    {"question": f"When does valve {i % 12} open, asked {i}?", "answer": f"At {i % 12 * 7} degrees.", "oracle": oracle}
    for i, oracle in enumerate(list(DOCUMENTS) * 25)
]
Rows = list[dict[str, Any]]


def as_rows(documents: dict[str, str]) -> Rows:
    return [{"id": name, "text": text} for name, text in documents.items()]


@pytest.fixture
def built(tmp_path: Path) -> Callable[..., tuple[Any, Rows]]:
    """Materializes these rows with these settings of raft; gives the result and the records."""

    def run(rows: Rows, raft: dict[str, Any], **fields: Any) -> tuple[Any, Rows]:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        plan = {
            "name": "raft",
            "store": str(tmp_path / "store"),
            "source": {"uri": "pvc://claim/rows.jsonl"},
            "sourcePath": str(tmp_path / "rows.jsonl"),
            "splits": {"validation": "0%"},
            "raft": raft,
            **fields,
        }
        result = materialize.run(MaterializePlan.model_validate(plan))
        lines = (tmp_path / "store" / result.path / "train.jsonl").read_text().splitlines()
        return result, [json.loads(line) for line in lines]

    return run


def documents_of(record: dict[str, Any]) -> list[str]:
    return re.findall(r"<DOCUMENT>(.*?)</DOCUMENT>", record["prompt"])


def oracle_of(record: dict[str, Any]) -> str:
    (number,) = re.findall(r"When does valve (\d+) open", record["prompt"])
    return DOCUMENTS[f"page-{number}"]


def test_each_row_has_its_oracle_among_k_others_in_no_telling_place(built: Any) -> None:
    result, records = built([*as_rows(DOCUMENTS), *QUESTIONS], {"distractors": 3, "withoutOracle": "0%"})
    assert (result.rows, result.rejected, str(result.format_detected)) == (300, 0, "RAFT")
    places = [documents_of(record).index(oracle_of(record)) for record in records]
    assert all(len(set(documents_of(record))) == 4 for record in records)
    for place in range(4):
        assert 45 <= places.count(place) <= 105, "a fourth of 300 each, within four standard deviations"
    used = {text for record in records for text in documents_of(record)}
    assert used == set(DOCUMENTS.values())


def test_a_share_of_the_rows_lacks_the_oracle(built: Any) -> None:
    _, records = built([*as_rows(DOCUMENTS), *QUESTIONS], {"distractors": 3, "withoutOracle": "20%"})
    absent = [record for record in records if oracle_of(record) not in documents_of(record)]
    assert 32 <= len(absent) <= 88, "a fifth of 300, within four standard deviations"
    assert all(len(documents_of(record)) == 3 for record in absent), "distractors alone"
    _, none = built([*as_rows(DOCUMENTS), *QUESTIONS], {"distractors": 3, "withoutOracle": "100%"})
    assert not any(oracle_of(record) in documents_of(record) for record in none)


def test_a_row_depends_on_seed_question_and_documents_alone(built: Any) -> None:
    rows = [*as_rows(DOCUMENTS), *QUESTIONS[:40]]
    settings = {"distractors": 2, "withoutOracle": "30%", "seed": 5}
    first, before = built(rows, settings)
    again, _ = built(rows[::-1], settings)
    more, after = built([*rows, *QUESTIONS[40:80]], settings)
    other, _ = built(rows, {**settings, "seed": 6})
    assert after[:40] == before, "rows that are appended change no other"
    assert first.digest not in (more.digest, other.digest)
    assert again.rows == 40


def test_oracle_and_distractors_may_be_documents_themselves(built: Any) -> None:
    """Without rows of documents, what distracts is the oracle of another question, after the row's own distractors."""
    rows = [
        {
            "question": f"When does valve {i} open?",
            "answer": "Soon.",
            "oracle": text,
            "distractors": [f"{i} is torn."],
        }
        for i, text in enumerate(DOCUMENTS.values())
    ]
    _, records = built(rows, {"distractors": 2, "withoutOracle": "0%"})
    for i, record in enumerate(records):
        texts = set(documents_of(record))
        assert {oracle_of(record), f"{i} is torn."} < texts
        (third,) = texts - {oracle_of(record), f"{i} is torn."}
        assert third in DOCUMENTS.values()


def test_columns_have_names_of_their_own_and_reasoning_comes_first(built: Any) -> None:
    quote = "##begin_quote##opens at 21##end_quote##"
    rows = [
        *({"name": name, "body": text} for name, text in DOCUMENTS.items()),
        {
            "q": "When does valve 3 open?",
            "a": "At 21 degrees.",
            "page": "page-3",
            "why": "##begin_quote##opens at 21##end_quote##",
        },
    ]
    columns = {"question": "q", "answer": "a", "oracle": "page", "reasoning": "why", "text": "body", "id": "name"}
    _, (record,) = built(rows, {"distractors": 1, "withoutOracle": "0%"}, columns=columns)
    assert record["completion"] == f"##Reason: {quote}\n##Answer: At 21 degrees."
    assert oracle_of(record) in documents_of(record)


def test_what_cannot_be_built_is_reported(built: Any) -> None:
    bad = [
        {"question": "When does valve 1 open?", "answer": "Soon.", "oracle": "page-99"},
        {"question": "When does valve 1 open?", "answer": "Soon."},
        {"question": "When does valve 1 open?", "oracle": "page-1"},
        [],
    ]
    result, _ = built([*as_rows(DOCUMENTS), *QUESTIONS[:4], *bad], {"distractors": 2}, checks={"maxRejected": "60%"})
    assert {error.code: error.rows for error in result.errors} == {
        "UnknownDocument": [17],
        "MissingColumn": [18, 19],
        "WrongType": [20],
    }
    with pytest.raises(ConfigError, match=r"raft.distractors asks for 12 documents"):
        built([*as_rows(DOCUMENTS), *QUESTIONS[:4]], {"distractors": 12})
