"""Parses the API server's JSON object by object, within limits: a hostile object affects only its owner.

Python's own parser fails at about 990 levels with a RecursionError; the API server's limit is 10,000. One object that
is
too deep must not make the whole list or watch unreadable.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Any

MAX_BYTES = 2**20
"""Largest object that is read. Our schemas allow far less; etcd's default limit is 1.5 MiB."""
ENVELOPE = 256
"""Bytes of an event of a watch around its object, at most."""
MAX_DEPTH = 64
"""Deepest object that is read. Specs are at most 8 levels deep, pods and managed fields at most 20."""
LONG = 2**18
"""Lists from this size in bytes on are parsed in a thread."""
IDENTITY_TOKENS = 200_000
"""Bytes at the start of an object that are searched for its name."""

REASONS = ("TooLarge", "TooDeep", "Malformed", "Unwritable")
"""Why an object is not read, or is left alone because no status can be stored with it."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)
_PART = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{\]}:,"]', re.DOTALL)
_HEAD = re.compile(rb'\{(?:"(?:kind|apiVersion)":"[^"\\]*",)*"metadata":(?=\{)')
_TAIL = re.compile(rb'\](?:,"kind":"[^"\\]*")?,"metadata":(\{[^{}]*\})\}\s*\Z')
_METADATA_BYTES = 2**14
"""Of a list: its version, and a token with the key of the last object."""
_CONTAINERS = frozenset({dict, list})
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
IDENTITY = ("namespace", "name", "uid", "resourceVersion")


Keep = Callable[[Any], Any]


class UnreadableError(Exception):
    """An object that is not read, and why: TooLarge, TooDeep or Malformed."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass(frozen=True)
class Skipped:
    """An object that was not read."""

    reason: str
    message: str
    metadata: dict[str, str]
    """namespace, name, uid and resourceVersion, as far as they are known."""


@dataclass(frozen=True)
class Listed:
    """One chunk of a list."""

    items: list[Any]
    skipped: list[Skipped]
    rest: dict[str, Any]
    """Everything except the items: kind, apiVersion, metadata."""

    @property
    def version(self) -> str:
        """The list's resourceVersion; empty if it has none."""
        return str((self.rest.get("metadata") or {}).get("resourceVersion") or "")


def depth(raw: bytes) -> int:
    """Deepest nesting of a JSON text, without recursion."""
    brackets = _STRING.sub(b"", raw).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0)


def is_too_deep(value: Any) -> bool:
    """Whether a value that JSON was parsed to is nested deeper than `MAX_DEPTH`: an eighth of the time of `depth`."""
    level = [value]
    for _ in range(MAX_DEPTH - 1):
        level = [inner for inner in _in_containers(level) if inner and type(inner) in _CONTAINERS]
        if not level:
            return False
    return any(type(inner) in _CONTAINERS for inner in _in_containers(level))


def _in_containers(level: list[Any]) -> Iterator[Any]:
    return chain.from_iterable(node.values() if type(node) is dict else node for node in level)


def decode(raw: bytes, limit: int = MAX_BYTES) -> Any:
    """Parse one object of at most `limit` bytes.

    Raises:
        UnreadableError
    """
    try:
        value = json.loads(raw) if len(raw) <= limit else None
    except RecursionError:
        value = None
    except ValueError as error:
        raise UnreadableError("Malformed", f"it is not JSON: {type(error).__name__}") from None
    check(raw, value, limit)
    return value


def check(raw: bytes, value: Any, limit: int = MAX_BYTES) -> None:
    """Raise UnreadableError unless size and depth are within the limits; the value is None if it cannot be parsed."""
    if len(raw) > limit:
        raise UnreadableError("TooLarge", f"it has more than the {MAX_BYTES} bytes of JSON that are read")
    if isinstance(value, (dict, list)) and not is_too_deep(value):
        return
    if (levels := depth(raw)) > MAX_DEPTH:
        raise UnreadableError("TooDeep", f"it is nested {levels} levels deep, at most {MAX_DEPTH} are read")


def continuation(raw: bytes) -> str:
    """The token of the next page of a list, empty for the last page; found without parsing the items.

    Types that are compiled into the API server have their metadata before the items, all others after them.

    Raises:
        UnreadableError: the list itself is not a JSON object.
    """
    with suppress(ValueError):
        if head := _HEAD.match(raw):
            text = raw[head.end() : head.end() + _METADATA_BYTES].decode(errors="replace")
            return _token(_DECODER.raw_decode(text)[0])
        if tail := _TAIL.search(raw, max(0, len(raw) - _METADATA_BYTES)):
            return _token(json.loads(tail[1]))
    return _token(decode_list(raw, lambda item: None).rest.get("metadata"))


