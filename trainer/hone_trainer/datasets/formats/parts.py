"""Converts content in parts, as providers write it, to the content of a turn: texts, reasoning, calls of tools and
their answers.

One entry of `_PARTS` a kind of part: OpenAI's and Anthropic's (`type`), LLaMA-Factory's (`type` and `value`), Bedrock's
and Gemini's (the only key names the kind).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hone_trainer.datasets.formats.tools import calls_of
from hone_trainer.datasets.readers.rows import RowError, type_name
from hone_trainer.encoding.reasoning import THINK


@dataclass
class TurnParts:
    """The content of one turn's parts."""

    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    """In OpenAI's form."""
    results: list[dict[str, Any]] = field(default_factory=list)
    """Answers of tools, as turns in OpenAI's form."""


def read(content: Any, where: str) -> TurnParts | None:
    """The content of a list of parts; None for content that is not a list.

    Raises:
        RowError: NotText or BrokenToolCall.
    """
    if not isinstance(content, list):
        return None
    turn_parts = TurnParts()
    for i, part in enumerate(content):
        if isinstance(part, str):
            turn_parts.texts.append(part)
            continue
        if not isinstance(part, dict):
            raise RowError("NotText", f"{where}[{i}] is {type_name(part)}, not a part of a turn")
        kind = str(part.get("type") or next((key for key in part if key in _PARTS), next(iter(part), "")))
        if kind not in _PARTS:
            raise RowError("NotText", f"{where} has content that is not text: a part of kind {kind[:40]!r}")
        _PARTS[kind](part, turn_parts, f"{where}[{i}]")
    return turn_parts


def with_reasoning(reasoning: str, content: str | None, where: str) -> str:
    """The content after its reasoning.

    Raises:
        RowError: UnsupportedField, where the content has reasoning of its own.
    """
    if content and content.lstrip().startswith("<think>"):
        raise RowError("UnsupportedField", f"{where} has reasoning in a field and in its content: remove one")
    return f"{THINK[0]}{reasoning.strip()}{THINK[1]}{content or ''}"


def _text(part: dict[str, Any], turn_parts: TurnParts, where: str) -> None:
    turn_parts.texts.append(_texts_in(part, ("text", "value"), where))


def _reasoning(part: dict[str, Any], turn_parts: TurnParts, where: str) -> None:
    inner = part.get("reasoningContent")
    if isinstance(inner, dict):
        part = inner.get("reasoningText", {})
    turn_parts.reasoning.append(_texts_in(part, ("thinking", "reasoning", "text", "value"), where))


def _texts_in(part: dict[str, Any], keys: tuple[str, ...], where: str) -> str:
    for key in keys:
        if isinstance(text := part.get(key), str):
            return text
    raise RowError("NotText", f"{where} has no text ({' or '.join(keys)})")


def _call(
    key: str | None, name: str, arguments: str, identity: str
) -> Callable[[dict[str, Any], TurnParts, str], None]:
    """Reads a call under `key`, or the part itself as a call."""

    def read_call(part: dict[str, Any], turn_parts: TurnParts, where: str) -> None:
        call = part.get(key) if key else part
        if not isinstance(call, dict):
            raise RowError("BrokenToolCall", f"{where}.{key} is {type_name(call)}, not an object")
        function = {"name": call.get(name), "arguments": call.get(arguments)}
        turn_parts.calls.extend(calls_of([{"id": call.get(identity), "function": function}], where))

    return read_call


def _call_in_json(part: dict[str, Any], turn_parts: TurnParts, where: str) -> None:
    turn_parts.calls.extend(calls_of(part.get("value"), f"{where}.value"))


def _result(key: str | None, content: str, identity: str) -> Callable[[dict[str, Any], TurnParts, str], None]:
    """Reads the answer of a tool."""

    def read_result(part: dict[str, Any], turn_parts: TurnParts, where: str) -> None:
        result = part.get(key) if key else part
        if not isinstance(result, dict):
            raise RowError("BrokenToolCall", f"{where}.{key} is {type_name(result)}, not an object")
        turn = {"role": "tool", "content": _result_text(result.get(content), f"{where}.{content}")}
        if isinstance(result.get(identity), str):
            turn["name" if identity == "name" else "tool_call_id"] = result[identity]
        turn_parts.results.append(turn)

    return read_result


def _result_text(value: Any, where: str) -> str:
    """A text as it is, parts joined, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        return _json(value, where)
    return "".join(_json(part["json"], where) if _is_json(part) else _plain(part, where) for part in value)


def _json(value: Any, where: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError("WrongType", f"{where} has a value that JSON cannot represent: {error}"[:300]) from None


def _is_json(part: Any) -> bool:
    return isinstance(part, dict) and set(part) == {"json"}


def _plain(part: Any, where: str) -> str:
    turn_parts = read([part], where)
    return "".join(turn_parts.texts) if turn_parts else ""


_PARTS: dict[str, Callable[[dict[str, Any], TurnParts, str], None]] = {
    **dict.fromkeys(("text", "input_text", "output_text"), _text),
    **dict.fromkeys(("thinking", "reasoning", "reasoningContent"), _reasoning),
    "tool_use": _call(None, "name", "input", "id"),
    "toolUse": _call("toolUse", "name", "input", "toolUseId"),
    "functionCall": _call("functionCall", "name", "args", "id"),
    "function_call": _call("function_call", "name", "args", "id"),
    "tool_call": _call_in_json,
    "tool_result": _result(None, "content", "tool_use_id"),
    "toolResult": _result("toolResult", "content", "toolUseId"),
    "functionResponse": _result("functionResponse", "response", "name"),
    "function_response": _result("function_response", "response", "name"),
}
