"""Tools and their calls: OpenAI's forms (now and before 2023-11) and LLaMA-Factory's, as chat templates take them.

A template is given `tools` as [{type: function, function: {name, …}}] and a call's arguments as an object, which it
writes in its own way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from hone_trainer.datasets.readers.rows import Record, RowError, strict_json, text_of, type_name

_BAD_NAME = "a tool's name has other characters than letters, digits, _ and -, or over 64"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MOST_SCHEMA = 2**16
_COSTLY = re.compile(r'"(?:\$\w*[rR]ef|pattern|patternProperties|uniqueItems)":')
"""Of a schema from a stranger: other documents, expressions that backtrack without end, comparing all with all."""
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


def tool_faults(record: Record) -> set[str]:
    """What an API would refuse of the tools and calls of a row, and calls that do not fit the row's own tools."""
    tools = [tool.get("function", tool) for tool in record.get("tools", ())]
    talks = [turns for turns in _talks(record) if tools or any("tool_calls" in turn for turn in turns)]
    if not tools and not talks:
        return set()
    names = [tool["name"] for tool in tools]
    schemas = {tool["name"]: tool["parameters"] for tool in tools if tool.get("parameters") is not None}
    fits = {name: check for name, schema in schemas.items() if (check := _check_of(json.dumps(schema, sort_keys=True)))}
    faults = {
        _BAD_NAME: any(not _NAME.fullmatch(name) for name in names),
        "a tool is given twice": len({*names}) < len(names),
        "the parameters of a tool are not a JSON Schema": len(fits) < len(schemas),
    }
    return {text for text, is_so in faults.items() if is_so}.union(*(_talk_faults(turns, fits) for turns in talks))


def _talks(record: Record) -> list[list[dict[str, Any]]]:
    """The conversations of a row: a preference has two."""
    prompt = record.get("messages", record.get("prompt"))
    before = prompt if isinstance(prompt, list) else []
    answers = [record[name] for name in ("completion", "chosen", "rejected") if isinstance(record.get(name), list)]
    return [[*before, *answer] for answer in answers] or [before]


def _talk_faults(turns: list[dict[str, Any]], fits: Mapping[str, Callable[[Any], bool]]) -> set[str]:
    calls = [call for turn in turns for call in turn.get("tool_calls", ())]
    ids, called = [call["id"] for call in calls if "id" in call], [call["function"] for call in calls]
    faults = {
        _BAD_NAME: any(not _NAME.fullmatch(call["name"]) for call in called),
        "the arguments of a call do not fit the tool's own schema": any(
            call["name"] in fits and not fits[call["name"]](call["arguments"]) for call in called
        ),
        "two calls have one id": len({*ids}) < len(ids),
        **_result_faults(turns),
    }
    return {text for text, is_so in faults.items() if is_so}


def _result_faults(turns: list[dict[str, Any]]) -> dict[str, bool]:
    missing = twice = False
    calls = results = 0
    for turn in turns:
        if turn["role"] == "tool":
            results += 1
            twice |= results > calls
        else:
            missing |= results < calls
            calls, results = len(turn.get("tool_calls", ())), 0
    answered = [turn["tool_call_id"] for turn in turns if turn.get("tool_call_id")]
    return {
        "a call has no result before the next turn": missing,
        "a call has two results": twice or len({*answered}) < len(answered),
    }


@lru_cache(maxsize=256)
def _check_of(schema: str) -> Callable[[Any], bool] | None:
    """Checks arguments by a JSON Schema; None: it is none. One that takes long or looks elsewhere allows everything."""
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    parsed = json.loads(schema)
    if not isinstance(parsed, dict | bool):
        return None
    if len(schema) > _MOST_SCHEMA or _COSTLY.search(schema):
        return lambda arguments: True
    kind = validator_for(parsed)
    try:
        kind.check_schema(parsed)
    except (SchemaError, RecursionError):
        return None
    return lambda arguments: bool(kind(parsed).is_valid(arguments))


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
