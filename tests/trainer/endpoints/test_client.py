"""An endpoint of a model: what is tried again, what is refused and how it is reported, where the key goes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from support.servers.scripted import Said, Script, scripted
from urllib3.exceptions import HTTPError

from hone_trainer.endpoints import http
from hone_trainer.endpoints.addresses import AllowedNetwork, Resolution
from hone_trainer.endpoints.client import Access, Endpoint, PromptRefusedError
from hone_trainer.errors import ConfigError, SourceError

pytestmark = pytest.mark.trainer
KEY = "sk-0123456789"


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted() as server:
        yield server


def endpoint(script: Script, key: str | None = KEY) -> Endpoint:
    return Endpoint(script.url, Access(AllowedNetwork(allow_private=True), key=key, pause=lambda seconds: None))


def ask(server: Endpoint) -> str:
    return server.chat("m", [{"role": "user", "content": "Hi"}], temperature=0.5, max_tokens=9, seed=1).text


def test_what_may_pass_is_tried_again(script):
    busy = (429, {"error": {"message": "slow down"}})
    script.lines = [busy, (503, {"error": "starting"}), "Hello."]
    assert ask(endpoint(script)) == "Hello."
    assert len(script.asked) == 3


def test_what_does_not_pass_is_reported_after_some_attempts(script):
    script.lines = [(503, {"error": {"message": "overloaded"}})]
    with pytest.raises(SourceError, match="after 6 tries: answers 503: overloaded") as caught:
        ask(endpoint(script))
    assert caught.value.code == "EndpointUnreachable"


OLD_NAME = (400, {"error": {"message": "'max_tokens' is not supported, use 'max_completion_tokens' instead."}})


def test_newer_models_have_another_name_for_the_longest_length(script):
    script.lines = [OLD_NAME, "Hello.", "Hello."]
    server = endpoint(script)
    assert [ask(server), ask(server)] == ["Hello.", "Hello."]
    assert ["max_completion_tokens" in body for body in script.asked] == [False, True, True]


def test_the_other_name_is_learned_by_those_who_ask_at_the_same_time(script):
    """The second request has the old name, too, and is refused after the first one was asked again by the new name."""
    second_came, first_came_again = asyncio.Event(), asyncio.Event()

    async def first(_: str) -> Said:
        await second_came.wait()
        return OLD_NAME

    async def second(_: str) -> Said:
        second_came.set()
        await first_came_again.wait()
        return OLD_NAME

    def again(_: str) -> Said:
        first_came_again.set()
        return "Hello."

    script.lines = [first, second, again, "Hello."]
    server = endpoint(script)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda _: ask(server), range(2))) == ["Hello.", "Hello."]


def test_the_key_goes_to_the_server_and_nowhere_else(script):
    script.lines = [(401, {"error": {"message": f"Incorrect API key provided: {KEY}."}})]
    with pytest.raises(SourceError) as caught:
        ask(endpoint(script))
    assert caught.value.code == "EndpointRefused"
    assert "Incorrect API key provided" in caught.value.message
    assert KEY not in caught.value.message
    assert script.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("body", [lambda words: {"error": words}, lambda words: {"detail": words}])
def test_no_part_of_a_key_is_left_where_long_words_are_cut(script, body):
    """Wherever the cut falls."""
    for before in range(270, 300):
        script.lines = [(401, body("x" * before + KEY + "y" * 300))]
        with pytest.raises(SourceError) as caught:
            ask(endpoint(script))
        assert KEY[:4] not in caught.value.message
        assert len(caught.value.message) < 350


@pytest.mark.parametrize(
    ("status", "of_the_prompt"), [(400, True), (413, True), (422, True), (401, False), (403, False), (404, False)]
)
def test_what_is_refused_of_one_prompt_is_distinguished_from_what_is_refused_of_all(script, status, of_the_prompt):
    script.lines = [(status, {"error": {"message": "No."}})]
    with pytest.raises(SourceError, match=f"answers {status}: No.") as caught:
        ask(endpoint(script))
    assert caught.value.code == "EndpointRefused"
    assert isinstance(caught.value, PromptRefusedError) == of_the_prompt
    assert len(script.asked) == 1


def test_an_answer_that_a_filter_cut_is_none(script):
    cut = {"choices": [{"message": {"content": "Once upon a"}, "finish_reason": "content_filter"}]}
    script.lines = [(200, cut)]
    with pytest.raises(PromptRefusedError, match="content filter"):
        ask(endpoint(script))


def test_a_redirect_is_not_followed(script):
    script.lines = [(307, {"error": "elsewhere"})]
    with pytest.raises(SourceError, match="answers 307"):
        ask(endpoint(script))
    assert len(script.asked) == 1


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"text": "old"}]}])
def test_another_kind_of_answer_is_reported(script, body):
    script.lines = [(200, body)]
    with pytest.raises(SourceError, match="answers something else than a completion"):
        ask(endpoint(script))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://models.example.org/v1", "plain http:// goes to Services of the cluster only; use https://"),
        ("http://localhost:11434/v1", "validate with --allow-private-addresses; in a cluster its administrator sets"),
        ("http://127.0.0.1:8000/v1", "validate with --allow-private-addresses"),
        ("http://[::1]:8000/v1", "validate with --allow-private-addresses"),
        ("http://192.168.1.7:8000/v1", "limits.allowPrivateAddresses of the chart"),
        ("http://169.254.169.254/v1", "use https://"),
        ("https://models.example.org/v1?key=1", "is not the base URL of an API"),
    ],
)
def test_an_impossible_endpoint_is_reported(url, words):
    with pytest.raises(ConfigError, match=words):
        Endpoint(url, Access())


@pytest.mark.parametrize(
    ("address", "words"), [("10.0.0.7", "public; for a server in your own network"), ("169.254.169.254", "public$")]
)
def test_who_may_lift_a_refusal_is_named_where_it_can_be(address: str, words: str) -> None:
    server = Endpoint("https://models.example.org/v1", Access(resolver=lambda *_: Resolution([address])))
    with pytest.raises(SourceError, match=words):
        ask(server)


def test_a_public_name_with_a_private_address_is_refused():
    server = Endpoint("https://models.example.org/v1", Access(resolver=lambda *_: Resolution(["169.254.169.254"])))
    with pytest.raises(SourceError, match="which is not public") as caught:
        ask(server)
    assert caught.value.code == "SourceRefused"


def test_a_server_that_is_silent_for_too_long_is_reported_with_that_time_not_with_the_limit_of_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http._BoundedConnection, "idle", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        pool = http.pool_of("127.0.0.1", port, None, until=time.monotonic() + 3600)
        with pytest.raises(HTTPError, match=r"127\.0\.0\.1: Read timed out: no byte for 0\.1 s"):
            http.send_to(pool, urlsplit(f"http://127.0.0.1:{port}/"), "GET", {})
