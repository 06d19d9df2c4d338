"""The ledger of a namespace's content is stored and read whatever its size."""

import base64
import gzip
import json
import os
import tracemalloc
import uuid

import pytest

from hone_operator.desired.store.sweep import FULL, MOST_KEYS, PACKED, ledger, recorded, with_room
from hone_operator.objects.decoding import MAX_BYTES

pytestmark = pytest.mark.pure
SINCE = "2026-01-01T00:00:00Z"


def contents(count: int) -> dict[str, str]:
    return {f"run.{uuid.uuid4()}": SINCE if number % 2 else "" for number in range(count)}


def stored_bytes(body: dict[str, object]) -> int:
    """Of the object, with the list of fields that server-side apply adds."""
    owned = {f"f:{key}": {} for part in ("data", "binaryData") for key in body.get(part) or {}}
    return len(json.dumps([body, owned]))


@pytest.mark.parametrize("count", [0, 1, MOST_KEYS, MOST_KEYS + 1, 20_000])
def test_what_was_recorded_is_read_again_and_fits_into_an_object(count: int) -> None:
    known = contents(count)
    body = ledger("team", known, '{"at": "now"}')
    assert recorded(body) == known
    assert body["data"]["stored.json"] == '{"at": "now"}'
    assert stored_bytes(body) < MAX_BYTES
    assert body == ledger("team", dict(reversed(known.items())), '{"at": "now"}'), "no write without a change"


def test_people_read_a_ledger_that_fits() -> None:
    known = contents(MOST_KEYS)
    assert ledger("team", known)["data"] == known


@pytest.mark.parametrize("packed", ["", "????", base64.b64encode(b"text").decode(), "é"])
def test_what_somebody_else_wrote_is_nothing_recorded(packed: str) -> None:
    assert recorded({"data": {"run.a": SINCE}, "binaryData": {PACKED: packed}}) == {"run.a": SINCE}
    assert recorded({"data": None}) == recorded({}) == {}


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize("line", ["ab\n", "ab \n", "a" * 2**24])
def test_a_text_that_unpacks_to_millions_of_lines_takes_little_memory(line: str) -> None:
    packed = base64.b64encode(gzip.compress(line.encode() * (2**24 // len(line)))).decode()
    tracemalloc.start()
    try:
        assert len(recorded({"binaryData": {PACKED: packed}})) <= 1
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


def digests(count: int) -> dict[str, str]:
    return {os.urandom(32).hex(): SINCE if number % 2 else "" for number in range(count)}


@pytest.mark.parametrize("known", [contents(60_000), digests(30_000), contents(MOST_KEYS + 1), {}], ids=len)
def test_a_ledger_without_room_for_all_contents_keeps_the_unused_ones(known: dict[str, str]) -> None:
    kept = with_room(known)
    assert kept.items() <= known.items()
    body = ledger("team", kept, '{"at": "now"}', is_full=len(kept) < len(known))
    assert stored_bytes(body) < MAX_BYTES
    assert recorded(body) == kept
    assert (FULL in body.get("data", {})) == (len(known) >= 30_000)
    if len(kept) < len(known):
        assert {content for content, since in known.items() if since} <= kept.keys() or not any(
            not since for since in kept.values()
        ), "something in use has the place of something unused"
        assert len(kept) > 15_000
    assert with_room({**kept, **known}) == kept, "no write without a change"
