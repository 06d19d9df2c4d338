"""Pages and servers of ours on loopback, until interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import Callable

import typer
from aiohttp import web

from hone_cli.reach.guard import LOOPBACK, digest
from hone_cli.reach.pod import LISTENING

REVIEW = "Review at"


def serve_page(serves: Callable[[str], web.Application], port: int, words: str) -> None:
    """Serve a page on loopback until Ctrl-C or SIGTERM.

    Args:
        serves: makes the application for the digest of a token.
        words: before the address of the page.
    """
    token = secrets.token_urlsafe(32)
    asyncio.run(_serve(serves(digest(token)), port, token, words))


async def _serve(app: web.Application, port: int, token: str, words: str) -> None:
    stop = interruption()  # before the message about Ctrl-C is printed
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, port).start()
        print_page(runner.addresses[0][1], token, words)
        await stop.wait()
    finally:
        await runner.cleanup()


Serves = Callable[[Callable[[], None]], web.Application]
"""Makes an application that calls its argument at each request."""


def serve_in_pod(serves: Serves, port: int, idle_seconds: float) -> None:
    """Serve on the pod's loopback until SIGTERM, or until there was no request for `idle_seconds`."""
    asyncio.run(_serve_in_pod(serves, port, idle_seconds))


async def _serve_in_pod(serves: Serves, port: int, idle_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    last = loop.time()

    def asked() -> None:
        nonlocal last
        last = loop.time()

    runner = web.AppRunner(serves(asked), access_log=None)
    await runner.setup()
    stopped = asyncio.create_task(interruption().wait())
    try:
        await web.TCPSite(runner, LOOPBACK, port).start()
        typer.echo(LISTENING)
        while (remaining := last + idle_seconds - loop.time()) > 0 and not stopped.done():
            await asyncio.wait([stopped], timeout=remaining)
    finally:
        stopped.cancel()
        await runner.cleanup()


def print_page(port: int, token: str, words: str = REVIEW) -> None:
    """Print the address of the page; its fragment stays in the browser."""
    typer.echo(f"{words} {address(port, token)}\nCtrl-C ends it; what is decided is kept.")


def address(port: int, token: str) -> str:
    """The address of a page."""
    return f"http://{LOOPBACK}:{port}/#token={token}"


def interruption() -> asyncio.Event:
    """An event that Ctrl-C and SIGTERM set from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: KeyboardInterrupt ends asyncio.run
            loop.add_signal_handler(number, stop.set)
    return stop
