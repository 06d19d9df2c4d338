"""The pages of a list: the next one is on its way while the last one is read.

Pages are large, so that thousands of objects take few requests; where somebody's objects are so large that a page does
not fit, the rest of the list comes in smaller ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from hone_operator.objects.decoding import continuation

MOST = 200
"""Objects of the first page. Two pages are in memory at once."""
MAX_PAGE_BYTES = 2**24
"""Largest page of more than one object."""


class PageTooLongError(Exception):
    """A page has more than `MAX_PAGE_BYTES`; nothing of it was kept."""


Read = Callable[[str, int], Coroutine[Any, Any, bytes]]
"""Reads the page of a token, of at most so many objects; the first page has no token."""


async def pages(read: Read) -> AsyncGenerator[bytes, None]:
    """Every page, raw, in order.

    Args:
        read: raises `PageTooLongError` for a page of several objects that is too long.

    Raises:
        UnreadableError: a page is not a JSON object.
    """
    token, most = "", MOST
    coming = asyncio.create_task(read(token, most))
    try:
        while True:
            try:
                raw = await coming
            except PageTooLongError:
                most = max(most // 5, 1)
                coming = asyncio.create_task(read(token, most))
                continue
            token = continuation(raw)
            if token:
                coming = asyncio.create_task(read(token, most))
            yield raw
            if not token:
                return
    finally:
        coming.cancel()
        coming.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody waits for it any more
