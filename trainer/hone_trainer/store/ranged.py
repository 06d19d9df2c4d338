"""A file of a server as a seekable file: read by ranges, each asked for again from the byte at which it broke off.

fsspec, smart_open and pyarrow have such files too, but none of them takes the address to connect to.
"""

from __future__ import annotations

import io
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import urllib3
from urllib3.exceptions import InvalidHeader

from hone_api.words.failures import FailureCode
from hone_trainer.errors import SourceError

TRIES = 6
"""Tries for a request, unless bytes come; their pauses add up to half a minute."""
BUSY = {429, 500, 502, 503, 504}
"""Statuses after which the same request may be answered."""
SLOWEST = 4 * 2**20
"""Bytes a second: what comes more slowly takes time from the limit."""
_LONGEST_PAUSE = 60.0
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")
_FIRST, _MOST = 256 * 2**10, 8 * 2**20
"""Bytes of a request: a file that is read on is asked for in larger ones. One of them is in memory."""


class BrokenOffError(Exception):
    """An answer that another try may complete: the connection broke off, or the server is busy.

    Args:
        after: its Retry-After.
    """

    def __init__(self, why: object, after: str | None = None) -> None:
        super().__init__(str(why)[:300])
        self.after = after


Get = Callable[[int, int, float], Iterator[bytes]]
"""The bytes [begin, end) as they come, within so many seconds; raises BrokenOffError."""


class RangedFile(io.RawIOBase):
    """A file of a server.

    Args:
        what: its name in messages.
        seconds: that the server may take in all, besides what the bytes take at `SLOWEST`.
        end: bytes from here on are not read ahead.
    """

    def __init__(self, what: str, size: int, get: Get, seconds: float, end: int | None = None) -> None:
        self._what, self._size, self._get, self._seconds = what, size, get, seconds
        self._end = size if end is None else min(end, size)
        self._at = self._begin = 0
        self._block = b""
        self._ahead = _FIRST
        self._left = seconds

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        if not self._begin <= self._at < self._begin + len(self._block):
            self._next_block(wanted)
        start = self._at - self._begin
        data = self._block[start : start + wanted]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _next_block(self, wanted: int) -> None:
        goes_on = self._block and self._at == self._begin + len(self._block)
        self._ahead = min(2 * self._ahead, _MOST) if goes_on else _FIRST
        size = min(max(wanted, min(self._ahead, self._end - self._at)), _MOST)
        self._block = b""  # not two of them
        self._begin, self._block = self._at, self._fetched(self._at, min(self._at + size, self._size))

    def _fetched(self, begin: int, end: int) -> bytes:
        got, number = bytearray(), 0
        while len(got) < end - begin:
            before, started, after, why = len(got), time.monotonic(), None, "it ends early"
            try:
                for chunk in self._get(begin + len(got), end, max(1.0, self._left)):
                    got += chunk
                    if len(got) >= end - begin:
                        break  # a server may send more than was asked for, without end
            except BrokenOffError as error:
                after, why = error.after, str(error)
            number = 0 if len(got) > before else number + 1
            pause = pause_after(after, number) if after or number else 0.0
            self._left -= time.monotonic() - started + pause - (len(got) - before) / SLOWEST
            self._left = min(self._left, self._seconds)
            if len(got) < end - begin and (number == TRIES or self._left <= 0):
                raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"{self._what}, at byte {begin + len(got)}: {why}")
            time.sleep(pause)
        return bytes(got[: end - begin])


def pause_after(after: str | None, number: int) -> float:
    """Seconds that the server asks for in Retry-After, else 1, 2, 4 …, each with some jitter."""
    try:
        asked = urllib3.Retry(0).parse_retry_after(after) if after else None
    except (InvalidHeader, ValueError):  # ValueError: more digits than Python reads
        asked = None
    return min(2.0**number * random.uniform(0.8, 1.2) if asked is None else asked, _LONGEST_PAUSE)


def check_range(what: str, headers: Mapping[str, str], begin: int, size: int) -> None:
    """That an answer is the range from `begin` on of a file of this size.

    Raises:
        SourceError: SourceUnreachable.
    """
    match = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    if match is None or int(match[1]) != begin:
        raise SourceError(FailureCode.SOURCE_UNREACHABLE, f"{what}: the server sends other bytes than were asked for")
    if match[3] not in ("*", str(size)):
        raise changed(what)


def changed(what: str) -> SourceError:
    """That a file is another one than when the first byte was read."""
    return SourceError(FailureCode.SOURCE_UNREACHABLE, f"{what} changed while it was read")
