"""The next page of a list is asked for before the last one is read."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from hone_operator.apiserver.pages import MOST, PageTooLongError, pages
from hone_operator.objects.decoding import UnreadableError

pytestmark = pytest.mark.pure
PAGE = '{"metadata":{"continue":"%s"},"items":[]}'


class Server:
    """Pages of a list; each token is the number of its page."""

    def __init__(self, count: int) -> None:
        self.count, self.asked, self.answered = count, [], 0

    async def read(self, token: str, most: int) -> bytes:
        number = int(token or 0)
        self.asked.append(number)
        await asyncio.sleep(0)
        self.answered += 1
        return (PAGE % (number + 1 if number + 1 < self.count else "")).encode()


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_all_pages_come_in_order_one_ahead(count):
    server, taken = Server(count), 0
    async for raw in pages(server.read):
        taken += 1
        assert raw == (PAGE % (taken if taken < count else "")).encode()
        await asyncio.sleep(0.01)
        assert server.answered == min(taken + 1, count)
    assert (taken, server.asked) == (count, list(range(count)))


async def test_whoever_stops_leaves_no_request_behind():
    never = asyncio.Event()
    asked = []

    async def read(token: str, most: int) -> bytes:
        asked.append(asyncio.current_task())
        if token:
            await never.wait()
        return (PAGE % "1").encode()

    async with contextlib.aclosing(pages(read)) as raws:
        async for _ in raws:
            await asyncio.sleep(0)
            break
    await asyncio.wait(asked)
    assert [task.cancelled() for task in asked] == [False, True]


async def test_an_error_of_a_page_arrives_after_those_before():
    async def read(token: str, most: int) -> bytes:
        if token:
            raise ConnectionError("cut")
        return (PAGE % "1").encode()

    raws = pages(read)
    assert await anext(raws) == (PAGE % "1").encode()
    with pytest.raises(ConnectionError):
        await anext(raws)


async def test_a_page_that_is_not_json_is_unreadable():
    async def read(token: str, most: int) -> bytes:
        return b"{"

    with pytest.raises(UnreadableError):
        await anext(pages(read))


class Crowd:
    """A list of objects that does not fit into one page; a token is the number of the first object."""

    def __init__(self, count: int, fitting: int) -> None:
        self.count, self.fitting, self.asked = count, fitting, []

    async def read(self, token: str, most: int) -> bytes:
        first = int(token or 0)
        self.asked.append(most)
        if min(most, self.count - first) > self.fitting and most > 1:
            raise PageTooLongError
        end = min(first + most, self.count)
        items = [{"number": number} for number in range(first, end)]
        rest = {"continue": str(end)} if end < self.count else {}
        return json.dumps({"metadata": rest, "items": items}).encode()


@pytest.mark.parametrize("fitting", [MOST, 60, 7, 1, 0])
async def test_pages_that_are_too_long_come_in_smaller_ones_and_nothing_is_left_out(fitting):
    crowd = Crowd(450, fitting)
    numbers = [item["number"] async for raw in pages(crowd.read) for item in json.loads(raw)["items"]]
    assert numbers == list(range(450))
    assert crowd.asked == sorted(crowd.asked, reverse=True), "it does not try large pages again and again"
    assert len(set(crowd.asked)) <= 5
