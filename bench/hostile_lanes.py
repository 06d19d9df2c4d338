"""The lanes of a hostile tenant: floods of objects, status, children, connections, large and deep specs.

Run by `hostile_tenant.py`, each lane for the whole time and as fast as it gets answers.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import random
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from kubeapi import HONE, KubeApi
from operator_objects import job

from hone_api.contract.report import AUDIENCE

HOSTILE = "mallory"
HONEST = [f"team-{n}" for n in range(10)]


@dataclass
class Attack:
    """What a lane needs, and what came of its attempts: `accepted`, `refused`, or the name of an error."""

    api: KubeApi
    progress_port: int
    victims: list[str]
    """uids of other tenants' objects."""
    pause: float
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)

    async def attempt(self, lane: str, act: Awaitable[Any]) -> bool:
        """Await one attempt and count its outcome."""
        counts = self.outcomes.setdefault(lane, Counter())
        try:
            await act
        except RuntimeError as error:
            code = str(error).split(": ", 1)[1][:3]
            counts["not found" if code == "404" else f"refused {code}"] += 1
            return False
        except (TimeoutError, OSError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            counts[type(error).__name__] += 1
            return False
        finally:
            await asyncio.sleep(self.pause)
        counts["accepted"] += 1
        return True

    def path(self, resource: str, group: str = HONE) -> str:
        """The collection in the hostile tenant's namespace."""
        return f"{group}/namespaces/{HOSTILE}/{resource}"


async def objects(attack: Attack) -> None:
    """Create small FineTuneJobs and Datasets as fast as possible and delete them again."""
    for n in itertools.count():
        jobs, datasets = attack.path("finetunejobs"), attack.path("datasets")
        name = f"flood-{n}"
        await attack.attempt("objects", attack.api.call("POST", jobs, job(name)))
        await attack.attempt("objects", attack.api.call("POST", datasets, _dataset(f"rows-{n}")))
        if n >= 200:
            await attack.attempt("objects", attack.api.call("DELETE", f"{jobs}/flood-{n - 200}"))
            await attack.attempt("objects", attack.api.call("DELETE", f"{datasets}/rows-{n - 200}"))


async def updates(attack: Attack) -> None:
    """Change a label of a Dataset that 200 jobs name: each change concerns all of them."""
    await attack.attempt("updates", attack.api.call("POST", attack.path("datasets"), _dataset("hub")))
    for n in range(200):
        body = job(f"spoke-{n}")
        body["spec"]["datasets"] = [{"name": "hub"}]
        await attack.attempt("updates", attack.api.call("POST", attack.path("finetunejobs"), body))
    for n in itertools.count():
        patch = {"metadata": {"labels": {"turn": str(n)}}}
        call = attack.api.call("PATCH", attack.path("datasets/hub"), patch, "application/merge-patch+json")
        await attack.attempt("updates", call)


async def large(attack: Attack) -> None:
    """Keep 50 objects that are as large as the API server takes, and write their annotations again and again."""
    for n in itertools.count():
        name = f"large-{n % 50}"
        body = job(name)
        body["metadata"]["annotations"] = {f"note-{k}": os.urandom(60_000).hex()[:120_000] for k in range(2)}
        body["metadata"]["labels"] = {f"l{k}": "x" * 63 for k in range(200)}
        if n < 50:
            await attack.attempt("large", attack.api.call("POST", attack.path("finetunejobs"), body))
        else:
            patch = {"metadata": {"annotations": body["metadata"]["annotations"]}}
            path = attack.path(f"finetunejobs/{name}")
            await attack.attempt("large", attack.api.call("PATCH", path, patch, "application/merge-patch+json"))


async def huge(attack: Attack) -> None:
    """Bodies of 1.3 MB in every place that might be free-form."""
    many = [{} for _ in range(430_000)]
    for n in itertools.count():
        body = job(f"huge-{n}")
        where = n % 3
        if where == 0:
            body["spec"]["podOverrides"] = {"a": many}
        elif where == 1:
            body["spec"]["training"] = {"schedule": many}
        else:
            body["metadata"]["annotations"] = {f"a{k}": "x" * 200_000 for k in range(6)}
        await attack.attempt("huge", attack.api.call("POST", attack.path("finetunejobs"), body))
        await asyncio.sleep(0.5)


async def deep(attack: Attack) -> None:
    """Nest 1,100, 3,000 and 9,000 levels."""
    for n in itertools.count():
        depth = (1_100, 3_000, 9_000)[n % 3]
        text = json.dumps(job(f"deep-{n}"))
        nested = '{"a":' * depth + "1" + "}" * depth
        raw = text.replace('"output"', f'"{("podOverrides", "unknown")[n % 2]}": {nested}, "output"', 1)
        await attack.attempt("deep", _raw(attack.api, attack.path("finetunejobs"), raw))


async def status(attack: Attack) -> None:
    """Write status of own objects and of others'."""
    body = {"status": {"phase": "Succeeded", "modelVersionName": "forged"}}
    for n in itertools.count():
        namespace = HOSTILE if n % 2 else random.choice(HONEST)
        path = f"{HONE}/namespaces/{namespace}/finetunejobs/spoke-{n % 200}/status"
        await attack.attempt("status", attack.api.call("PATCH", path, body, "application/merge-patch+json"))


async def children(attack: Attack) -> None:
    """Jobs and pods that name other tenants' objects as their controller."""
    for n in itertools.count():
        owner = {
            "apiVersion": "hone.dev/v1alpha1",
            "kind": "FineTuneJob",
            "name": "victim",
            "uid": random.choice(attack.victims),
            "controller": True,
        }
        labels = {"hone.dev/component": "training", "hone.dev/finetunejob": "victim", "hone.dev/attempt": "1"}
        meta = {"name": f"child-{n}", "labels": labels, "ownerReferences": [owner]}
        container = {"name": "trainer", "image": "example.org/x"}
        pod = {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never", "containers": [container]}}
        body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"suspend": True, "template": pod}}
        await attack.attempt("children", attack.api.call("POST", attack.path("jobs", "/apis/batch/v1"), body))
        plain = {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "name": f"pod-{n}"}, "spec": pod["spec"]}
        await attack.attempt("children", attack.api.call("POST", attack.path("pods", "/api/v1"), plain))


