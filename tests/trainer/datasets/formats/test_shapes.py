"""Shapes that public sets and other tools have: what Auto takes them for, and what becomes of a row."""

from __future__ import annotations

import json

import pytest
from support.rows.conversations import CALL, CALLED, CHAT, PAIR, TALK, THOUGHT, TOOL, Row, without

from hone_trainer.datasets.formats import detect

pytestmark = pytest.mark.pure
ACCEPTED: dict[str, tuple[Row, str, Row]] = {
    "question, answer": ({"question": "q", "answer": "a", "id": 3}, "PromptCompletion", PAIR),
    "instruction, response": ({"instruction": "q", "response": "a"}, "PromptCompletion", PAIR),
    "prompt, response": ({"prompt": "q", "response": "a"}, "PromptCompletion", PAIR),
    "user, assistant": ({"user": "q", "assistant": "a"}, "PromptCompletion", PAIR),
    "system, user, assistant": (
        {"system": "s", "user": "q", "assistant": "a"},
        "PromptCompletion",
        {"messages": [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "q"), ("assistant", "a"))]},
    ),
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
    "a preference of turns as JSON text": (
        {"prompt": "hi", "chosen": json.dumps(TALK), "rejected": json.dumps([TALK[0], {**TALK[1], "content": "no"}])},
        "Preference",
        {"prompt": [TALK[0]], "chosen": [TALK[1]], "rejected": [{"role": "assistant", "content": "no"}]},
    ),
    "a preference with its prompt as JSON text": (
        {
            "prompt": json.dumps(TALK[:1]),
            "chosen": json.dumps(TALK[1:]),
            "rejected": json.dumps([{**TALK[1], "content": "no"}]),
        },
        "Preference",
        {"prompt": [TALK[0]], "chosen": [TALK[1]], "rejected": [{"role": "assistant", "content": "no"}]},
    ),
    "prompt and completion as JSON text": (
        {"prompt": json.dumps(TALK[:1]), "completion": json.dumps(TALK[1:])},
        "PromptCompletion",
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
    "Bedrock without a system text": (
        {
            "schemaVersion": "bedrock-conversation-2024",
            "messages": [{"role": t["role"], "content": [{"text": t["content"]}]} for t in TALK],
        },
        "Chat",
        CHAT,
    ),
    "Gemini without a system text": (
        {
            "contents": [
                {"role": "user", "parts": [{"text": "hi"}]},
                {"role": "model", "parts": [{"text": "hello"}]},
            ]
        },
        "Chat",
        CHAT,
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
def test_a_known_shape_is_read_and_reported(name: str) -> None:
    row, format, record = ACCEPTED[name]
    found = detect.choose("Auto", {}, [row] * 3)
    assert str(found).startswith(f"{format} (Auto: ")
    assert found.normalise(row) == record
