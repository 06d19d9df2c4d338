"""Servers that tests and tools run in a thread."""

import asyncio
import socket
import threading
from typing import NoReturn
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from hone_dev.tools import threaded

pytestmark = pytest.mark.pure


def test_the_end_of_the_block_drops_a_request_that_is_open() -> None:
    asked, dropped = threading.Event(), threading.Event()

    async def forever(_: web.Request) -> NoReturn:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            dropped.set()
        raise AssertionError

    app = web.Application()
    app.router.add_get("/", forever)
    with threaded.served(app) as url:
        address = urlsplit(url)
        client = socket.create_connection((address.hostname, address.port))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asked.wait(600)
        assert not dropped.is_set()
    assert dropped.is_set()
    with client:
        assert client.recv(1) == b"", "closed without an answer"
