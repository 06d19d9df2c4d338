"""The uids of objects that were deleted last, in a fixed number of bytes.

As strings they would keep much more: each lies in a mebibyte that Python gives back only as a whole. After the deletion
of 2,000 jobs with Jobs and pods, 4,096 uids kept 8 MiB.
"""

from array import array


class Tombstones:
    """Remembers at least the last `count` uids, and at most twice as many.

    By a hash of 64 bits, with the key of this process: nobody can choose a uid that has the hash of another.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._newer, self._older = self._empty(), self._empty()
        self._in_newer = 0

    def add(self, uid: str) -> None:
        """Remember a uid; the oldest are forgotten."""
        key = _key(uid)
        place = _place(self._newer, key)
        if self._newer[place]:
            return
        if self._in_newer == self._count:
            self._newer, self._older = self._empty(), self._newer
            self._in_newer, place = 0, _place(self._newer, key)
        self._newer[place] = key
        self._in_newer += 1

    def __contains__(self, uid: str) -> bool:
        key = _key(uid)
        return any(table[_place(table, key)] for table in (self._newer, self._older))

    def _empty(self) -> "array[int]":
        return array("q", bytes(8 * 2 * self._count))  # half of the places stay free, so a search is short


def _key(uid: str) -> int:
    return hash(uid) or 1  # 0 is a free place


def _place(table: "array[int]", key: int) -> int:
    """Where the key is, or would be."""
    place = key % len(table)
    while table[place] not in (0, key):
        place = (place + 1) % len(table)
    return place
