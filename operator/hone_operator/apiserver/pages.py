"""The pages of a list: the next one is on its way while the last one is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from hone_operator.objects.decoding import continuation


async def pages(read: Callable[[str], Awaitable[bytes]]) -> AsyncGenerator[bytes, None]:
    """Every page, raw, in order.

    Args:
        read: reads the page of a token; the first one has none.

    Raises:
        UnreadableError: a page is not a JSON object.
    """
    coming = asyncio.ensure_future(read(""))
    try:
        while True:
            raw = await coming
            token = continuation(raw)
            if token:
                coming = asyncio.ensure_future(read(token))
            yield raw
            if not token:
                return
    finally:
        coming.cancel()
        coming.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody waits for it any more
