"""A load generator's view of the API server: raw JSON over a fixed number of connections, nothing cached."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
import yaml

HONE = "/apis/hone.dev/v1alpha1"


class KubeApi:
    """`async with KubeApi(kubeconfig, connections=20) as api`: get, list and create by path."""

    def __init__(self, kubeconfig: Path, connections: int = 20):
        document = yaml.safe_load(kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self.server = cluster["server"]
        self.context = ssl.create_default_context(cadata=_decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as file:
            file.write(_decode(user["client-certificate-data"]) + b"\n" + _decode(user["client-key-data"]))
            file.flush()
            self.context.load_cert_chain(file.name)
        self.connections = connections

    async def __aenter__(self) -> KubeApi:
        connector = aiohttp.TCPConnector(limit=self.connections, ssl=self.context)
        self.session = aiohttp.ClientSession(self.server, connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """The decoded answer.

        Raises:
            RuntimeError: when the API server refuses, with its words.
        """
        data = None if body is None else json.dumps(body).encode()
        async with self.session.request(method, path, data=data, headers={"Content-Type": content_type}) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]}")
            return json.loads(text)

    async def create_all(self, objects: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Create every (collection path, object), `connections` at a time, in order of the iterable."""
        source = iter(objects)

        async def worker() -> None:
            for path, item in source:
                await self.call("POST", path, item)

        await asyncio.gather(*(worker() for _ in range(self.connections)))

    async def count(self, path: str) -> int:
        """How many objects a collection holds, without reading them."""
        answer = await self.call("GET", f"{path}{'&' if '?' in path else '?'}limit=1")
        return len(answer["items"]) + (answer["metadata"].get("remainingItemCount") or 0)


def writes(audit_log: Path, user: str, after: int = 0) -> Counter[str]:
    """Successful and refused writes of `user` in the API server's audit log, by verb and resource.

    `after` is an offset in bytes (`audit_log.stat().st_size` at the start of the window).
    """
    counts: Counter[str] = Counter()
    with audit_log.open("rb") as file:
        file.seek(after)
        for line in file:
            event = json.loads(line)
            if event["user"]["username"] == user and event["verb"] in {"create", "update", "patch", "delete"}:
                target = event.get("objectRef", {})
                resource = "/".join(filter(None, (target.get("resource"), target.get("subresource"))))
                if resource not in {"selfsubjectaccessreviews", "tokenreviews"}:
                    counts[f"{event['verb']} {resource}"] += 1
    return counts


def _decode(text: str) -> bytes:
    return base64.b64decode(text)
