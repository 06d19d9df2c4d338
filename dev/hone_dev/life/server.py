"""A server over OpenAI's API, asked by a client that sees nothing else of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import requests

from hone_dev.tools.console import HoneDevError

_HUNG = 600
"""Seconds; a guard against hanging, not an expectation."""


@dataclass(frozen=True)
class Server:
    """By the URL of its API, which ends in /v1."""

    url: str

    def models(self) -> list[str]:
        """Names that it answers to."""
        return [model["id"] for model in self._read(requests.get(f"{self.url}/models", timeout=_HUNG))["data"]]

    def answer(self, model: str, question: str) -> str:
        """What it answers in a conversation, always the most probable words."""
        messages = [{"role": "user", "content": question}]
        body = {"model": model, "messages": messages, "max_tokens": 64, "temperature": 0}
        choice = self._post("chat/completions", body)["choices"][0]
        return str(choice["message"]["content"]).strip()

    def chances(self, model: str, prompt: str, tokens: int = 4) -> list[float]:
        """Log-probabilities of the tokens that continue a text."""
        body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 1}
        return list(self._post("completions", body)["choices"][0]["logprobs"]["token_logprobs"])

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._read(requests.post(f"{self.url}/{path}", json=body, timeout=_HUNG))

    def _read(self, answer: requests.Response) -> Any:
        if not answer.ok:
            raise HoneDevError(f"{answer.url} answered {answer.status_code}: {answer.text[:600]}")
        return answer.json()


def restarts(pods: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How often the containers of each pod were started again, by the pod's UID."""
    kinds = ("containerStatuses", "initContainerStatuses")
    return {
        pod["metadata"]["uid"]: sum(c["restartCount"] for kind in kinds for c in pod["status"].get(kind, ()))
        for pod in pods
    }
