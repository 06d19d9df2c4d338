"""An aiohttp application served from a thread of this process, for a block."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

LAST_SECONDS = 0.5
"""What an open request gets when the block ends; aiohttp's default is a minute."""


@contextmanager
def served(application: web.Application, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Yields the URL. Port 0 takes a free one. A request that is open at the end is dropped."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=LAST_SECONDS)

    async def start() -> str:
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        return f"http://{host}:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
