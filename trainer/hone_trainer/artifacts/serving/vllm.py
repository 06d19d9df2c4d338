"""vLLM's adapters over HTTP, as of 0.31 (vllm/entrypoints/serve/lora)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import requests

from hone_trainer.artifacts.serving.guard import BEGIN, END, SWAP_HEADER, TOKEN_HEADER

_ASK_SECONDS, _LOAD_SECONDS = 10, 600


class NotTakenError(Exception):
    """vLLM answered that it does not do this, and why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"vLLM answers {status}: {message}")
        self.refused = status < 500
        """It is the adapter that does not suit this server, not the server that fails."""


@dataclass(frozen=True)
class Vllm:
    """One server."""

    url: str
    token: str
    api_key: str | None = None

    def loaded(self) -> dict[str, str]:
        """Folder of each adapter by the name that clients ask for.

        Raises:
            requests.RequestException: it does not answer as vLLM does.
        """
        answer = requests.get(f"{self.url}/v1/models", headers=self._headers(), timeout=_ASK_SECONDS)
        answer.raise_for_status()
        return {model["id"]: model["root"] for model in answer.json()["data"] if model.get("parent")}

    def load(self, name: str, folder: str, swap: Mapping[str, str] | None = None) -> None:
        """Load the adapter of a folder under a name that is free.

        Raises:
            NotTakenError: vLLM does not take it.
            requests.RequestException: it does not answer.
        """
        body: dict[str, object] = {"lora_name": name, "lora_path": folder}
        if has_fused_experts(Path(folder)):
            body["is_3d_lora_weight"] = True
        self._post("load_lora_adapter", body, _LOAD_SECONDS, swap or {})

    def unload(self, name: str, swap: Mapping[str, str] | None = None) -> None:
        """Forget a name; requests in progress end as they began. A name that is not loaded is not an error.

        Raises:
            NotTakenError, requests.RequestException
        """
        self._post("unload_lora_adapter", {"lora_name": name}, _ASK_SECONDS, swap or {}, gone=True)

    def replace(self, name: str, folder: str, before: str, may_return: Callable[[], bool]) -> None:
        """Load another folder under a name, while requests wait.

        Args:
            before: folder that the name has.
            may_return: asked if vLLM refuses the new one: whether `before` is loaded again. If not, the name is free.

        Raises:
            NotTakenError: vLLM does not take the new one.
            requests.RequestException
        """
        try:
            self.unload(name, {SWAP_HEADER: BEGIN})
            self.load(name, folder)
        except NotTakenError:
            if may_return():
                self.load(name, before)
            raise
        finally:
            self._let_requests_go_on()

    def _let_requests_go_on(self) -> None:
        headers = self._headers() | {SWAP_HEADER: END}
        requests.get(f"{self.url}/v1/models", headers=headers, timeout=_ASK_SECONDS)

    def _post(
        self, path: str, body: Mapping[str, object], seconds: float, more: Mapping[str, str], *, gone: bool = False
    ) -> None:
        answer = requests.post(f"{self.url}/v1/{path}", json=body, headers=self._headers() | {**more}, timeout=seconds)
        if answer.ok or (gone and answer.status_code == 404):
            return
        raise NotTakenError(answer.status_code, _message(answer))

    def _headers(self) -> dict[str, str]:
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {TOKEN_HEADER: self.token} | key


def has_fused_experts(folder: Path) -> bool:
    """Whether an adapter covers experts, which PEFT stores together. vLLM started with --enable-mixed-moe-lora-format
    takes them with a setting for each adapter."""
    try:
        parameters = json.loads((folder / "adapter_config.json").read_bytes()).get("target_parameters")
        return any("experts" in str(name).split(".") for name in parameters or ())
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return False  # whatever is wrong with it, vLLM says it


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
