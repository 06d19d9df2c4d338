"""Who may speak to the review's server, and what it refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from hone_cli.folder import Folder
from hone_cli.server import MAX_BYTES, application

pytestmark = pytest.mark.trainer

TOKEN = "the-token-of-this-review"
MINE = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def client(make_batch) -> AsyncIterator[TestClient[Any, Any]]:
    batch = make_batch(2)
    async with TestClient(TestServer(application(Folder(batch.folder, "ann"), TOKEN), host="127.0.0.1")) as client:
        client.batch = batch
        yield client


async def test_the_token_opens_it(client):
    answer = await client.post("/api/state", json={}, headers=MINE)
    assert answer.status == 200
    assert (await answer.json())["counts"]["pending"] == 2
    await client.post("/api/decide", json={"id": client.batch.ids[0], "verdict": "Accept"}, headers=MINE)
    assert [(d.verdict, d.reviewer) for d in client.batch.decisions()] == [("Accept", "ann")]
    assert (await (await client.post("/api/undo", json={}, headers=MINE)).json())["id"] == client.batch.ids[0]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Cookie": f"token={TOKEN}"}])
@pytest.mark.parametrize("path", ["/api/state", "/api/decide", "/api/undo"])
async def test_without_the_token_nothing_is_told_or_decided(client, path, headers):
    answer = await client.post(path, json={"id": client.batch.ids[0], "verdict": "Accept"}, headers=headers)
    assert answer.status == 401
    assert "question" not in await answer.text()
    assert client.batch.decisions() == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1"])
async def test_another_name_than_loopback_is_refused(client, host):
    """As a page of another site would reach it, whose name was made to point here."""
    answer = await client.post("/api/state", json={}, headers={**MINE, "Host": host})
    assert answer.status == 403
    assert (await client.get("/", headers={"Host": host})).status == 403


async def test_the_page_runs_no_script_but_its_own_and_is_in_nobodys_frame(client):
    answer = await client.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "body", ["", "no json", "[]", "{}", '{"id": 1, "verdict": "Maybe"}', '{"id": "x", "verdict": "Edit", "row": 7}']
)
async def test_what_is_no_decision_is_refused_and_not_a_traceback(client, body):
    answer = await client.post("/api/decide", data=body, headers={**MINE, "Content-Type": "application/json"})
    assert answer.status in (400, 409)
    assert "error" in await answer.json()
    assert client.batch.decisions() == []


async def test_a_request_that_is_too_large_is_refused(client):
    body = {"id": client.batch.ids[0], "verdict": "Edit", "row": {"prompt": "x" * MAX_BYTES}}
    assert (await client.post("/api/decide", json=body, headers=MINE)).status == 413


async def test_nothing_else_is_served(client):
    for path in ("/../review.json", "/review.json", "/page/index.html"):
        assert (await client.get(path)).status == 404
    assert (await client.get("/api/state", headers=MINE)).status == 405
