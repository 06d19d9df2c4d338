"""Who may speak to the review's server, and what it refuses."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from hone_cli.reach.guard import digest
from hone_cli.review.folder import Folder
from hone_cli.review.server import MAX_BYTES, application

pytestmark = pytest.mark.trainer

TOKEN = "the-token-of-this-review"
MINE = {"Authorization": f"Bearer {TOKEN}"}
JSON = {**MINE, "Content-Type": "application/json"}


@pytest.fixture
async def client(make_batch) -> AsyncIterator[TestClient[Any, Any]]:
    batch = make_batch(2)
    app = application(Folder(batch.folder, "ann"), digest(TOKEN))
    async with TestClient(TestServer(app, host="127.0.0.1")) as client:
        client.batch = batch
        yield client


def check_headers(answer: Any) -> None:
    """No answer, errors included, may be framed, sniffed, cached or read by another site."""
    policy = answer.headers["Content-Security-Policy"]
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_the_token_opens_it(client):
    answer = await client.post("/api/state", json={}, headers=MINE)
    assert answer.status == 200
    assert (await answer.json())["counts"]["pending"] == 2
    await client.post("/api/decide", json={"id": client.batch.ids[0], "verdict": "Accept"}, headers=MINE)
    assert [(d.verdict, d.reviewer) for d in client.batch.decisions()] == [("Accept", "ann")]
    assert (await (await client.post("/api/undo", json={}, headers=MINE)).json())["id"] == client.batch.ids[0]


async def test_rows_are_listed_by_status_page_by_page(client):
    await client.post("/api/decide", json={"id": client.batch.ids[0], "verdict": "Reject"}, headers=MINE)
    answer = await client.post("/api/list", json={"status": "Rejected"}, headers=MINE)
    check_headers(answer)
    found = await answer.json()
    assert [(entry["id"], entry["status"]) for entry in found["entries"]] == [(client.batch.ids[0], "Rejected")]
    assert (found["offset"], found["total"]) == (0, 1)
    assert found["counts"] == {"Undecided": 1, "Accepted": 0, "Edited": 0, "Rejected": 1}


@pytest.mark.attack("review server")
@pytest.mark.parametrize("body", [{"status": "rejected"}, {"status": 1}, {"offset": -1}, {"offset": 2**40}, [], "x"])
async def test_a_list_that_is_asked_for_in_other_words_is_refused(client, body):
    answer = await client.post("/api/list", json=body, headers=MINE)
    assert answer.status == 400
    check_headers(answer)


async def test_the_page_has_the_security_headers(client):
    answer = await client.get("/")
    assert answer.status == 200
    check_headers(answer)


TOKENS = {
    "none": {},
    "wrong": {"Authorization": "Bearer wrong"},
    "empty": {"Authorization": ""},
    "empty bearer": {"Authorization": "Bearer "},
    "the digest, which the pod shows": {"Authorization": f"Bearer {digest(TOKEN)}"},
    "a part of it": {"Authorization": f"Bearer {TOKEN[:-1]}"},
    "and more": {"Authorization": f"Bearer {TOKEN}x"},
    "upper case": {"Authorization": f"Bearer {TOKEN.upper()}"},
    "as a cookie": {"Cookie": f"token={TOKEN}"},
    "basic": {"Authorization": f"Basic {TOKEN}"},
    "twice": {"Authorization": f"Bearer {TOKEN}, Bearer {TOKEN}"},
    "long": {"Authorization": "Bearer " + "x" * 7000},
    "other letters": {"Authorization": "Bearer \u00e9\u4e2d"},
}


@pytest.mark.attack("review server")
@pytest.mark.parametrize("case", TOKENS)
@pytest.mark.parametrize("path", ["/api/state", "/api/list", "/api/decide", "/api/undo"])
async def test_without_the_token_nothing_is_shown_or_decided(client, path, case):
    answer = await client.post(path, json={"id": client.batch.ids[0], "verdict": "Accept"}, headers=TOKENS[case])
    assert answer.status == 401
    assert "question" not in await answer.text()
    assert client.batch.decisions() == []
    check_headers(answer)


@pytest.mark.attack("review server")
async def test_a_token_in_the_address_opens_nothing(client):
    assert (await client.post(f"/api/undo?token={TOKEN}", json={})).status == 401


@pytest.mark.attack("review server")
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8080",
        "10.0.0.1",
        "0.0.0.0",
        "[::1]:8080",
        "127.1",
        "2130706433",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        " ",
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/state"])
async def test_another_name_than_loopback_is_refused(client, path, host):
    """As a page of another site would reach it, whose name was made to point here."""
    answer = await client.request("GET" if path == "/" else "POST", path, headers={**MINE, "Host": host})
    assert answer.status == 403
    assert "question" not in await answer.text()
    check_headers(answer)


@pytest.mark.attack("review server")
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:1", "https://127.0.0.1", "null", "file://"]
)
async def test_a_page_of_another_origin_decides_nothing(client, origin):
    body = {"id": client.batch.ids[0], "verdict": "Accept"}
    answer = await client.post("/api/decide", json=body, headers={**MINE, "Origin": origin})
    assert answer.status == 403
    assert client.batch.decisions() == []
    check_headers(answer)


async def test_the_page_itself_may_decide(client):
    body = {"id": client.batch.ids[0], "verdict": "Accept"}
    origin = f"http://127.0.0.1:{client.port}"
    assert (await client.post("/api/decide", json=body, headers={**MINE, "Origin": origin})).status == 200


@pytest.mark.attack("review server")
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"])
async def test_a_form_of_another_page_decides_nothing(client, kind):
    """What a browser sends from any site without asking first: it cannot add the token."""
    body = json.dumps({"id": client.batch.ids[0], "verdict": "Accept"})
    assert (await client.post("/api/decide", data=body, headers={"Content-Type": kind})).status == 401
    assert client.batch.decisions() == []


@pytest.mark.attack("review server")
@pytest.mark.parametrize("path", ["/", "/api/state", "/api/decide"])
async def test_another_site_gets_no_leave_to_ask(client, path):
    """The request by which a browser asks whether a page may send the header."""
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await client.options(path, headers={**headers, "Access-Control-Request-Headers": "authorization"})
    assert answer.status in (401, 403, 405)
    check_headers(answer)


def decision(**fields: Any) -> str:
    return json.dumps({"verdict": "Accept", **fields})


DEEP = "[" * 100_000 + "]" * 100_000
BODIES: dict[str, str | bytes] = {
    "empty": "",
    "not JSON": "no json",
    "cut off": '{"id": "ID"',
    "two values": '{"id": "ID", "verdict": "Accept"} {}',
    "a list": "[]",
    "null": "null",
    "a number": "7",
    "nothing in it": "{}",
    "deep": DEEP,
    "deep objects": '{"a":' * 100_000,
    "deep in a row": '{"id": "ID", "verdict": "Edit", "row": {"prompt": ' + DEEP + "}}",
    "an unknown verdict": decision(id="ID", verdict="Maybe"),
    "a verdict that is a list": decision(id="ID", verdict=["Accept"]),
    "no verdict": '{"id": "ID"}',
    "an id that is a number": decision(id=1),
    "an id that is null": decision(id=None),
    "an id that is a list": decision(id=["ID"]),
    "an id of another row": decision(id="0" * 16),
    "an id that is a path": decision(id="../../review.json"),
    "a row that is a number": decision(id="ID", verdict="Edit", row=7),
    "a row that is a list": decision(id="ID", verdict="Edit", row=[["prompt", "x"]]),
    "a row of other fields": decision(id="ID", verdict="Edit", row={"__class__": "x"}),
    "a text that is empty": decision(id="ID", verdict="Edit", row={"prompt": "\u2003 \n"}),
    "half a character": '{"id": "ID", "verdict": "Edit", "row": {"prompt": "\\ud800"}}',
    "not UTF-8": b'{"id": "ID", "verdict": "Edit", "row": {"prompt": "\xff\xfe"}}',
    "UTF-16": decision(id="ID").encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + decision(id="ID").encode(),
    "NUL": b"\x00" * 100,
}


@pytest.mark.attack("review server")
@pytest.mark.parametrize("case", BODIES)
async def test_what_is_not_a_decision_is_refused_without_a_traceback(client, case):
    body = BODIES[case]
    id = client.batch.ids[0]
    body = body.replace(b'"ID"', f'"{id}"'.encode()) if isinstance(body, bytes) else body.replace('"ID"', f'"{id}"')
    answer = await client.post("/api/decide", data=body, headers=JSON)
    assert answer.status in (400, 409)
    assert (await answer.json())["error"]
    assert client.batch.decisions() == []
    check_headers(answer)


@pytest.mark.attack("review server")
@pytest.mark.parametrize(
    "body",
    ['{"skipped": 5}', '{"skipped": "abc"}', '{"skipped": [[]]}', '{"row": []}', '{"row": {}}', '{"row": 1}', DEEP],
    ids=["number", "text", "lists", "row list", "row object", "row number", "deep"],
)
async def test_what_asks_for_no_state_is_refused(client, body):
    answer = await client.post("/api/state", data=body, headers=JSON)
    assert answer.status == 400
    assert "question" not in await answer.text()
    check_headers(answer)


async def test_a_charset_that_nobody_knows_changes_nothing(client):
    body = decision(id=client.batch.ids[0])
    answer = await client.post("/api/decide", data=body, headers={**MINE, "Content-Type": "text/plain; charset=none"})
    assert answer.status == 200


@pytest.mark.attack("review server")
@pytest.mark.parametrize("case", ["plain", "gzip", "spaces"])
async def test_a_request_that_is_too_large_is_refused(client, case):
    body = json.dumps({"id": client.batch.ids[0], "verdict": "Edit", "row": {"prompt": "x" * MAX_BYTES}}).encode()
    headers = dict(JSON)
    if case == "gzip":
        body = gzip.compress(body)
        headers["Content-Encoding"] = "gzip"
    elif case == "spaces":
        body = b" " * (MAX_BYTES + 1)
    answer = await client.post("/api/decide", data=body, headers=headers)
    assert answer.status == 413
    assert client.batch.decisions() == []
    check_headers(answer)


@pytest.mark.attack("review server")
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_what_its_encoding_says_is_refused(client, encoding):
    body = decision(id=client.batch.ids[0])
    answer = await client.post("/api/decide", data=body, headers={**JSON, "Content-Encoding": encoding})
    assert answer.status == 400
    assert client.batch.decisions() == []
    check_headers(answer)


async def raw(client: TestClient[Any, Any], request: bytes) -> bytes:
    """The answer to bytes that no client library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(request)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return answer


