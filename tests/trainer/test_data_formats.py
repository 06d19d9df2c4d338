"""Formats, row by row: what a row becomes, or the code and words with which it is refused."""

import re
from pathlib import Path

import pytest

from hone_api.dataset import Format
from hone_trainer.datasets import detect
from hone_trainer.datasets.formats import FORMATS
from hone_trainer.datasets.rows import ROW_CODES, RowError
from hone_trainer.errors import ConfigError, DataError

pytestmark = pytest.mark.pure


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def said(*pairs):
    return [{"from": who, "value": value} for who, value in pairs]


ASK = ("user", "hi")
ANSWER = ("assistant", "hello")
HELLO = {"messages": turns(ASK, ANSWER)}


@pytest.mark.parametrize(
    ("format", "row", "record"),
    [
        ("PromptCompletion", {"prompt": "a", "completion": "b", "id": 3}, {"prompt": "a", "completion": "b"}),
        ("PromptCompletion", {"prompt": "a", "completion": " b<|endoftext|>"}, {"prompt": "a", "completion": " b"}),
        (
            "PromptCompletion",
            {"prompt": "a", "completion": "b", "system": "s"},
            {"messages": turns(("system", "s"), ("user", "a"), ("assistant", "b"))},
        ),
        ("Alpaca", {"instruction": "i", "input": "x", "output": "o"}, {"prompt": "i\n\nx", "completion": "o"}),
        ("Alpaca", {"instruction": "i", "input": "", "output": "o"}, {"prompt": "i", "completion": "o"}),
        ("Alpaca", {"instruction": "i", "output": "o"}, {"prompt": "i", "completion": "o"}),
        (
            "Alpaca",
            {"instruction": "i", "input": None, "output": "o", "history": []},
            {"prompt": "i", "completion": "o"},
        ),
        ("Chat", {"messages": turns(ASK, ANSWER), "id": 1}, HELLO),
        ("Chat", {"messages": turns(ASK, ANSWER), "tools": []}, HELLO),
        (
            "Chat",
            {"messages": turns(("developer", "s"), ASK, ANSWER, ASK)},
            {"messages": turns(("system", "s"), ASK, ANSWER, ASK)},
        ),
        ("Chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, *turns(ANSWER)]}, HELLO),
        (
            "Chat",
            {"messages": [*turns(ASK), {"role": "assistant", "content": "hello", "weight": 1, "name": None}]},
            HELLO,
        ),
        ("ShareGPT", {"conversations": said(("human", "hi"), ("gpt", "hello"))}, HELLO),
        ("ShareGPT", {"conversations": said(("user", "hi"), ("chatgpt", "hello"))}, HELLO),
        ("ShareGPT", {"conversations": said(("human", "hi"), ("bard", "hello")), "system": ""}, HELLO),
        (
            "ShareGPT",
            {"conversations": said(("human", "hi"), ("gpt", "hello")), "system": "s"},
            {"messages": turns(("system", "s"), ASK, ANSWER)},
        ),
        ("Text", {"text": "  a b \n"}, {"text": "  a b \n"}),
    ],
)
def test_a_row_becomes(format, row, record):
    assert FORMATS[format].normalise(row, {}) == record


@pytest.mark.parametrize(
    ("format", "row", "code", "words"),
    [
        ("PromptCompletion", {"prompt": "a"}, "MissingColumn", "column completion is missing; the row has: prompt"),
        ("PromptCompletion", {"q": "a"}, "MissingColumn", "prompt and completion"),
        ("PromptCompletion", {"prompt": "a", "completion": None}, "MissingColumn", "completion"),
        ("PromptCompletion", {"prompt": "a", "completion": 3}, "WrongType", "completion is a number"),
        ("PromptCompletion", {"prompt": ["a"], "completion": "b"}, "WrongType", "prompt is a list"),
        ("PromptCompletion", {"prompt": "a", "completion": " \n"}, "EmptyContent", "completion"),
        ("PromptCompletion", {"prompt": "a", "completion": "<|endoftext|>"}, "EmptyContent", "completion"),
        ("PromptCompletion", {"prompt": "\ud800", "completion": "b"}, "NotUTF8", "prompt"),
        ("Alpaca", {"instruction": "a", "input": "", "output": ""}, "EmptyContent", "output"),
        ("Alpaca", {"instruction": "a", "output": "b", "history": [["c", "d"]]}, "UnsupportedField", "history"),
        ("Text", {"text": ""}, "EmptyContent", "text"),
        ("Text", {"text": True}, "WrongType", "text is a boolean"),
        ("Chat", {"messages": "hi"}, "WrongType", "messages is text"),
        ("Chat", {"messages": ["hi"]}, "WrongType", r"messages\[0\] is text"),
        ("Chat", {"messages": []}, "NoAssistantTurn", "messages"),
        ("Chat", {"messages": turns(ASK)}, "NoAssistantTurn", "no assistant turn"),
        ("Chat", {"messages": turns(ANSWER)}, "NoUserTurn", "user turn"),
        ("Chat", {"messages": turns(("system", "s"), ANSWER, ASK)}, "NoUserTurn", "user turn"),
        ("Chat", {"messages": turns(ASK, ("assistant", ""))}, "EmptyContent", r"messages\[1\]\.content"),
        ("Chat", {"messages": turns(ASK, ("assistant", None))}, "MissingColumn", r"messages\[1\]\.content"),
        ("Chat", {"messages": turns(("human", "hi"), ANSWER)}, "UnknownRole", "'human', not one of system"),
        ("Chat", {"messages": turns((None, "hi"), ANSWER)}, "UnknownRole", "None"),
        ("Chat", {"messages": turns(ASK, ("tool", "x"), ANSWER)}, "ToolCalls", r"messages\[1\]"),
        ("Chat", {"messages": [*turns(ASK), {**turns(ANSWER)[0], "tool_calls": [{}]}]}, "ToolCalls", r"\[1\]"),
        ("Chat", {"messages": turns(ASK, ANSWER), "tools": [{}]}, "ToolCalls", "tools"),
        ("Chat", {"messages": [*turns(ASK), {**turns(ANSWER)[0], "weight": 0}]}, "UnsupportedField", "weight"),
        ("Chat", {"messages": [{**turns(ASK)[0], "name": "bob"}, *turns(ANSWER)]}, "UnsupportedField", "name"),
        ("Chat", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "NotText", r"messages\[0\]"),
        ("ShareGPT", {"conversations": said(("human", "hi"), ("observation", "x"))}, "ToolCalls", r"\[1\]"),
        ("ShareGPT", {"conversations": said(("human", "hi"), ("alien", "x"))}, "UnknownRole", "'alien'"),
        ("ShareGPT", {"conversations": turns(ASK, ANSWER)}, "UnknownRole", "from is 'None'"),
    ],
)
def test_a_row_is_refused(format, row, code, words):
    with pytest.raises(RowError, match=words) as caught:
        FORMATS[format].normalise(row, {})
    assert caught.value.code == code


def test_columns_are_mapped_by_role():
    row = {"question": "a", "answer": "b", "prompt": "not this", "ctx": "c"}
    mapped = {"prompt": "question", "completion": "answer", "system": "ctx"}
    record = FORMATS["PromptCompletion"].normalise(row, mapped)
    assert record == {"messages": turns(("system", "c"), ("user", "a"), ("assistant", "b"))}
    with pytest.raises(RowError, match="column antwort is missing"):
        FORMATS["PromptCompletion"].normalise(row, {**mapped, "completion": "antwort"})


@pytest.mark.parametrize(
    ("row", "columns", "format"),
    [
        ({"messages": turns(ASK, ANSWER)}, {}, "Chat"),
        ({"conversations": said(("human", "hi"), ("gpt", "hello"))}, {}, "ShareGPT"),
        ({"conversations": turns(ASK, ANSWER)}, {"messages": "conversations"}, "Chat"),
        ({"instruction": "i", "input": "", "output": "o", "text": "whole"}, {}, "Alpaca"),
        ({"prompt": "i", "completion": "o"}, {}, "PromptCompletion"),
        ({"question": "i", "answer": "o"}, {"prompt": "question", "completion": "answer"}, "PromptCompletion"),
        ({"text": "t"}, {}, "Text"),
        ({"content": "t"}, {"text": "content"}, "Text"),
        ({"instruction": "i", "output": "o", "text": "whole"}, {"text": "text"}, "Text"),
    ],
)
def test_auto_recognises_and_says_why(row, columns, format):
    found = detect.choose(Format.AUTO, columns, [row] * 3)
    assert found.format.name == format
    assert str(found).startswith(f"{format} (Auto: the first 3 rows have {found.format.why}")


def test_auto_names_the_columns_that_are_not_read():
    found = detect.choose(Format.AUTO, {}, [{"text": "t", "category": "c"}])
    assert str(found) == "Text (Auto: the first 1 rows have a text; not read: category)"


def test_auto_looks_past_a_few_broken_rows():
    sample = [{"prompt": "a", "completion": "b"}] * 8 + [{"prompt": "a"}, {"completion": 3}]
    assert detect.choose(Format.AUTO, {}, sample).format.name == "PromptCompletion"


def test_auto_does_not_guess():
    with pytest.raises(DataError, match="columns answer, question; formats: Chat: messages") as caught:
        detect.choose(Format.AUTO, {}, [{"question": "a", "answer": "b"}])
    assert caught.value.code == "UnknownFormat"


@pytest.mark.parametrize("row", [{"prompt": "p", "chosen": "a", "rejected": "b"}, {**HELLO, "label": True}])
def test_preferences_are_not_taken_for_something_else(row):
    with pytest.raises(ConfigError, match="Preference") as caught:
        detect.choose(Format.AUTO, {}, [row])
    assert caught.value.code == "NotSupportedYet"


@pytest.mark.parametrize("format", [Format.PREFERENCE, Format.VERIFIABLE, Format.RAFT])
def test_later_formats_are_refused_by_name(format):
    with pytest.raises(ConfigError, match=format) as caught:
        detect.choose(format, {}, [])
    assert caught.value.code == "NotSupportedYet"


def test_a_role_that_the_format_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="columns answer, question: format PromptCompletion has the roles prompt"):
        detect.choose(Format.PROMPT_COMPLETION, {"question": "q", "answer": "a"}, [])


def test_row_codes_are_a_closed_list():
    with pytest.raises(KeyError):
        RowError("Strange", "no such code")
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "datasets.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page.split("## Validation")[1], re.M)) == set(ROW_CODES)
