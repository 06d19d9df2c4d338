"""Probes: alive while keys are worked off; ready once nothing was left to do."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from hone_operator.process.health import STUCK_SECONDS, Health

pytestmark = pytest.mark.pure


async def answer(health: Health, path: str) -> tuple[int, str]:
    async with TestClient(TestServer(health.application())) as client:
        response = await client.get(path)
        return response.status, await response.text()


async def test_alive_while_keys_are_worked_off():
    assert await answer(Health(lambda: STUCK_SECONDS - 1), "/healthz") == (200, "ok")


async def test_not_alive_when_reconciling_is_stuck():
    status, text = await answer(Health(lambda: STUCK_SECONDS + 1), "/healthz")
    assert status == 503
    assert "stuck" in text


async def test_ready_once_caught_up():
    caught_up = []
    health = Health(lambda: 0.0, ready=lambda: bool(caught_up))
    assert (await answer(health, "/readyz"))[0] == 503
    caught_up.append(True)
    assert await answer(health, "/readyz") == (200, "ok")