def _token(metadata: Any) -> str:
    return str((metadata or {}).get("continue") or "")


def decode_list(raw: bytes, keep: Keep = lambda item: item) -> Listed:
    """Parse a list of objects; `keep` reduces each object before the next one is parsed.

    Raises:
        UnreadableError: the list itself is not a JSON object.
    """
    try:
        return _decode_list(raw.decode(), keep)
    except (ValueError, IndexError, RecursionError) as error:
        raise UnreadableError("Malformed", f"the list is not JSON: {type(error).__name__}") from None


async def decode_list_aside(raw: bytes, keep: Keep) -> Listed:
    """The same, but a long list is parsed in a thread, so that the event loop continues."""
    return await asyncio.to_thread(decode_list, raw, keep) if len(raw) > LONG else decode_list(raw, keep)


def _decode_list(text: str, keep: Keep) -> Listed:
    listed = Listed([], [], {})
    position = _after(text, 0, "{")
    while text[position] != "}":
        key, position = _DECODER.raw_decode(text, position)
        position = _after(text, position, ":")
        if key == "items" and text[position] == "[":
            position = _read_items(text, position, keep, listed)
        else:
            listed.rest[key], position = _DECODER.raw_decode(text, position)
        position = _after_comma(text, position)
    return listed


def _read_items(text: str, position: int, keep: Keep, listed: Listed) -> int:
    """Parse an array of objects into `listed`; returns the position after it."""
    position = _after(text, position, "[")
    while text[position] != "]":
        start, item = position, None
        try:
            item, position = _DECODER.raw_decode(text, start)
        except RecursionError:
            position = _end_of_value(text, start)
        raw = text[start:position].encode()
        try:
            check(raw, item)
            listed.items.append(shaped(keep, item))
        except UnreadableError as error:
            listed.skipped.append(Skipped(error.reason, error.message, identity(raw)))
        position = _after_comma(text, position)
    return position + 1


def shaped(keep: Callable[[Any], Any], item: Any) -> Any:
    """`keep(item)`; an object without the common shape of objects is also unreadable."""
    try:
        return keep(item)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UnreadableError("Malformed", f"it has not the shape of an object: {type(error).__name__}") from None


def _after(text: str, position: int, sign: str) -> int:
    """The position after `sign`, which must come next."""
    position = _after_space(text, position)
    if text[position] != sign:
        raise ValueError(f"{sign} expected at {position}")
    return _after_space(text, position + 1)


def _after_space(text: str, position: int) -> int:
    spaces = _SPACE.match(text, position)
    return spaces.end() if spaces else position


def _after_comma(text: str, position: int) -> int:
    position = _after_space(text, position)
    return _after(text, position, ",") if text[position] == "," else position


def _end_of_value(text: str, start: int) -> int:
    """Position of the end of the object or array that begins at `start`."""
    level = 0
    for token in _TOKEN.finditer(text, start):
        sign = token[0][0]
        if sign != '"':
            level += 1 if sign in "[{" else -1
            if level == 0:
                return token.end()
    raise ValueError("an object without an end")


def identity(raw: bytes) -> dict[str, str]:
    """metadata.namespace, name, uid and resourceVersion of an object, or of a watch event's object, without parsing it.

    User-controlled content cannot imitate them: levels are counted and strings are skipped whole. `raw` may be
    truncated.
    """
    text = raw.decode(errors="replace")
    values: dict[str, str] = {}
    for path, value in _strings(text):
        path = path[1:] if path[:1] == ("object",) else path
        if len(path) == 2 and path[0] == "metadata" and path[1] in IDENTITY:
            values.setdefault(path[1], value)
            if len(values) == len(IDENTITY):
                break
    return values


def _strings(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Path and value of the strings in objects, down to four levels."""
    open_: list[str] = []
    keys: list[str] = []
    last, key = "", ""
    for token in islice(_PART.finditer(text), IDENTITY_TOKENS):
        part = token[0]
        if part == '"':
            return  # the text was cut within a string
        if part in "{[":
            open_.append(part)
            keys.append(key)
            key = ""
        elif part in "}]":
            if not open_:
                return
            open_.pop()
            keys.pop()
            key = ""
        elif part == ":":
            key = last
        elif part == ",":
            key = ""
        else:
            last = part[1:-1]
            if key and len(open_) <= 4 and "[" not in open_:
                yield (*keys[1:], key), last
