"""Rows of conversations that tests of readers share."""

from __future__ import annotations

import json
from typing import Any

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
