"""What conversations have in common, whatever their rows call it.

A normalised turn is {role, content}, role one of system, user, assistant, tool; content is always a text. An assistant
turn may have `tool_calls` (content may then be empty) and `weight: 0` (read, not trained); a tool turn `tool_call_id`;
any turn `name`, for templates that show it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hone_trainer.datasets.formats.base import Fields
from hone_trainer.datasets.formats.tools import Tool, tools_of
from hone_trainer.datasets.rows import Record, RowError, optional_text, text_of, type_name

Turn = dict[str, Any]
# Fields of a turn that change what it says or whether it is learned.
_MEANINGFUL = ("audio", "image", "images", "video", "videos", "refusal", "reasoning", "reasoning_content", "thinking")
_TRAINING = ("train", "training", "trainable", "loss", "loss_weight")


def turns_of(value: Any, what: str) -> list[Turn]:
    """The raw turns.

    Raises:
        RowError: MissingMessages or WrongType.
    """
    if value in (None, []):
        raise RowError("MissingMessages", f"{what} has no turn")
    if not isinstance(value, list):
        raise RowError("WrongType", f"{what} is {type_name(value)}, not a list")
    for i, turn in enumerate(value):
        if not isinstance(turn, dict):
            raise RowError("WrongType", f"{what}[{i}] is {type_name(turn)}, not an object")
    return value


def role_of(value: Any, where: str, roles: dict[str, str]) -> str:
    """The role of a turn under our name.

    Raises:
        RowError: UnknownRole.
    """
    if not isinstance(value, str) or value not in roles:
        raise RowError("UnknownRole", f"{where} is {str(value)[:40]!r}, not one of {', '.join(roles)}")
    return roles[value]


def content_of(content: Any, where: str) -> Any:
    """OpenAI's content parts as one text; anything else as it is.

    Raises:
        RowError: NotText.
    """
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RowError("NotText", f"{where} has content that is not text")
    return "".join(part["text"] for part in content)


def turn(role: str, content: Any, where: str, *, calls: list[Any] | None = None) -> Turn | None:
    """A normalised turn; None for a system turn that says nothing, which is as good as none.

    Raises:
        RowError: MissingContent, EmptyContent, WrongType or NotUTF8.
    """
    if role == "system" and optional_text(content, where) is None:
        return None
    if content is None and not calls:
        raise RowError("MissingContent", f"{where} is missing")
    may_be_empty = calls or role == "tool"
    text = text_of(content, where) if not may_be_empty or content else ""
    return {"role": role, "content": text, **({"tool_calls": calls} if calls else {})}


def refuse_other_meaning(turn: Turn, where: str) -> None:
    """Refuse fields that would change the conversation if they were left out.

    Raises:
        RowError: UnsupportedField.
    """
    for key in _MEANINGFUL:
        if turn.get(key) not in (None, "", [], {}):
            raise RowError("UnsupportedField", f"{where}.{key} is not supported")
    for key in _TRAINING:
        if turn.get(key, True) not in (None, True):  # 1 equals True
            raise RowError("UnsupportedField", f"{where}.{key} is not supported: use weight 0 of format Chat")


def is_trained(weight: Any, role: str, where: str) -> bool:
    """False for an assistant turn of weight 0.

    Raises:
        RowError: WrongWeight.
    """
    if weight is None:
        return True
    if isinstance(weight, bool) or weight not in (0, 1):
        raise RowError("WrongWeight", f"{where}.weight is {str(weight)[:40]}, not 0 or 1")
    if role != "assistant" and weight == 1:
        raise RowError("WrongWeight", f"{where}.weight is 1, but only the assistant's turns are trained")
    return role != "assistant" or weight == 1


def conversation(turns: list[Turn], fields: Fields, what: str) -> Record:
    """The record of normalised turns, with the row's system text and tools.

    A system text of its own column counts only where the turns have none, as in LLaMA-Factory.

    Raises:
        RowError: NoUserTurn, NoAssistantTurn, NothingTrained, UnknownTool, or of the tools.
    """
    messages = list(turns)
    system = optional_text(fields.get("system"), "system")
    if system is not None and not (messages and messages[0]["role"] == "system"):
        messages.insert(0, {"role": "system", "content": system})
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise RowError("NoAssistantTurn", f"{what} has no assistant turn")
    spoken = [message["role"] for message in messages if message["role"] != "system"]
    if spoken[0] != "user":
        raise RowError("NoUserTurn", f"{what} does not start with a user turn")
    if all(answer.get("weight") == 0 for answer in answers):
        raise RowError("NothingTrained", f"every assistant turn of {what} has weight 0")
    tools = tools_of(fields.get("tools"), "tools") or tools_of(fields.get("functions"), "functions")
    _refuse_unknown_tools(answers, tools, what)
    return {"messages": messages, **({"tools": tools} if tools else {})}


def _refuse_unknown_tools(answers: list[Turn], tools: list[Tool], what: str) -> None:
    known = {tool["function"]["name"] for tool in tools}
    for answer in answers:
        for call in answer.get("tool_calls", ()):
            name = call["function"]["name"]
            if known and name not in known:
                raise RowError(
                    "UnknownTool", f"{what} calls {name[:60]!r}; the tools are {', '.join(sorted(known))}"[:400]
                )


def turns_with(role: str, *keys: str) -> Callable[[Fields], bool]:
    """Recognises rows whose column of this role is a list of objects with these keys."""

    def recognises(fields: Fields) -> bool:
        turns = fields.get(role)
        return (
            isinstance(turns, list)
            and bool(turns)
            and all(isinstance(turn, dict) and turn.keys() >= set(keys) for turn in turns)
        )

    return recognises