async def connections(attack: Attack) -> None:
    """Open connections to the progress server and leave them: silent, half a request, half a body."""
    held: list[asyncio.StreamWriter] = []
    starts = (b"", b"POST /apis/hone.dev/", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{")

    async def open_one(number: int) -> None:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection("127.0.0.1", attack.progress_port, ssl=_unverified()), 5
        )
        del reader
        writer.write(starts[number % len(starts)])
        await writer.drain()
        held.append(writer)

    for n in itertools.count():
        await attack.attempt("connections", open_one(n))
        while len(held) > 2000:
            held.pop(0).transport.abort()


async def tokens(attack: Attack) -> None:
    """Reports with made-up tokens that look right, and with heads of 100 kB."""
    for n in itertools.count():
        claims = {"aud": [AUDIENCE], "exp": time.time() + 3600, "n": n}
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        token = f"e30.{body}.{'x' * (100_000 if n % 5 == 0 else 40)}"
        head = f"POST {HONE}/namespaces/team-0/finetunejobs/victim/status HTTP/1.1\r\nHost: x\r\n"
        head += f"Authorization: Bearer {token}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        await attack.attempt("tokens", _exchange(attack.progress_port, head.encode()))


LANES: dict[str, Callable[[Attack], Awaitable[None]]] = {
    f.__name__: f for f in (objects, updates, large, huge, deep, status, children, connections, tokens)
}


async def _exchange(port: int, request: bytes) -> None:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_unverified())
        try:
            writer.write(request)
            await writer.drain()
            answer = await reader.readline()
            if answer:
                raise RuntimeError(f"POST: {answer.split()[1].decode()}")
        finally:
            writer.close()


async def _raw(api: KubeApi, path: str, text: str) -> None:
    headers = {"Content-Type": "application/json"}
    async with api.session.post(path, data=text.encode(), headers=headers) as answer:
        if answer.status >= 300:
            raise RuntimeError(f"POST {path}: {answer.status}")


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _dataset(name: str) -> dict[str, Any]:
    spec = {"source": {"uri": "configmap://absent/rows.jsonl"}}
    return {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": name}, "spec": spec}
