"""Tools and their calls: OpenAI's forms (now and before 2023-11) and LLaMA-Factory's, as chat templates take them.

A template is given `tools` as [{type: function, function: {name, …}}] and a call's arguments as an object, which it
writes in its own way.
"""

from __future__ import annotations

from typing import Any

from hone_trainer.datasets.rows import RowError, strict_json, text_of, type_name

Tool = dict[str, Any]
Call = dict[str, Any]


def tools_of(value: Any, what: str) -> list[Tool]:
    """The tools of a row: OpenAI's `tools`, its older `functions`, or either as a JSON text (LLaMA-Factory).

    Raises:
        RowError: WrongType or BrokenToolCall.
    """
    value = _parsed(value, what)
    if value in (None, []):
        return []
    if not isinstance(value, list):
        raise RowError("WrongType", f"{what} is {type_name(value)}, not a list")
    return [_tool(one, f"{what}[{i}]") for i, one in enumerate(_declared(value))]


def _declared(tools: list[Any]) -> list[Any]:
    """The tools themselves, of Gemini's groups of declarations."""
    keys = ("functionDeclarations", "function_declarations")
    groups = [
        next((tool[key] for key in keys if key in tool), [tool]) if isinstance(tool, dict) else [tool] for tool in tools
    ]
    return [tool for group in groups for tool in (group if isinstance(group, list) else [group])]


def calls_of(value: Any, where: str) -> list[Call]:
    """The calls of an assistant turn: OpenAI's `tool_calls`, or bare {name, arguments}, one or several.

    Raises:
        RowError: BrokenToolCall.
    """
    value = _parsed(value, where)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise RowError("BrokenToolCall", f"{where} is {type_name(value)}, not a call or a list of calls")
    return [_call(one, f"{where}[{i}]") for i, one in enumerate(value)]


def _tool(tool: Any, where: str) -> Tool:
    function = tool.get("function", tool.get("toolSpec", tool)) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type", "function") not in ("function", "object", "custom"):
        raise RowError("BrokenToolCall", f"{where} is not a function")
    _name(function, where)
    if (schema := function.get("input_schema", function.get("inputSchema"))) is not None:  # Anthropic's, Bedrock's
        schema = schema.get("json", schema) if isinstance(schema, dict) else schema
        rest = {key: value for key, value in function.items() if key not in ("input_schema", "inputSchema", "type")}
        function = {**rest, "parameters": schema}
    return {"type": "function", "function": function}


def _call(call: Any, where: str) -> Call:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise RowError("BrokenToolCall", f"{where} is not a call of a function")
    normalised = {"name": _name(function, where), "arguments": _arguments(function.get("arguments"), where)}
    identity = call.get("id")
    return {
        **({"id": text_of(identity, f"{where}.id")} if identity else {}),
        "type": "function",
        "function": normalised,
    }


def _arguments(value: Any, where: str) -> dict[str, Any]:
    value = _parsed(value, f"{where}.arguments")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RowError("BrokenToolCall", f"{where}.arguments is {type_name(value)}, not an object")
    return value


def _name(function: dict[str, Any], where: str) -> str:
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise RowError("BrokenToolCall", f"{where} has no name")
    return name


def _parsed(value: Any, where: str) -> Any:
    """Parse a JSON text; a value that is not a text is returned unchanged; an empty text gives nothing."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return strict_json(value)
    except ValueError as error:
        raise RowError("BrokenToolCall", f"{where} is not JSON: {error}"[:300]) from None
