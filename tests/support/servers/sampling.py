"""A server of samples that depend on nothing but the prompt and the adapter: of a run that is repeated, and of one that
is resumed, the samples are the same bit by bit."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MOST = 8
"""Tokens of a sample."""


class Sampling:
    """What the server has been asked for, in turn, and what it does before it answers.

    Attributes:
        asked: name of the adapter and prompt of each request for samples.
        name_of: names an adapter by its weights.
        before: called with both before an answer is made; the request fails with status 500 if it raises.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, list[int]]] = []
        self.before: Callable[[str, list[int]], None] = lambda adapter, prompt: None
        self.name_of: Callable[[bytes], str] = lambda weights: hashlib.sha256(weights).hexdigest()
        self.adapters: dict[str, str] = {}

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/v1/load_lora_adapter":
            weights = Path(body["lora_path"]) / "adapter_model.safetensors"
            self.adapters[body["lora_name"]] = self.name_of(weights.read_bytes())
            return {}
        if path == "/v1/unload_lora_adapter":
            self.adapters.pop(body["lora_name"])
            return {}
        adapter, prompt = self.adapters[body["model"]], body["prompt"]
        self.asked.append((adapter, prompt))
        self.before(adapter, prompt)
        return {"choices": [_choice(f"{adapter} {prompt} {number}") for number in range(body["n"])]}


def _choice(seed: str) -> dict[str, Any]:
    draws = hashlib.sha256(seed.encode()).digest()
    tokens = [20 + draws[place] for place in range(1 + draws[31] % MOST)]
    return {"token_ids": tokens, "logprobs": {"token_logprobs": [-6 - token / 1000 for token in tokens]}}


@contextmanager
def serving() -> Iterator[Sampling]:
    """Serve on loopback until the block ends."""
    sampling = Sampling()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": "base", "max_model_len": 4096}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                self._send(200, sampling.answer(self.path, body))
            except Exception as error:
                self._send(500, {"error": f"{type(error).__name__} {error}"})

        def _send(self, status: int, body: dict[str, Any]) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sampling.url = f"http://127.0.0.1:{server.server_port}"
        yield sampling
        server.shutdown()
