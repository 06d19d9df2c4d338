"""Whether a rendered conversation says what its tools, calls and answers say; pure functions on text.

Chat templates write calls each in their own way (JSON in <tool_call>, [TOOL_CALLS] [...], XML) and many know none, so
what they wrote is looked for: names, keys and values, plain or as JSON writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

Message = dict[str, Any]


def calls_in(messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    """Every {name, arguments} that the turns call."""
    for message in messages:
        for call in message.get("tool_calls", ()):
            yield call["function"]


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)


def with_text_arguments(messages: Sequence[Message]) -> list[Message]:
    """The turns with the arguments of calls as JSON texts, as OpenAI's API has them and some templates join them."""

    def as_text(call: dict[str, Any]) -> dict[str, Any]:
        function = call["function"]
        return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}

    return [{**m, "tool_calls": [as_text(c) for c in m["tool_calls"]]} if "tool_calls" in m else m for m in messages]


def shows_python(text: str, messages: Sequence[Message]) -> bool:
    """Whether arguments are written as Python writes an object: a template that joins them as if they were text."""
    for function in calls_in(messages):
        arguments = function["arguments"]
        if str(arguments) != json.dumps(arguments) and str(arguments) in text:
            return True
    return False


def missing_tool(text: str, tools: Sequence[dict[str, Any]]) -> str | None:
    """The name of a tool that the text does not show."""
    return next((t["function"]["name"] for t in tools if t["function"]["name"] not in text), None)


def missing_call(text: str, messages: Sequence[Message]) -> str | None:
    """The name of a call that the text does not show with all its arguments."""
    for function in calls_in(messages):
        if not shows(text, function["name"]) or not all(shows(text, leaf) for leaf in _leaves(function["arguments"])):
            return str(function["name"])
    return None


def shows(text: str, value: Any) -> bool:
    """Whether the text holds a value: a text as it is, as JSON escapes it or in single quotes, anything else as JSON or
    Python writes it."""
    if not isinstance(value, str):
        return any(form in text for form in (json.dumps(value), str(value)))
    if value.strip() in text:
        return True
    escaped = value.replace("\\", r"\\").replace("\n", r"\n").replace("\r", r"\r")
    forms = (json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1], escaped.replace("'", r"\'"))
    return any(form in text for form in forms)


def _leaves(value: Any) -> Iterator[Any]:
    """Keys and scalars of a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
