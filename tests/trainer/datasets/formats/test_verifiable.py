"""The format Verifiable, and the prompts that are made of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hone_api.dataset.dataset import Format
from hone_trainer.datasets.formats import FORMATS, detect
from hone_trainer.datasets.readers.rows import RowError
from hone_trainer.encoding.prompts import PromptEncoder, checked_record
from hone_trainer.encoding.row import RowRefusedError

pytestmark = pytest.mark.trainer
USER = {"role": "user", "content": "2 + 2?"}
ASSISTANT = {"role": "assistant", "content": "4"}


@pytest.mark.parametrize(
    ("row", "columns", "record"),
    [
        ({"prompt": "2 + 2?", "answer": "4", "id": 1}, {}, {"prompt": "2 + 2?", "answer": "4"}),
        ({"prompt": "2 + 2?", "answer": 4}, {}, {"prompt": "2 + 2?", "answer": "4"}),
        (
            {"question": "2 + 2?", "answer": "2+2=4\n#### 4"},
            {"prompt": "question"},
            {"prompt": "2 + 2?", "answer": "2+2=4\n#### 4"},
        ),
        (
            {"prompt": "def f():", "entry_point": "f", "canonical_solution": "  return 1", "test": "def check(c): ..."},
            {"entryPoint": "entry_point", "solution": "canonical_solution", "tests": "test"},
            {"prompt": "def f():", "tests": "def check(c): ...", "entryPoint": "f", "solution": "  return 1"},
        ),
        (
            {"prompt": "Write f.", "tests": ["assert f(1)", "assert f(2)"]},
            {},
            {"prompt": "Write f.", "tests": "assert f(1)\nassert f(2)"},
        ),
        ({"prompt": [USER], "answer": "4"}, {}, {"prompt": [USER], "answer": "4"}),
        (
            {"prompt": "2 + 2?", "system": "Be brief.", "answer": "4"},
            {},
            {"prompt": [{"role": "system", "content": "Be brief."}, USER], "answer": "4"},
        ),
    ],
)
def test_a_row_becomes_a_question_and_what_it_is_checked_by(
    row: dict[str, Any], columns: dict[str, str], record: dict[str, Any]
) -> None:
    assert FORMATS[Format.VERIFIABLE].normalise(row, columns) == record
    assert str(detect.choose(Format.AUTO, columns, [row])).startswith("Verifiable (Auto: ")


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"prompt": "2 + 2?"}, "MissingColumn"),
        ({"prompt": "2 + 2?", "answer": "", "tests": []}, "MissingColumn"),
        ({"answer": "4"}, "MissingColumn"),
        ({"prompt": " ", "answer": "4"}, "EmptyContent"),
        ({"prompt": 3, "answer": "4"}, "WrongType"),
        ({"prompt": "2 + 2?", "answer": ["4"]}, "WrongType"),
        ({"prompt": "2 + 2?", "tests": [1]}, "WrongType"),
        ({"prompt": [USER, ASSISTANT], "answer": "4"}, "UnsupportedField"),
        ({"prompt": [{"role": "system", "content": "s"}], "answer": "4"}, "NoUserTurn"),
        ({"prompt": [{"role": "wizard", "content": "s"}], "answer": "4"}, "UnknownRole"),
    ],
)
def test_a_row_that_cannot_be_checked_is_refused(row: dict[str, Any], code: str) -> None:
    with pytest.raises(RowError) as raised:
        FORMATS[Format.VERIFIABLE].normalise(row, {})
    assert raised.value.code == code


def test_auto_does_not_take_a_completion_for_an_answer() -> None:
    assert str(detect.choose(Format.AUTO, {}, [{"prompt": "a", "completion": "b"}])).startswith("PromptCompletion")


@pytest.mark.parametrize(
    ("record", "checked"),
    [
        ({"prompt": "a", "completion": "b"}, {"prompt": "a", "answer": "b"}),
        ({"prompt": "a", "completion": "b", "answer": "c"}, {"prompt": "a", "answer": "c"}),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "answer": "b"}),
        ({"prompt": [USER], "chosen": [ASSISTANT], "rejected": [USER]}, {"prompt": [USER], "answer": "4"}),
        ({"messages": [USER, ASSISTANT]}, {"prompt": [USER], "answer": "4"}),
        (
            {"messages": [USER, {**ASSISTANT, "weight": 0}, USER, ASSISTANT]},
            {"prompt": [USER, ASSISTANT, USER], "answer": "4"},
        ),
        ({"prompt": [USER], "answer": "4"}, {"prompt": [USER], "answer": "4"}),
    ],
)
def test_the_last_answer_of_any_record_is_what_is_checked(record: dict[str, Any], checked: dict[str, Any]) -> None:
    assert checked_record(record) == checked


def test_a_prompt_is_what_the_model_is_served(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    served = tokenizer.apply_chat_template([USER], add_generation_prompt=True)["input_ids"]
    for record in ({"prompt": "2 + 2?", "answer": "4"}, {"prompt": [USER], "answer": "4"}):
        (prompt,) = PromptEncoder(tokenizer, 64).encode(record, 7)
        assert prompt.prompt_ids == list(served)
        assert prompt.number == 7
        assert prompt.record["answer"] == "4"
    with pytest.raises(RowRefusedError) as raised:
        PromptEncoder(tokenizer, 4).encode({"prompt": "2 + 2?", "answer": "4"}, 1)
    assert raised.value.code == "PromptTooLong"


TURNS = [USER, ASSISTANT]
CHAT = {"messages": TURNS}
PAIR = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
OLD = {"recorded": "gpt"}


@pytest.mark.parametrize("format", [Format.AUTO, Format.CHAT])
@pytest.mark.parametrize(
    ("cell", "record"),
    [
        ("Four.", {"recorded": "Four."}),
        ({"a": 1}, {"recorded": '{"a":1}'}),
        ("", {}),
        (None, {}),
        (7, {"recorded": "7"}),
    ],
)
def test_rows_of_every_format_can_have_what_another_model_answered(format: Format, cell: Any, record: Any) -> None:
    row = {"messages": TURNS, "gpt": cell}
    rows = [row, {"messages": TURNS, "gpt": "Vier."}]
    assert detect.choose(format, OLD, rows).normalise(row) == {**CHAT, **record}
    assert detect.choose(format, {}, rows).normalise(row) == CHAT, "only where it is mapped"


def test_what_rewards_compare_with_can_be_another_column_than_the_answer() -> None:
    row = {**PAIR, "gold": {"label": "even"}, "gpt": "4"}
    columns = {"answer": "gold", "recorded": "gpt"}
    record = detect.choose(Format.PREFERENCE, columns, [row]).normalise(row)
    assert (record["answer"], record["recorded"]) == ('{"label":"even"}', "4")
    assert {"prompt", "chosen", "rejected"} < {*record}
    asked = checked_record({**CHAT, "answer": "even", "recorded": "4"})
    assert asked == {"prompt": [USER], "answer": "even", "recorded": "4"}


def test_a_row_is_the_same_line_in_each_process() -> None:
    """Digest and splits of a dataset are of its lines, and the order of a set is another one in each process."""
    code = (
        "from hone_trainer.datasets.formats.detect import choose\n"
        "row = {'text': 'a', 'gold': 'b', 'gpt': 'c'}\n"
        "print([*choose('Text', {'answer': 'gold', 'recorded': 'gpt'}, [row]).normalise(row)])"
    )
    for seed in "1234":
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert done.stdout == "['text', 'answer', 'recorded']\n", done.stderr


def test_a_recorded_answer_of_parts_refuses_its_row() -> None:
    row = {"messages": TURNS, "gpt": ["a", "b"]}
    with pytest.raises(RowError, match="recorded"):
        detect.choose(Format.CHAT, OLD, [row]).normalise(row)
