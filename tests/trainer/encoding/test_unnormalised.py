"""Rows of a hand-written plan that are no normalised rows end with a code and their line, never as a bare error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.encoding import split_file
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.preferences import JudgedEncoder, PairEncoder
from hone_trainer.encoding.prompts import PromptEncoder
from hone_trainer.errors import DataError

pytestmark = pytest.mark.trainer
GOOD: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    "pair": {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
    "judged": {"prompt": "Hi", "completion": "Hello", "label": True},
    "prompt": {"prompt": "Hi", "answer": "Hello"},
    "text": {"text": "Hello"},
}
BAD: list[tuple[str, dict[str, Any]]] = [
    ("chat", {"prompt": "Hi", "completion": None}),
    ("chat", {"prompt": "Hi", "completion": 7}),
    ("chat", {"prompt": "Hi", "completion": "\ud800"}),
    ("chat", {"messages": "Hello"}),
    ("chat", {"messages": [{"content": "Hello"}]}),
    ("chat", {"messages": [7]}),
    ("chat", {"messages": None}),
    ("chat", {"messages": {}}),
    ("chat", {"text": 7}),
    ("pair", {"prompt": "Hi", "chosen": None, "rejected": "No"}),
    ("pair", {"prompt": 7, "chosen": "Hello", "rejected": "No"}),
    ("pair", {"prompt": [], "chosen": [{}], "rejected": [{}]}),
    ("judged", {"prompt": "Hi", "completion": "Hello", "label": "yes"}),
    ("judged", {"prompt": "Hi", "completion": "Hello", "label": None}),
    ("judged", {"prompt": "Hi", "completion": None, "label": True}),
    ("prompt", {"prompt": 7}),
    ("prompt", {"prompt": [{"role": "user"}]}),
    ("prompt", {"prompt": [None]}),
]


def encoder(kind: str, tokenizer: Any) -> Any:
    kinds: dict[str, Any] = {"pair": PairEncoder, "judged": JudgedEncoder}
    return PromptEncoder(tokenizer, 64) if kind == "prompt" else kinds.get(kind, Encoder)(tokenizer)


@pytest.mark.attack("data files")
@pytest.mark.parametrize(("kind", "row"), BAD, ids=lambda value: value if isinstance(value, str) else json.dumps(value))
def test_a_row_that_is_not_normalised_is_named(tmp_path: Path, tokenizers: Any, kind: str, row: dict[str, Any]) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(GOOD[kind]) + "\n" + json.dumps(row) + "\n")
    assert outcome(file, encoder(kind, tokenizers["ChatML"])) in (
        "InvalidRow",
        "DatasetFormatMismatch",
        "line 2 refused",
    )


def outcome(file: Path, encoder: Any) -> str:
    """The code that names line 2; or that the line was refused and counted."""
    try:
        found = split_file.encode_split(file, encoder, max_length=None)
    except DataError as error:
        return error.code if "line 2: " in error.message else error.message
    return f"line {' '.join(str(line) for refused in found.counts.refused.values() for line in refused.lines)} refused"


@pytest.mark.attack("data files")
def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path, tokenizers: Any) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(json.dumps(GOOD["chat"]).encode() + b'\n{"prompt": "\xff", "completion": "a"}\n')
    with pytest.raises(DataError, match="not UTF-8") as caught:
        split_file.encode_split(file, encoder("chat", tokenizers["ChatML"]), max_length=None)
    assert caught.value.code == "InvalidRow"
