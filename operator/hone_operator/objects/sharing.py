"""Equal small values of cached objects exist once.

The parser of JSON makes new strings for each object, and most of them are the same in all objects: names of fields,
reasons, defaults. Without this, thousands of finished jobs need more than twice the memory.
"""

from collections.abc import Hashable, Mapping
from typing import Any

SHORT = 64
"""Longest string that is shared."""
MOST_STRINGS = 8192
"""Then all are forgotten, so that what tenants write cannot accumulate; common ones are soon known again."""
MOST_FIELDS = 32
"""Largest block that is shared."""

_strings: dict[str, str] = {}
_blocks: dict[Hashable, dict[str, Any]] = {}
"""The newest block of each place in a schema."""


def shared(value: str) -> str:
    """The same text, as one object for all callers if it is short."""
    if len(value) > SHORT:
        return value
    if len(_strings) >= MOST_STRINGS:
        _strings.clear()
    return _strings.setdefault(value, value)


def shared_block(place: Hashable, block: dict[str, Any]) -> dict[str, Any]:
    """The newest equal block of this place, or this one. Nobody may change it afterwards.

    Args:
        place: where blocks are often equal, e.g. a part of a schema; their number is fixed.
    """
    same = _blocks.get(place)
    if same is not None and _parts(same) == _parts(block):
        return same
    if len(block) <= MOST_FIELDS and all(map(_is_small, block.values())):
        _blocks[place] = block
    return block


def _parts(block: Mapping[str, Any]) -> list[tuple[str, type, Any]]:
    """With types, because True equals 1."""
    return [(key, type(value), value) for key, value in block.items()]


def _is_small(value: Any) -> bool:
    return len(value) <= SHORT if isinstance(value, str) else not isinstance(value, (Mapping, list))


def compact(value: Any) -> Any:
    """A copy of a value from JSON, with shared strings."""
    if isinstance(value, str):
        return shared(value)
    if isinstance(value, Mapping):
        return {shared(k): compact(v) for k, v in value.items()}
    return [compact(v) for v in value] if isinstance(value, list) else value
