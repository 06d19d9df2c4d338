"""A small real model behind an OpenAI-compatible API, on a CPU: for tests, on loopback or in a pod.

One file that needs only aiohttp and transformers, so that it also runs in the trainer image:
python modelserver.py --model FOLDER_OR_NAME [--host 127.0.0.1] [--port 8000]
With API_KEY in its environment it answers only those who send that key.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web


class RequestRefusedError(Exception):
    """A request that a `Model` refuses, with the status of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Model:
    """Answers one request at a time."""

    def __init__(self, name: str, served_as: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.served_as = served_as
        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(name)
        self._model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        self._model.eval()

    def answer(self, messages: list[dict[str, str]], temperature: float, length: int, seed: int) -> dict[str, Any]:
        """A chat completion.

        Raises:
            RequestRefusedError: it does not answer these messages.
        """
        encoded = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        drawn = (
            {"do_sample": True, "temperature": temperature, "top_k": 50} if temperature > 0 else {"do_sample": False}
        )
        self._torch.manual_seed(seed)
        with self._torch.inference_mode():
            out = self._model.generate(
                **encoded, **drawn, max_new_tokens=length, pad_token_id=self._tokenizer.pad_token_id
            )
        shown = encoded["input_ids"].shape[1]
        made = out[0, shown:]
        ends = self._model.generation_config.eos_token_id
        whole = int(made[-1]) in (ends if isinstance(ends, list) else [ends])
        return {
            "object": "chat.completion",
            "model": self.served_as,
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": self._tokenizer.decode(made, skip_special_tokens=True),
                    },
                    "finish_reason": "stop" if whole else "length",
                }
            ],
            "usage": {"prompt_tokens": shown, "completion_tokens": len(made), "total_tokens": shown + len(made)},
        }


MODEL = web.AppKey("model", Model)
LOCK = web.AppKey("lock", asyncio.Lock)
KEY = web.AppKey("key", str)


def application(model: Model, key: str = "") -> web.Application:
    """The API at /v1; with a key only for those who send it."""
    app = web.Application()
    app[MODEL], app[LOCK], app[KEY] = model, asyncio.Lock(), key
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/chat/completions", _complete)
    return app


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "invalid_request_error"}}, status=status)


def _refused(request: web.Request) -> web.Response | None:
    key = request.app[KEY]
    if key and request.headers.get("Authorization") != f"Bearer {key}":
        return _error(401, "Incorrect API key provided")
    return None


async def _models(request: web.Request) -> web.Response:
    model = {"id": request.app[MODEL].served_as, "object": "model", "owned_by": "hone"}
    return _refused(request) or web.json_response({"object": "list", "data": [model]})


async def _complete(request: web.Request) -> web.Response:
    if refused := _refused(request):
        return refused
    body = await request.json()
    model = request.app[MODEL]
    if body.get("model") != model.served_as:
        return _error(404, f"The model `{body.get('model')}` does not exist")
    async with request.app[LOCK]:
        try:
            answer = await asyncio.to_thread(
                model.answer,
                body["messages"],
                float(body.get("temperature", 1.0)),
                int(body.get("max_tokens", 256)),
                int(body.get("seed", 0)),
            )
        except RequestRefusedError as error:
            return _error(error.status, str(error))
    return web.json_response(answer)


@contextmanager
def serve(model: Model, key: str = "") -> Iterator[str]:
    """Serve on a free port of loopback from a thread; yields the base URL."""
    from hone_dev.tools.threaded import served  # in a pod, this file is alone

    with served(application(model, key)) as url:
        yield f"{url}/v1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder, or name on the hub")
    parser.add_argument("--served-as", default="SmolLM2-135M-Instruct", help="name in the API")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    app = application(Model(args.model, args.served_as), os.environ.get("API_KEY", ""))
    web.run_app(app, host=args.host, port=args.port, print=None)


if __name__ == "__main__":
    main()
