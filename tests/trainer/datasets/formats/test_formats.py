"""Formats, row by row: what a row becomes, or the code and words with which it is refused."""

import json

import pytest

from hone_api.dataset.dataset import Format
from hone_api.methods import METHODS
from hone_trainer.datasets.formats import FORMATS
from hone_trainer.datasets.readers.rows import RowError

pytestmark = pytest.mark.pure


def test_every_format_of_the_api_is_read_and_taken_by_a_method():
    wanted = set(Format) - {Format.AUTO}
    assert set(FORMATS) == wanted
    assert {format for info in METHODS.values() for format in info.formats} == wanted


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def said(*pairs):
    return [{"from": who, "value": value} for who, value in pairs]


ASK = ("user", "hi")
ANSWER = ("assistant", "hello")
HELLO = {"messages": turns(ASK, ANSWER)}
WEATHER = {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": WEATHER}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
CALLED = {
    "messages": [
        *turns(ASK),
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "31"},
        *turns(ANSWER),
    ],
    "tools": TOOLS,
}


def asked(*calls, content=None, **more):
    """An assistant turn as OpenAI writes it: arguments are a JSON text."""
    made = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in calls]
    return {"role": "assistant", "content": content, "tool_calls": made, **more}


def tool_result(identity, content):
    return {"role": "tool", "tool_call_id": identity, "content": content}


