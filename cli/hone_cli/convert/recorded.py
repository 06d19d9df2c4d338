"""What a hosted model answered, joined with the rows that its fine-tuning had."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hone_cli.errors import CommandError

Row = dict[str, Any]
Left = dict[str, list[str]]
"""Why rows are left out, with their places."""


class LeftOutError(Exception):
    """A row that cannot be compared; the message is the reason."""


class Recorded(NamedTuple):
    """A prompt and its recorded answer."""

    turns: list[Row]
    answer: str
    item: Mapping[str, Any] | None = None
    """Of an eval: the row of its data."""


def lines(file: Path) -> Iterator[tuple[str, Row]]:
    """Place and object of each line, or of each entry of `data` in a file that is one JSON list.

    Raises:
        CommandError: the file cannot be read, or is not whole.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{file} is not UTF-8 text: download it again, or unpack it first") from None
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    listed = whole.get("data") if isinstance(whole, dict) else whole
    if isinstance(listed, list):
        yield from ((f"{file.name}, entry {n}", _object(row, f"{file}, entry {n}")) for n, row in enumerate(listed, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise CommandError(f"{file}, line {number}: not JSON. Is the file whole? Download it again") from None
            yield f"{file.name}, line {number}", _object(row, f"{file}, line {number}")


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise CommandError(f'{place}: not an object. Rows are objects such as {{"messages": [...]}}')
    return row


def text_of(message: Any) -> str:
    """The text of a turn.

    Raises:
        LeftOutError: it is more than text, or empty.
    """
    if not isinstance(message, dict):
        raise LeftOutError("it is not a conversation")
    if message.get("tool_calls") or message.get("function_call") or message.get("role") in ("tool", "function"):
        raise LeftOutError("it calls tools: no metric of texts compares calls")
    content = message.get("content")
    if isinstance(content, list):
        if any(not isinstance(part, dict) or not isinstance(part.get("text"), str) for part in content):
            raise LeftOutError("it has images, sounds or files: only texts are compared")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str) or not content.strip():
        raise LeftOutError("a turn is empty")
    return content


def key_of(turns: Sequence[Any]) -> str:
    """What is the same of one prompt in two files.

    Raises:
        LeftOutError: it is more than texts, or has no turn.
    """
    if not turns:
        raise LeftOutError("it has no prompt")
    pairs = [("system" if turn["role"] == "developer" else turn["role"], text_of(turn).strip()) for turn in turns]
    return json.dumps(pairs)


def prompt_of(row: Row, method: str) -> tuple[list[Row], Any]:
    """Turns of the prompt, and the reference answer; None: it has none."""
    if method == "DPO":
        preferred = row.get("preferred_output") or [None]
        return (row.get("input") or {}).get("messages") or [], preferred[-1]
    turns = row.get("messages") or []
    if not isinstance(turns, list):
        raise LeftOutError("it is not a conversation")
    if method == "SFT" and turns and isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant":
        return turns[:-1], turns[-1]
    return turns, None


def learned_prompts(row: Row, method: str) -> set[str]:
    """What a row teaches to answer: each turn of the assistant answers the turns before it."""
    keys: set[str] = set()
    with contextlib.suppress(LeftOutError, AttributeError, TypeError, KeyError):
        if method != "SFT":
            return {key_of(prompt_of(row, method)[0])}
        for number, turn in enumerate(row["messages"]):
            if number and turn["role"] == "assistant":
                keys.add(key_of(row["messages"][:number]))
    return keys


def recorded_answers(files: Sequence[Path], left: Left) -> dict[str, Recorded]:
    """Answers by prompt. The first of two answers to a prompt counts."""
    rows = [each for file in files for each in lines(file)]
    prompts: dict[str, Any] = {}
    for _, row in rows:
        if "custom_id" in row and isinstance(row.get("body"), dict):
            is_same = prompts.setdefault(str(row["custom_id"]), row["body"]) == row["body"]
            prompts[str(row["custom_id"])] = row["body"] if is_same else None
    found: dict[str, Recorded] = {}
    for place, row in rows:
        if "body" in row and "response" not in row:
            continue  # what a batch asked
        try:
            turns, message, item = _conversation(row, prompts)
            key, answer = key_of(turns), text_of(message)
        except LeftOutError as error:
            left.setdefault(str(error), []).append(place)
            continue
        except (KeyError, TypeError, IndexError, AttributeError):
            left.setdefault("it is none of the forms of recorded answers", []).append(place)
            continue
        if key in found and found[key].answer != answer:
            left.setdefault("its prompt has another recorded answer already, which counts", []).append(place)
        found.setdefault(key, Recorded(turns, answer, item if isinstance(item, dict) else None))
    return found


def _conversation(row: Row, prompts: Mapping[str, Any]) -> tuple[list[Row], Any, Any]:
    if "sample" in row:  # an output item of a run of an eval
        return row["sample"]["input"], row["sample"]["output"][-1], row.get("datasource_item")
    if "response" in row:  # a line of a batch, or a log of request and response
        asked = row.get("request") or prompts[str(row["custom_id"])]
        if asked is None:
            raise LeftOutError("two prompts have its custom_id: name the files of one batch")
        answer = row["response"].get("body", row["response"])
        return asked["messages"], answer["choices"][0]["message"], None
    if "choices" in row:  # a stored completion
        asked = row.get("messages") or row.get("input") or row["request"]["messages"]
        return asked, row["choices"][0]["message"], None
    turns = row["messages"]
    if turns[-1]["role"] != "assistant":
        raise LeftOutError("its last turn is not an answer")
    return turns[:-1], turns[-1], row.get("item")
