"""The guard before vLLM: who changes adapters, and which requests wait; as vLLM imports it."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.artifacts.serving.follow import GUARD, GUARD_MODULE, install_guard

pytestmark = pytest.mark.pure


class Asgi:
    """What is behind the guard."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope["path"])


@pytest.fixture
def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Asgi, str]:
    """The guard as vLLM imports it, what is behind it, and the follower's token."""
    token = install_guard(tmp_path)
    assert install_guard(tmp_path) == token, "vLLM has read it"
    spec = importlib.util.spec_from_file_location(GUARD_MODULE, tmp_path / GUARD / f"{GUARD_MODULE}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, GUARD_MODULE, module)
    spec.loader.exec_module(module)
    app = Asgi()
    return module.AdapterGuard(app), app, token


async def ask(gate: Any, path: str, method: str = "POST", **headers: str) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    listed = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await gate({"type": "http", "path": path, "method": method, "headers": listed}, None, send)
    return sent


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/adapters/bot"])
def test_nobody_else_changes_adapters(behind, path):
    gate, app, token = behind
    for method in ("POST", "DELETE", "GET"):
        start, _ = asyncio.run(ask(gate, path, method, x_hone_token="guessed"))
        assert start["status"] == 403
    assert app.seen == []
    asyncio.run(ask(gate, path, x_hone_token=token))
    asyncio.run(ask(gate, "/v1/chat/completions"))
    assert app.seen == [path, "/v1/chat/completions"]


def test_requests_wait_while_an_adapter_is_exchanged(behind):
    gate, app, token = behind

    async def exchange() -> None:
        await ask(gate, "/v1/unload_lora_adapter", x_hone_token=token, x_hone_swap="begin")
        question = asyncio.create_task(ask(gate, "/v1/completions"))
        await ask(gate, "/health", "GET")
        await ask(gate, "/v1/load_lora_adapter", x_hone_token=token)
        assert not question.done()
        await ask(gate, "/v1/models", "GET", x_hone_token=token, x_hone_swap="end")
        await question

    asyncio.run(exchange())
    assert app.seen[1:] == ["/health", "/v1/load_lora_adapter", "/v1/models", "/v1/completions"]


def test_requests_do_not_wait_for_a_follower_that_ended(behind):
    gate, app, token = behind
    sys.modules[GUARD_MODULE].LONGEST_SWAP_SECONDS = 0.01

    async def exchange() -> None:
        await ask(gate, "/v1/unload_lora_adapter", x_hone_token=token, x_hone_swap="begin")
        await ask(gate, "/v1/completions")

    asyncio.run(exchange())
    assert app.seen[-1] == "/v1/completions"