def weights(*values):
    """Conversations of a turn of the assistant for each weight; None leaves it out."""
    said = []
    for value in values:
        said += turns(ASK, ANSWER)
        said[-1] |= {} if value is None else {"weight": value}
    return {"messages": said}


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
        (
            "PromptCompletion",
            {"prompt": "hi", "completion": "hello", "tools": json.dumps([WEATHER])},
            {**HELLO, "tools": TOOLS},
        ),
        (
            "PromptCompletion",
            {"prompt": "hi", "completion": "hello", "tools": "[]"},
            {"prompt": "hi", "completion": "hello"},
        ),
        ("Alpaca", {"instruction": "hi", "output": "hello", "tools": TOOLS}, {**HELLO, "tools": TOOLS}),
        ("Chat", {"messages": turns(ASK, ANSWER), "id": 1}, HELLO),
        ("ShareGPT", {"conversations": {"from": ["human", "gpt"], "value": ["hi", "hello"]}}, HELLO),
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
        ("Chat", weights(0, 1), weights(0, None)),
        ("Chat", weights(0.0, 1.0), weights(0, None)),  # as Parquet has them
        ("Chat", {"messages": [{**turns(ASK)[0], "weight": 0}, *turns(ANSWER)]}, HELLO),
        ("Chat", {"messages": [{**turns(ASK)[0], "timestamp": 3, "id": "a"}, *turns(ANSWER)]}, HELLO),
        (
            "Chat",
            {"messages": [{**turns(ASK)[0], "name": "bob"}, *turns(ANSWER)]},
            {"messages": [{**turns(ASK)[0], "name": "bob"}, *turns(ANSWER)]},
        ),
        ("Chat", {"messages": turns(("system", ""), ASK, ANSWER)}, HELLO),
        ("Chat", {"messages": turns(ASK, ANSWER), "system": "s"}, {"messages": turns(("system", "s"), ASK, ANSWER)}),
        (
            "Chat",
            {"messages": turns(("system", "t"), ASK, ANSWER), "system": "s"},
            {"messages": turns(("system", "t"), ASK, ANSWER)},
        ),
        ("Chat", {"messages": turns(ASK, ASK, ANSWER, ANSWER)}, {"messages": turns(ASK, ASK, ANSWER, ANSWER)}),
        (
            "Chat",
            {
                "messages": [
                    *turns(ASK),
                    asked(("c1", "weather", '{"city": "Rome"}')),
                    tool_result("c1", "31"),
                    *turns(ANSWER),
                ],
                "tools": TOOLS,
                "parallel_tool_calls": False,
            },
            {
                "messages": [
                    *turns(ASK),
                    {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", **CALL}]},
                    {"role": "tool", "content": "31", "tool_call_id": "c1"},
                    *turns(ANSWER),
                ],
                "tools": TOOLS,
            },
        ),
        (  # two calls at once, both answered, one by nothing; content next to them
            "Chat",
            {
                "messages": [
                    *turns(ASK),
                    asked(("a", "weather", "{}"), ("b", "weather", ""), content="I look.", weight=0),
                    tool_result("b", ""),
                    tool_result("a", "31"),
                    *turns(ANSWER),
                ],
            },
            {
                "messages": [
                    *turns(ASK),
                    {
                        "role": "assistant",
                        "content": "I look.",
                        "tool_calls": [
                            {"id": i, "type": "function", "function": {"name": "weather", "arguments": {}}}
                            for i in ("a", "b")
                        ],
                        "weight": 0,
                    },
                    {"role": "tool", "content": "", "tool_call_id": "b"},
                    {"role": "tool", "content": "31", "tool_call_id": "a"},
                    *turns(ANSWER),
                ],
            },
        ),
        (  # OpenAI's form before tools
            "Chat",
            {
                "messages": [
                    *turns(ASK),
                    {
                        "role": "assistant",
                        "content": None,
                        "function_call": {"name": "weather", "arguments": '{"city": "Rome"}'},
                    },
                    {"role": "function", "name": "weather", "content": "31"},
                    *turns(ANSWER),
                ],
                "functions": [WEATHER],
            },
            {
                **CALLED,
                "messages": [
                    *CALLED["messages"][:2],
                    {"role": "tool", "content": "31", "name": "weather"},
                    *turns(ANSWER),
                ],
            },
        ),
        ("ShareGPT", {"conversations": said(("human", "hi"), ("gpt", "hello"))}, HELLO),
        ("ShareGPT", {"conversations": said(("user", "hi"), ("chatgpt", "hello"))}, HELLO),
        ("ShareGPT", {"conversations": said(("human", "hi"), ("bard", "hello")), "system": ""}, HELLO),
        (
            "ShareGPT",
            {"conversations": said(("human", "hi"), ("gpt", "hello")), "system": "s"},
            {"messages": turns(("system", "s"), ASK, ANSWER)},
        ),
        ("ShareGPT", {"conversations": said(("Human", "hi"), ("GPT", "hello"))}, HELLO),
        ("ShareGPT", {"conversations": said(("gpt", "welcome"), ("human", "hi"), ("gpt", "hello"))}, HELLO),
        (
            "ShareGPT",
            {"conversations": said(("system", "s"), ("gpt", "welcome"), ("human", "hi"), ("gpt", "hello"))},
            {"messages": turns(("system", "s"), ASK, ANSWER)},
        ),
        (
            "ShareGPT",
            {
                "conversations": [
                    *said(("human", "hi")),
                    {"from": "gpt", "value": "no", "weight": 0},
                    *said(("gpt", "hello")),
                ]
            },
            {"messages": [*turns(ASK), {"role": "assistant", "content": "no", "weight": 0}, *turns(ANSWER)]},
        ),
        (
            "ShareGPT",
            {
                "conversations": said(("human", "hi"), ("gpt", "hello"), ("human", "hi"), ("gpt", "hello")),
                "tools": "[]",
            },
            {"messages": turns(ASK, ANSWER, ASK, ANSWER)},
        ),
        (  # LLaMA-Factory's tools
            "ShareGPT",
            {
                "conversations": said(
                    ("human", "hi"),
                    ("function_call", '{"name": "weather", "arguments": {"city": "Rome"}}'),
                    ("observation", "31"),
                    ("gpt", "hello"),
                ),
                "tools": json.dumps([WEATHER]),
            },
            CALLED,
        ),
        (
            "ShareGPT",
            {"conversations": said(("human", "hi"), ("function_call", '[{"name": "a"}, {"name": "b"}]'))},
            {
                "messages": [
                    *turns(ASK),
                    {
                        "role": "assistant",
                        "content": "",
                        "tool_calls": [
                            {"type": "function", "function": {"name": n, "arguments": {}}} for n in ("a", "b")
                        ],
                    },
                ]
            },
        ),
        (
            "Alpaca",
            {"instruction": "hi", "output": "hello", "history": [["q", "a"]], "system": "s"},
            {"messages": turns(("system", "s"), ("user", "q"), ("assistant", "a"), ASK, ANSWER)},
        ),
        (  # TRL's conversational prompt and completion: the completion alone is trained
            "PromptCompletion",
            {"prompt": turns(ASK, ANSWER, ASK), "completion": turns(ANSWER)},
            {"messages": [*turns(ASK), {**turns(ANSWER)[0], "weight": 0}, *turns(ASK, ANSWER)]},
        ),
        (
            "RAFT",
            {"question": "q", "oracle": "o", "answer": "a"},
            {"prompt": "<DOCUMENT>o</DOCUMENT>\nq", "completion": "a"},
        ),
        (
            "RAFT",
            {"question": "q", "oracle": None, "distractors": ["d"], "reasoning": "r", "answer": "a", "system": "s"},
            {
                "messages": turns(
                    ("system", "s"), ("user", "<DOCUMENT>d</DOCUMENT>\nq"), ("assistant", "##Reason: r\n##Answer: a")
                )
            },
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
        ("Alpaca", {"instruction": "a", "output": "b", "history": [["c"]]}, "WrongType", r"history\[0\] is not a pair"),
        ("Alpaca", {"instruction": "a", "output": "b", "history": "c"}, "WrongType", "history is text"),
        ("Alpaca", {"instruction": "a", "output": "b", "history": [["c", ""]]}, "EmptyContent", r"history\[0\]"),
        ("PromptCompletion", {"prompt": turns(ASK), "completion": "b"}, "WrongType", "prompt is a list"),
        ("PromptCompletion", {"prompt": turns(ASK), "completion": turns(ASK)}, "NoAssistantTurn", "completion"),
        ("PromptCompletion", {"prompt": "a\0", "completion": "b"}, "NotUTF8", "NUL"),
        ("RAFT", {"question": "q", "answer": "a"}, "MissingColumn", "oracle and distractors"),
        ("RAFT", {"question": "q", "answer": "a", "oracle": 3}, "WrongType", "oracle is a number"),
        ("RAFT", {"question": "q", "answer": "a", "distractors": ["d", ""]}, "EmptyContent", r"distractors\[1\]"),
        ("Text", {"text": ""}, "EmptyContent", "text"),
        ("Text", {"text": True}, "WrongType", "text is a boolean"),
        ("Chat", {"messages": "hi"}, "WrongType", "messages is text"),
        ("Chat", {"messages": {"role": ["user"], "content": ["a", "b"]}}, "WrongType", "messages is an object"),
        ("Chat", {"messages": ["hi"]}, "WrongType", r"messages\[0\] is text"),
        ("Chat", {"messages": []}, "MissingMessages", "messages has no turn"),
        ("Chat", {"messages": None}, "MissingMessages", "column messages is null"),
        ("Chat", {"dialogue": []}, "MissingMessages", "the row has: dialogue"),
        ("Chat", {"messages": turns(ASK)}, "NoAssistantTurn", "no assistant turn"),
        ("Chat", {"messages": turns(ANSWER)}, "NoUserTurn", "user turn"),
        ("Chat", {"messages": turns(("system", "s"), ANSWER, ASK)}, "NoUserTurn", "user turn"),
        ("Chat", {"messages": turns(ASK, ("assistant", ""))}, "EmptyContent", r"messages\[1\]\.content"),
        ("Chat", {"messages": turns(ASK, ("assistant", None))}, "MissingContent", r"messages\[1\]\.content"),
        ("Chat", {"messages": turns(("human", "hi"), ANSWER)}, "UnknownRole", "'human', not one of system"),
        ("Chat", {"messages": turns((None, "hi"), ANSWER)}, "UnknownRole", "None"),
        ("Chat", {"messages": turns(ASK, ("tool", "x"), ANSWER)}, "BrokenToolCall", "follows no call"),
        (
            "Chat",
            {"messages": [*turns(ASK), {**turns(ANSWER)[0], "tool_calls": [{}]}]},
            "BrokenToolCall",
            "has no name",
        ),
        ("Chat", {"messages": [*turns(ASK), {**turns(ANSWER)[0], "tool_calls": ["x"]}]}, "BrokenToolCall", r"\[1\]"),
        ("Chat", {"messages": [*turns(ASK), asked(("a", "w", "{x"))]}, "BrokenToolCall", "arguments is not JSON"),
        ("Chat", {"messages": [*turns(ASK), asked(("a", "w", "[1]"))]}, "BrokenToolCall", "arguments is a list"),
        ("Chat", {"messages": [*turns(ASK), asked(("a", "w", '{"x": NaN}'))]}, "BrokenToolCall", "NaN is not JSON"),
        (
            "Chat",
            {"messages": [{**turns(ASK)[0], "tool_calls": [CALL]}, *turns(ANSWER)]},
            "BrokenToolCall",
            "not the assi",
        ),
        (
            "Chat",
            {"messages": [*turns(ASK), asked(("a", "w", "{}")), tool_result("b", "x")]},
            "BrokenToolCall",
            "'b' matches no",
        ),
        ("Chat", {"messages": [*turns(ASK), asked(("a", "w", "{}"))], "tools": TOOLS}, "UnknownTool", "calls 'w'"),
        ("Chat", {"messages": turns(ASK, ANSWER), "tools": [{}]}, "BrokenToolCall", r"tools\[0\] has no name"),
        ("Chat", {"messages": turns(ASK, ANSWER), "tools": "{"}, "BrokenToolCall", "tools is not JSON"),
        ("Chat", {"messages": turns(ASK, ANSWER), "tools": {"name": "x"}}, "WrongType", "tools is an object"),
        ("Chat", weights(0), "NothingTrained", "weight 0"),
        ("Chat", weights(0, 0), "NothingTrained", "weight 0"),
        ("Chat", weights(0.5), "WrongWeight", r"messages\[1\]\.weight is 0\.5, not 0 or 1"),
        ("Chat", weights(True), "WrongWeight", "weight is True"),
        ("Chat", weights("1"), "WrongWeight", "weight is the text '1', not 0 or 1"),
        ("Chat", {"messages": [{**turns(ASK)[0], "weight": 1}, *turns(ANSWER)]}, "WrongWeight", "only the assistant's"),
        ("Chat", {"messages": [*turns(ASK), {**turns(ANSWER)[0], "refusal": "no"}]}, "UnsupportedField", "refusal"),
        ("Chat", {"messages": [*turns(ASK), {**turns(ANSWER)[0], "train": False}]}, "UnsupportedField", "use weight 0"),
        ("Chat", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "NotText", r"messages\[0\]"),
        ("ShareGPT", {"conversations": said(("human", "hi"), ("observation", "x"))}, "NoAssistantTurn", "no assistant"),
        (
            "ShareGPT",
            {"conversations": [*said(("human", "hi")), {"from": "gpt", "value": "hello", "tool_calls": [CALL]}]},
            "UnsupportedField",
            r"\[1\]\.tool_calls is not supported: use a turn of the role function_call",
        ),
        ("ShareGPT", {"conversations": said(("gpt", "hello"))}, "NoUserTurn", "does not start with a user turn"),
        ("ShareGPT", {"conversations": said(("human", "hi"), ("gpt", ""))}, "EmptyContent", r"\[1\]\.value"),
        ("ShareGPT", {"conversations": said(("human", ""), ("gpt", "hello"))}, "EmptyContent", r"\[0\]\.value"),
        ("ShareGPT", {"conversations": said(("human", "hi"), ("function_call", "f(x)"))}, "BrokenToolCall", "not JSON"),
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


def test_row_codes_are_a_closed_list():
    with pytest.raises(KeyError):
        RowError("Strange", "no such code")