PATHS = [
    "/../review.json",
    "/review.json",
    "/page/index.html",
    "/index.html",
    "/%2e%2e/review.json",
    "/..%2freview.json",
    "/%2e%2e%2f%2e%2e%2fetc/passwd",
    "/..%5c..%5creview.json",
    "/%252e%252e/review.json",
    "//etc/passwd",
    "/review.js/../review.json",
    "/review.js%00.json",
    "/api/../review.json",
    "/api%2fstate",
    "//api/state",
    "/API/state",
    "/api/state/",
    "/api/state;/review.js",
    "/api",
    "/.git/config",
]


@pytest.mark.attack("review server")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_else_is_served(client, method, path):
    """Sent as it stands: a client library would tidy the path up first."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    answer = await raw(client, head.encode())
    assert int(answer.split()[1]) in (400, 401, 404, 405)
    assert b"question" not in answer
    assert b"answers" not in answer


def post(*head: bytes, path: bytes = b"/api/state", host: bytes = b"Host: 127.0.0.1", body: bytes = b"") -> bytes:
    return b"\r\n".join([b"POST " + path + b" HTTP/1.1", host, *head, b"Connection: close", b"", body])


BROKEN = {
    "token not UTF-8": post(b"Authorization: Bearer \xff\xfe", b"Content-Length: 2", body=b"{}"),
    "no Host": post(b"Content-Length: 2", host=b"X: y", body=b"{}"),
    "HTTP/1.0": b"POST /api/state HTTP/1.0\r\n\r\n",
    "two Hosts": post(b"Host: evil.example", b"Content-Length: 2", body=b"{}"),
    "absolute": post(b"Content-Length: 2", path=b"http://evil.example/api/state", body=b"{}"),
    "two lengths": post(b"Content-Length: 2", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "negative length": post(b"Content-Length: -1"),
    "long head": post(b"X: " + b"x" * 100_000),
    "proxy": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.attack("review server")
@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_request_reveals_nothing_and_harms_nobody(client, case):
    answer = await raw(client, BROKEN[case])
    assert int(answer.split()[1]) in (400, 401, 403, 404, 405)
    assert b"question" not in answer
    assert b"Traceback" not in answer
    assert (await client.post("/api/state", json={}, headers=MINE)).status == 200


async def test_a_call_has_one_method(client):
    assert (await client.get("/api/state", headers=MINE)).status == 405


async def test_a_fault_of_the_server_has_the_headers_and_reveals_nothing(client, monkeypatch):
    monkeypatch.setattr(Folder, "undo", lambda self: {}["a secret"])
    answer = await client.post("/api/undo", json={}, headers=MINE)
    assert answer.status == 500
    assert "secret" not in await answer.text()
    check_headers(answer)
