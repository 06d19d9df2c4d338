"""Shapes that public sets and other tools have: what Auto takes them for, and what becomes of a row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hone_trainer.datasets import detect
from hone_trainer.datasets.rows import RowError
from hone_trainer.errors import DataError

pytestmark = pytest.mark.pure
Row = dict[str, Any]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
PAIR = {"prompt": "q", "completion": "a"}
CHAT = {"messages": TALK}
THOUGHT = {"messages": [TALK[0], {"role": "assistant", "content": "<think>\nhm\n</think>\n\nhello"}]}
CALLED = {
    "messages": [
        {"role": "user", "content": "warm?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", **CALL}]},
        {"role": "tool", "content": "20 C", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Yes."},
    ],
    "tools": [TOOL],
}


def without(record: Row, *keys: str) -> Row:
    """The record without these keys of its turns and calls."""
    text = json.loads(json.dumps(record))
    for turn in text["messages"]:
        for key in keys:
            turn.pop(key, None)
            for call in turn.get("tool_calls", ()):
                call.pop(key, None)
    return text


ACCEPTED: dict[str, tuple[Row, str, Row]] = {
    "question, answer": ({"question": "q", "answer": "a", "id": 3}, "PromptCompletion", PAIR),
    "instruction, response": ({"instruction": "q", "response": "a"}, "PromptCompletion", PAIR),
    "prompt, response": ({"prompt": "q", "response": "a"}, "PromptCompletion", PAIR),
    "Dolly": (
        {"instruction": "q", "context": "c", "response": "a", "category": "open_qa"},
        "PromptCompletion",
        {"prompt": "q\n\nc", "completion": "a"},
    ),
    "Dolly without context": (
        {"instruction": "q", "context": "", "response": "a", "category": "open_qa"},
        "PromptCompletion",
        PAIR,
    ),
    "OpenOrca": (
        {"id": "niv.1", "system_prompt": "s", "question": "q", "response": "a"},
        "PromptCompletion",
        {"messages": [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "q"), ("assistant", "a"))]},
    ),
    "FLAN": ({"inputs": "q", "targets": "a", "task": "t"}, "PromptCompletion", PAIR),
    "SQuAD": (
        {
            "id": "1",
            "title": "t",
            "context": "c",
            "question": "q",
            "answers": {"text": ["a", "b"], "answer_start": [1, 2]},
        },
        "PromptCompletion",
        {"prompt": "c\n\nq", "completion": "a"},
    ),
    "problem, solution, answer": (
        {"problem": "q", "solution": "s", "answer": "4"},
        "Verifiable",
        {"prompt": "q", "answer": "4", "solution": "s"},
    ),
    "verl": (
        {"prompt": [TALK[0]], "reward_model": {"ground_truth": "4", "style": "rule"}, "data_source": "x"},
        "Verifiable",
        {"prompt": [TALK[0]], "answer": "4"},
    ),
    "OpenAI RFT": (
        {"messages": [TALK[0]], "reference_answer": "hello"},
        "Verifiable",
        {"prompt": [TALK[0]], "answer": "hello"},
    ),
    "OpenAI RFT with an object": (
        {"messages": [TALK[0]], "reference_answer": {"total": 4, "unit": "€"}},
        "Verifiable",
        {"prompt": [TALK[0]], "answer": '{"total":4,"unit":"€"}'},
    ),
    "OpenAI preference": (
        {
            "input": {"messages": [TALK[0]], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [TALK[1]],
            "non_preferred_output": [{"role": "assistant", "content": "no"}],
        },
        "Preference",
        {"prompt": [TALK[0]], "chosen": [TALK[1]], "rejected": [{"role": "assistant", "content": "no"}]},
    ),
    "Orca DPO": (
        {"system": "s", "question": "q", "chosen": "a", "rejected": "b"},
        "Preference",
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        },
    ),
    "LLaMA-Factory preference": (
        {"instruction": "q", "input": "i", "chosen": "a", "rejected": "b"},
        "Preference",
        {"prompt": "q\n\ni", "chosen": "a", "rejected": "b"},
    ),
    "question with answers that begin alike": (
        {"question": "q", "chosen": "The answer is 1A.", "rejected": "The answer is 1B."},
        "Preference",
        {"prompt": "q", "chosen": "The answer is 1A.", "rejected": "The answer is 1B."},
    ),
    "LLaMA-Factory v1 preference": (
        {
            "chosen_messages": [
                {"role": "user", "content": [{"type": "text", "value": "hi"}], "loss_weight": 0.0},
                {"role": "assistant", "content": [{"type": "text", "value": "hello"}], "loss_weight": 1.0},
            ],
            "rejected_messages": [
                {"role": "user", "content": [{"type": "text", "value": "hi"}]},
                {"role": "assistant", "content": [{"type": "text", "value": "no"}]},
            ],
        },
        "Preference",
        {"prompt": [TALK[0]], "chosen": [TALK[1]], "rejected": [{"role": "assistant", "content": "no"}]},
    ),
    "SHP": (
        {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": 0, "score_A": 1, "domain": "x"},
        "Preference",
        {"prompt": "q", "chosen": "b", "rejected": "a"},
    ),
    "KTO in a CSV": (
        {"prompt": "q", "completion": "a", "label": "False"},
        "KTO",
        {"prompt": "q", "completion": "a", "label": False},
    ),
    "LLaMA-Factory v1": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "value": "hi"}], "loss_weight": 0.0},
                {
                    "role": "assistant",
                    "content": [{"type": "reasoning", "value": "hm"}, {"type": "text", "value": "hello"}],
                    "loss_weight": 1.0,
                },
            ]
        },
        "Chat",
        THOUGHT,
    ),
    **{
        f"field {name}": ({"messages": [TALK[0], {**TALK[1], name: "hm"}]}, "Chat", THOUGHT)
        for name in ("reasoning_content", "thinking", "reasoning")
    },
    "ShareGPT under messages": (
        {"messages": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        "ShareGPT",
        CHAT,
    ),
    "chat under conversations": ({"conversations": TALK}, "Chat", CHAT),
    "chat under dialog": ({"dialog": TALK}, "Chat", CHAT),
    "messages as JSON text": ({"messages": json.dumps(TALK)}, "Chat", CHAT),
    "conversations as JSON text": (
        {"conversations": json.dumps([{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}])},
        "ShareGPT",
        CHAT,
    ),
    "Cohere": (
        {"messages": [{"role": "User", "content": "hi"}, {"role": "Chatbot", "content": "hello"}]},
        "Chat",
        CHAT,
    ),
    "older Cohere": (
        {"messages": [{"role": "User", "message": "hi"}, {"role": "Chatbot", "message": "hello"}]},
        "Chat",
        CHAT,
    ),
    "Anthropic": (
        {
            "system": [{"type": "text", "text": "s"}],
            "messages": [
                {"role": "user", "content": "warm?"},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}}],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "20 C"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
            ],
            "tools": [{"name": "weather", "description": "d", "input_schema": {"type": "object"}}],
        },
        "Chat",
        {**CALLED, "messages": [{"role": "system", "content": "s"}, *CALLED["messages"]]},
    ),
    "Bedrock": (
        {
            "schemaVersion": "bedrock-conversation-2024",
            "system": [{"text": "s"}],
            "messages": [
                {"role": "user", "content": [{"text": "warm?"}]},
                {
                    "role": "assistant",
                    "content": [{"toolUse": {"toolUseId": "c1", "name": "weather", "input": {"city": "Rome"}}}],
                },
                {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "20 C"}]}}]},
                {"role": "assistant", "content": [{"text": "Yes."}]},
            ],
            "toolConfig": {
                "tools": [
                    {"toolSpec": {"name": "weather", "description": "d", "inputSchema": {"json": {"type": "object"}}}}
                ]
            },
        },
        "Chat",
        {**CALLED, "messages": [{"role": "system", "content": "s"}, *CALLED["messages"]]},
    ),
    "Gemini": (
        {
            "systemInstruction": {"role": "system", "parts": [{"text": "s"}]},
            "contents": [
                {"role": "user", "parts": [{"text": "warm?"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Rome"}}}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": "20 C"}}]},
                {"role": "model", "parts": [{"text": "Yes."}]},
            ],
            "tools": [{"functionDeclarations": [TOOL["function"]]}],
        },
        "Chat",
        {
            "messages": [
                {"role": "system", "content": "s"},
                *(
                    {**turn, "name": "weather"} if turn["role"] == "tool" else turn
                    for turn in without(CALLED, "id", "tool_call_id")["messages"]
                ),
            ],
            "tools": [TOOL],
        },
    ),
    "xLAM": (
        {
            "id": 1,
            "query": "warm?",
            "answers": json.dumps([{"name": "weather", "arguments": {"city": "Rome"}}]),
            "tools": json.dumps([TOOL["function"]]),
        },
        "Chat",
        {"messages": without(CALLED, "id")["messages"][:2], "tools": [TOOL]},
    ),
    "tools in a preference": (
        {
            "prompt": [TALK[0]],
            "chosen": [{"role": "assistant", "tool_calls": [CALL]}],
            "rejected": [TALK[1]],
            "tools": [TOOL],
        },
        "Preference",
        {
            "prompt": [TALK[0]],
            "chosen": [{"role": "assistant", "content": "", "tool_calls": [CALL]}],
            "rejected": [TALK[1]],
            "tools": [TOOL],
        },
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_known_shape_is_read_and_told(name: str) -> None:
    row, format, record = ACCEPTED[name]
    found = detect.choose("Auto", {}, [row] * 3)
    assert str(found).startswith(f"{format} (Auto: ")
    assert found.normalise(row) == record


REFUSED: dict[str, tuple[Row, str, str]] = {
    "TRL step-wise": (
        {"prompt": "q", "completions": ["a", "b"], "labels": [True, False]},
        "UnknownFormat",
        "TRL step-wise supervision",
    ),
    "fill in the middle": (
        {"prefix": "def f(", "middle": "x", "suffix": "): return x", "repo": "r"},
        "UnknownFormat",
        "{prompt: prefix, completion: middle}",
    ),
    "ranked completions": ({"prompt": "q", "completions": ["a", "b"]}, "UnknownFormat", "ranked completions"),
    "pre-tokenised": ({"input_ids": [1, 2], "labels": [1, 2]}, "UnknownFormat", "give the texts"),
    "Axolotl segments": ({"segments": [{"label": True, "text": "a"}]}, "UnknownFormat", "Axolotl segments"),
    "OASST": (
        {"message_id": "1", "parent_id": None, "role": "prompter", "text": "t"},
        "UnknownFormat",
        "a root to a leaf",
    ),
    "translation": ({"translation": {"de": "a", "en": "b"}}, "UnknownFormat", "prompt: translation.de"),
    "summaries": ({"document": "d", "summary": "s"}, "UnknownFormat", "lines('Summarise:', document)"),
    "prompts alone": ({"prompt": "q", "id": "a-1"}, "UnknownFormat", "prompts without answers. Add what is learned"),
    "prompts of turns alone": ({"prompt": [TALK[0]]}, "UnknownFormat", "prompts without answers"),
    **{
        f"texts in {name}": ({name: ["hi", "hello"], "act": [1, 2]}, "UnknownFormat", f"prompt: '{name}[0]'")
        for name in ("dialog", "utterances", "messages", "conversations")
    },
    "classes as numbers": (
        {"text": "t", "label": 1},
        "UnknownFormat",
        """{prompt: text, completion: 'name(label, `["name of 0", "name of 1"]`)'}""",
    ),
    "many classes as numbers": ({"text": "t", "label": 76}, "UnknownFormat", '"name of 3", "…"]`)'),
    "preference with a text of the asker's": (
        {"headline": "q", "chosen": "It is so. Yes.", "rejected": "It is so. No."},
        "UnreadColumns",
        "{prompt: headline}",
    ),
    "0 and 1 beside an answer": ({"prompt": "q", "completion": "a", "label": 1}, "UnreadColumns", "format: KTO"),
    "kto_tag": ({"prompt": "q", "completion": "a", "kto_tag": "true"}, "UnreadColumns", "format: KTO"),
    "verdicts of 1 and -1": ({"prompt": "q", "completion": "a", "label": -1}, "UnreadColumns", "label: label"),
    "verdicts in words": ({"prompt": "q", "completion": "a", "label": "Good"}, "UnreadColumns", "format: KTO"),
    "is_correct": ({"prompt": "q", "completion": "a", "is_correct": False}, "UnreadColumns", "label: is_correct"),
    "context beside prompt": ({"prompt": "q", "completion": "a", "context": "c"}, "UnreadColumns", "context"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_read_wrongly_is_refused_with_the_way_out(name: str) -> None:
    row, code, words = REFUSED[name]
    with pytest.raises(DataError) as caught:
        detect.choose("Auto", {}, [row] * 3)
    assert caught.value.code == code
    assert words in caught.value.message


def test_the_mapping_that_is_told_for_classes_reads_them() -> None:
    rows = [{"text": "t", "label": label} for label in (0, 1)]
    with pytest.raises(RowError, match="completion is a number") as caught:
        detect.choose("PromptCompletion", {"prompt": "text", "completion": "label"}, rows).normalise(rows[1])
    expression = str(caught.value).partition("completion: '")[2].removesuffix("'}")
    found = detect.choose("PromptCompletion", {"prompt": "text", "completion": expression}, rows)
    assert [found.normalise(row)["completion"] for row in rows] == ["name of 0", "name of 1"]


@pytest.mark.parametrize(
    ("label", "verdict"), [(1.0, True), (0.0, False), (-1, False), ("1", True), ("Good", True), ("bad", False)]
)
def test_a_verdict_that_is_told_to_be_a_label_is_read_as_one(label: Any, verdict: bool) -> None:
    row = {"prompt": "q", "completion": "a", "is_correct": label}
    assert detect.choose("KTO", {"label": "is_correct"}, [row]).normalise(row)["label"] is verdict


@pytest.mark.parametrize("name", [name for name, (_, code, _) in REFUSED.items() if code == "UnreadColumns"])
def test_who_ignores_the_column_insists(name: str) -> None:
    row, *_ = REFUSED[name]
    others = set(row) - {"prompt", "completion", "chosen", "rejected"}
    found = detect.choose("Auto", {}, [row] * 3, others)
    assert set(found.normalise(row)) <= {"prompt", "completion", "chosen", "rejected"}


WRITTEN_OUT: dict[str, tuple[str, dict[str, str], Row, str]] = {
    "a question beside two answers": (
        "Preference",
        {},
        {"question": "q", "chosen": "It is so. Yes.", "rejected": "It is so. No."},
        "{prompt: question}",
    ),
    "the same with roles mapped to their own names": (
        "Preference",
        {"chosen": "chosen", "rejected": "rejected"},
        {"question": "q", "chosen": "It is so. Yes.", "rejected": "It is so. No."},
        "{prompt: question}",
    ),
    "a question in two columns": (
        "Preference",
        {},
        {"instruction": "q", "input": "i", "chosen": "It is so. Yes.", "rejected": "It is so. No."},
        '{prompt: "lines(instruction, input)"}',
    ),
    "a label beside an answer": (
        "PromptCompletion",
        {"prompt": "question"},
        {"question": "q", "completion": "a", "label": "False"},
        "format: KTO",
    ),
    "a label beside a chat": ("Chat", {}, {**CHAT, "label": False}, "format: KTO"),
    "a label beside an instruction": ("Alpaca", {}, {"instruction": "q", "output": "a", "label": 0}, "format: KTO"),
    "context beside an answer": ("PromptCompletion", {}, {**PAIR, "context": "c"}, "lines(context"),
    "context beside an answer to check by": (
        "Verifiable",
        {},
        {"prompt": "q", "answer": "4", "context": "c"},
        "lines(c",
    ),
    "context beside an answer with the verdict 0": ("KTO", {}, {**PAIR, "label": 0, "context": "c"}, "lines(context"),
}


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_a_format_that_is_written_out_drops_no_column_silently(name: str) -> None:
    format, columns, row, words = WRITTEN_OUT[name]
    with pytest.raises(DataError, match="ignoreColumns") as caught:
        detect.choose(format, columns, [row] * 3)
    assert caught.value.code == "UnreadColumns"
    assert words in caught.value.message
    others = {"question", "instruction", "input", "label", "context"} & row.keys() - {*columns.values()}
    needed = {*detect.FORMATS[format].required}
    found = detect.choose(format, columns, [row] * 3, others - needed)
    assert found.normalise(row)


@pytest.mark.parametrize("format", ["Auto", "Chat"])
@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        *((name, ["a.png"], "NotText") for name in ("image", "images", "audio", "audios", "video", "videos")),
        ("train_detail", [{"begin": 0}], "UnsupportedField"),
    ],
)
def test_content_that_no_format_reads_is_refused(format: str, column: str, value: Any, code: str) -> None:
    row = {**CHAT, column: value}
    with pytest.raises(RowError, match="ignoreColumns") as caught:
        detect.choose(format, {}, [CHAT]).normalise(row)
    assert caught.value.code == code
    assert detect.choose(format, {}, [row], [column]).normalise(row) == CHAT
    assert detect.choose(format, {}, [CHAT]).normalise({**CHAT, column: []}) == CHAT


@pytest.mark.parametrize(
    ("turn", "code"),
    [
        ({"role": "assistant", "content": "a", "train_detail": [{"begin_offset": 0}]}, "UnsupportedField"),
        ({"role": "assistant", "content": "<think>\nx\n</think>\na", "thinking": "hm"}, "UnsupportedField"),
        ({"role": "user", "content": "a", "reasoning_content": "hm"}, "UnsupportedField"),
        ({"role": "assistant", "content": "a", "loss_weight": 0.5}, "WrongWeight"),
        ({"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}, "NotText"),
        ({"role": "assistant", "content": [{"type": "tool_use", "input": {}}]}, "BrokenToolCall"),
        ({"role": "user", "content": [{"type": "tool_use", "name": "f", "input": {}}]}, "BrokenToolCall"),
    ],
)
def test_a_turn_is_refused(turn: Row, code: str) -> None:
    row = {"messages": [TALK[0], turn, *TALK]}
    with pytest.raises(RowError) as caught:
        detect.choose("Chat", {}, [row]).normalise(row)
    assert caught.value.code == code
