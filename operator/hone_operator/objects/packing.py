"""Bodies of objects that have reached their end, in a sixth of the memory.

Finished jobs and their models stay as records, and are by far the most objects of an old cluster. Their spec and status
are kept as compressed bytes, and unpacked when somebody reads them: 25 us. Whoever looks at all objects reads
their metadata, which is not packed, or an index of the cache, or each body once.

Most of a body is what another one of its kind says as well, so one of them serves as the compression's dictionary.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from hone_api.words.states import ConditionType

ENDS: dict[str, tuple[str, ...]] = {
    "FineTuneJob": (ConditionType.FINISHED,),
    "ModelVersion": (ConditionType.READY, ConditionType.STALLED),
}
"""Kinds that stay as records, and the conditions after which hardly anything changes."""
UNPACKED = 128
"""Bodies that stay unpacked after they were read: a decision reads its own many times."""
FASTEST = 1
"""Level of zlib; with a dictionary, a better one takes ten times as long."""
SAME_DICTIONARY = 256
"""Bodies of a kind that are packed with the same dictionary: another one soon takes the place of an unusual one."""
LARGEST_DICTIONARY = 2**14
"""Bytes; a body keeps its dictionary in memory."""
RAW = -zlib.MAX_WBITS
"""Without the header of zlib, which would be a twentieth."""
FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")


def has_ended(kind: str, body: Mapping[str, Any]) -> bool:
    """Whether an object is one that stays as a record from now on; it can also change again."""
    ends = ENDS.get(kind, ())
    conditions = (body.get("status") or {}).get("conditions") or () if ends else ()
    return any(c.get("type") in ends and c.get("status") == "True" for c in conditions)


class PackedBody(Mapping[str, Any]):
    """A body that reads as the dictionary that was packed, and equals it. Nobody may change what it returns."""

    __slots__ = ("_api_version", "_dictionary", "_kind", "_metadata", "_parts")

    def __init__(self, body: Mapping[str, Any]):
        """
        Args:
            body: with `FIELDS`, as `strip` makes it.
        """
        self._api_version, self._kind, self._metadata = body["apiVersion"], body["kind"], body["metadata"]
        text = json.dumps((body["spec"], body["status"]), separators=(",", ":")).encode()
        self._dictionary = _dictionary(self._kind, text)
        packer = zlib.compressobj(FASTEST, wbits=RAW, zdict=self._dictionary)
        self._parts = packer.compress(text) + packer.flush()

    def __getitem__(self, field: str) -> Any:
        if field == "metadata":
            return self._metadata
        if field == "spec":
            return _unpacked(self._parts, self._dictionary)[0]
        if field == "status":
            return _unpacked(self._parts, self._dictionary)[1]
        if field == "kind":
            return self._kind
        if field == "apiVersion":
            return self._api_version
        raise KeyError(field)

    def __iter__(self) -> Iterator[str]:
        return iter(FIELDS)

    def __len__(self) -> int:
        return len(FIELDS)


_dictionaries: dict[str, tuple[bytes, int]] = {}
"""By kind: the dictionary, and how many more bodies it serves."""


def _dictionary(kind: str, text: bytes) -> bytes:
    """The text of an earlier body of this kind; empty for the first one. This one may be the next."""
    dictionary, left = _dictionaries.get(kind, (b"", 0))
    if left:
        _dictionaries[kind] = dictionary, left - 1
    elif len(text) <= LARGEST_DICTIONARY:
        _dictionaries[kind] = text, SAME_DICTIONARY
    return dictionary


@lru_cache(UNPACKED)
def _unpacked(parts: bytes, dictionary: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Spec and status."""
    spec, status = json.loads(zlib.decompressobj(RAW, dictionary).decompress(parts))
    return spec, status
