"""Preference and KTO: every shape becomes one record, or the row is refused with its reason."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.datasets.formats import FORMATS, detect
from hone_trainer.datasets.readers.rows import RowError

pytestmark = pytest.mark.pure
DATA = Path(__file__).parents[4].parent / "shared" / "data"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be kind."}
TURNS = {"prompt": [user("Hi")], "chosen": [said("Hello")], "rejected": [said("No")]}
TEXTS = {"prompt": "Hi", "chosen": "Hello", "rejected": "No"}
UNTRAINED = {**said("Hello"), "weight": 0}
CALLS = {**said(""), "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {"at": 1}}}]}
TOLD = {"role": "tool", "content": "1"}


@pytest.mark.parametrize(
    ("row", "record"),
    [
        (TEXTS, TEXTS),
        (TURNS, TURNS),
        ({**TURNS, "chosen": said("Hello"), "rejected": said("No")}, TURNS),
        ({**TURNS, "chosen": "Hello", "rejected": "No", "prompt": [user("Hi")]}, TURNS),
        ({"prompt": "Hi", "chosen": [said("Hello")], "rejected": [said("No")]}, TURNS),
        ({"chosen": [user("Hi"), said("Hello")], "rejected": [user("Hi"), said("No")]}, TURNS),
        # UltraFeedback, binarized: the prompt is in its column, and in both conversations
        ({"prompt": "Hi", "chosen": [user("Hi"), said("Hello")], "rejected": [user("Hi"), said("No")]}, TURNS),
        (
            {
                "conversations": [{"from": "human", "value": "Hi"}],
                "chosen": {"from": "gpt", "value": "Hello"},
                "rejected": {"from": "gpt", "value": "No"},
            },
            TURNS,
        ),
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Go on\n\nAssistant: Hello",
                "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Go on\n\nAssistant: No",
            },
            {**TURNS, "prompt": [user("Hi"), said("Yes?"), user("Go on")]},
        ),
        (
            {"chosen": "How is the sky? It is blue.", "rejected": "How is the sky? It is bleak."},
            {"prompt": "How is the sky? ", "chosen": "It is blue.", "rejected": "It is bleak."},
        ),
        (
            {"chosen": "Sky:\nIt is blue.", "rejected": "Sky:\nIt is bleak."},
            {"prompt": "Sky:\n", "chosen": "It is blue.", "rejected": "It is bleak."},
        ),
        ({**TEXTS, "system": "Be kind."}, {**TURNS, "prompt": [SYSTEM, user("Hi")]}),
        # answers of several turns
        (
            {**TURNS, "chosen": [said("Hello"), user("b"), said("y")]},
            {**TURNS, "chosen": [said("Hello"), user("b"), said("y")]},
        ),
        (
            {"chosen": [user("Hi"), said("Hello"), user("b"), said("y")], "rejected": [user("Hi"), said("No")]},
            {**TURNS, "chosen": [said("Hello"), user("b"), said("y")]},
        ),
        (
            {"prompt": "Hi", "chosen": [UNTRAINED, user("b"), said("y")], "rejected": "No"},
            {**TURNS, "chosen": [UNTRAINED, user("b"), said("y")]},
        ),
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: b\n\nAssistant: y",
                "rejected": "\n\nHuman: Hi\n\nAssistant: No",
            },
            {**TURNS, "chosen": [said("Hello"), user("b"), said("y")]},
        ),
        # they part at what the user says: the shared answer before it is context
        (
            {
                "chosen": [user("Hi"), said("Hello"), user("b"), said("y")],
                "rejected": [user("Hi"), said("Hello"), user("c"), said("z")],
            },
            {**TURNS, "chosen": [UNTRAINED, user("b"), said("y")], "rejected": [UNTRAINED, user("c"), said("z")]},
        ),
        # at what the tool answers
        (
            {
                "chosen": [user("Hi"), CALLS, TOLD, said("y")],
                "rejected": [user("Hi"), CALLS, {**TOLD, "content": "2"}, said("z")],
            },
            {
                **TURNS,
                "chosen": [{**CALLS, "weight": 0}, TOLD, said("y")],
                "rejected": [{**CALLS, "weight": 0}, {**TOLD, "content": "2"}, said("z")],
            },
        ),
        # after what the tool answers
        (
            {"chosen": [user("Hi"), CALLS, TOLD, said("y")], "rejected": [user("Hi"), CALLS, TOLD, said("z")]},
            {"prompt": [user("Hi"), CALLS, TOLD], "chosen": [said("y")], "rejected": [said("z")]},
        ),
        ({**TURNS, "prompt": [SYSTEM, user("Hi")], "system": "Other"}, {**TURNS, "prompt": [SYSTEM, user("Hi")]}),
    ],
)
def test_a_preference_becomes(row: dict[str, Any], record: dict[str, Any]) -> None:
    assert FORMATS["Preference"].normalise(row, {}) == record
    assert str(detect.choose("Auto", {}, [row])).startswith("Preference (Auto: ")


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        ({"prompt": "Hi", "chosen": "Hello"}, "OneSided", "rejected is missing"),
        ({"prompt": "Hi", "chosen": " ", "rejected": "No"}, "OneSided", "chosen is missing or empty"),
        ({"prompt": "Hi", "chosen": [], "rejected": [said("No")]}, "OneSided", "chosen"),
        ({"prompt": "Hi"}, "MissingColumn", "chosen and rejected"),
        ({**TEXTS, "rejected": "Hello"}, "SameAnswers", "the same"),
        ({**TURNS, "rejected": [said("Hello")]}, "SameAnswers", "the same"),
        ({"chosen": "Yes", "rejected": "No"}, "NoCommonPrompt", "no prompt"),
        ({"chosen": "The answer is 1A.", "rejected": "The answer is 1B."}, "NoCommonPrompt", "the same sentence"),
        ({"chosen": [user("a"), said("x")], "rejected": [user("b"), said("x")]}, "NoCommonPrompt", "same turn"),
        (
            {"chosen": [user("a"), said("x"), user("b")], "rejected": [user("a"), said("z")]},
            "SeveralTurns",
            "chosen ends with a user turn",
        ),
        (
            {**TURNS, "chosen": [said("x"), user("b"), {**said("y"), "weight": 0}]},
            "NothingTrained",
            "the last turn of chosen",
        ),
        ({**TURNS, "chosen": [said("x"), {"role": "tool", "content": "1"}, said("y")]}, "BrokenToolCall", "no call"),
        (
            {"chosen": [user("a"), said("x")], "rejected": [user("a"), said("x"), user("b")]},
            "NoCommonPrompt",
            "no more",
        ),
        ({"chosen": [user("a"), user("b")], "rejected": [user("a"), said("x")]}, "NoAssistantTurn", "chosen"),
        ({**TURNS, "prompt": [SYSTEM]}, "NoUserTurn", "no user turn"),
        ({**TURNS, "chosen": [{"role": "bot", "content": "x"}]}, "UnknownRole", "bot"),
        ({**TEXTS, "chosen": 3}, "WrongType", "chosen"),
        ({**TURNS, "chosen": [said("\ud800")]}, "NotUTF8", "chosen"),
    ],
)
def test_a_preference_is_refused(row: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(RowError, match=words) as caught:
        FORMATS["Preference"].normalise(row, {})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("shared", "prompt"),
    [
        ("The answer is: ", None),
        ("答案是：", None),
        ("Dr. ", None),
        ("He was treated by Dr. ", None),
        ("It was J. ", None),
        ("Cities, e.g. ", None),
        ("Das ist z. B. ", None),
        ("Il y a M. ", None),
        ("La Sra. ", None),
        ("1. ", None),
        ("Well... ", None),
        ("Well… ", None),
        ("Who treated him? Dr. ", "Who treated him? "),
        ("Name the doctor.\nThe answer is: ", "Name the doctor.\n"),
        ("Name the doctor. ", "Name the doctor. "),
        ("Name him! ", "Name him! "),
        ("他是谁？", "他是谁？"),
        ("Question: who is he\nAnswer: ", "Question: who is he\n"),
        ("Name:\n", "Name:\n"),
        ('He asked: "Who?" ', 'He asked: "Who?" '),
    ],
)
def test_a_prompt_that_both_begin_with_ends_with_a_sentence_or_line(shared: str, prompt: str | None) -> None:
    row = {"chosen": f"{shared}Brown came.", "rejected": f"{shared}White came."}
    if prompt is None:
        with pytest.raises(RowError) as caught:
            FORMATS["Preference"].normalise(row, {})
        assert caught.value.code == "NoCommonPrompt"
    else:
        assert FORMATS["Preference"].normalise(row, {})["prompt"] == prompt


@pytest.mark.parametrize("rest", ["1A", "is it"])
@pytest.mark.parametrize("shared", ["The answer is\n", "It is No. ", "I use Yahoo! "])
def test_no_prompt_ends_where_the_sentence_goes_on(shared: str, rest: str) -> None:
    with pytest.raises(RowError, match="do not begin with the same sentence"):
        FORMATS["Preference"].normalise({"chosen": shared + rest, "rejected": f"{shared}Two"}, {})


@pytest.mark.parametrize(
    ("row", "record"),
    [
        (
            {"prompt": "Hi", "completion": "Hello", "label": True},
            {"prompt": "Hi", "completion": "Hello", "label": True},
        ),
        ({"prompt": "Hi", "completion": "No", "label": "False"}, {"prompt": "Hi", "completion": "No", "label": False}),
        ({"prompt": "Hi", "completion": "No", "label": 0}, {"prompt": "Hi", "completion": "No", "label": False}),
        (
            {"messages": [SYSTEM, user("Hi"), said("Hello")], "label": True},
            {"prompt": [SYSTEM, user("Hi")], "completion": [said("Hello")], "label": True},
        ),
        (
            {"prompt": [user("Hi")], "completion": [said("Hello")], "label": True},
            {"prompt": [user("Hi")], "completion": [said("Hello")], "label": True},
        ),
        (
            {"prompt": [user("Hi")], "completion": [said("a"), user("b"), said("c")], "label": True},
            {"prompt": [user("Hi")], "completion": [said("a"), user("b"), said("c")], "label": True},
        ),
    ],
)
def test_a_judged_answer_becomes(row: dict[str, Any], record: dict[str, Any]) -> None:
    assert FORMATS["KTO"].normalise(row, {}) == record


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"prompt": "Hi", "completion": "Hello"}, "MissingColumn"),
        ({"prompt": "Hi", "completion": "Hello", "label": "fine"}, "WrongLabel"),
        ({"prompt": "Hi", "completion": "Hello", "label": 0.5}, "WrongLabel"),
        ({"prompt": "Hi", "completion": "", "label": True}, "EmptyContent"),
        ({"messages": [user("Hi")], "label": True}, "NoAssistantTurn"),
        ({"messages": [said("Hi")], "label": True}, "NoUserTurn"),
        ({"prompt": [user("Hi")], "completion": [said("a"), user("b")], "label": True}, "SeveralTurns"),
        ({"prompt": [user("Hi")], "completion": [user("b"), said("c")], "label": True}, "NoAssistantTurn"),
    ],
)
def test_a_judged_answer_is_refused(row: dict[str, Any], code: str) -> None:
    with pytest.raises(RowError) as caught:
        FORMATS["KTO"].normalise(row, {})
    assert caught.value.code == code


def test_a_class_next_to_a_text_is_no_judgement() -> None:
    row = {"prompt": "Hi", "completion": "Hello", "label": "greeting"}
    assert detect.choose("Auto", {}, [row]).format.name == "PromptCompletion"


@pytest.mark.parametrize(
    ("path", "format"),
    [
        ("llamafactory_demo/dpo_en_demo.json", "Preference"),
        ("llamafactory_demo/kto_en_demo.json", "KTO"),
        ("hh_rlhf/harmless_test_rows_0000-1155.jsonl.gz", "Preference"),
    ],
)
def test_public_sets_are_recognised_and_read(path: str, format: str) -> None:
    file = DATA / path
    if not file.is_file():
        pytest.skip(f"needs {path} of the shared test data")
    data = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()
    rows = json.loads(data) if file.suffix == ".json" else [json.loads(line) for line in data.splitlines()]
    found = detect.choose("Auto", {}, rows[:100])
    assert found.format.name == format
    codes: dict[str, int] = {}
    for row in rows:
        try:
            record = found.format.normalise(row, {})
        except RowError as error:
            codes[error.code] = codes.get(error.code, 0) + 1
            continue
        assert {type(turn["content"]) for turn in record["prompt"]} == {str}
    assert sum(codes.values()) <= 0.02 * len(rows), codes
