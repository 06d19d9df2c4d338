"""Hostile callers of the progress port, and the server that they call, in a process of its own.

The server runs as the operator runs it, over TLS on loopback; only the API server's TokenReview is played. Each way to
be hostile opens as many connections as asked for, while an honest pod reports twice a second from the same address.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from hone_api.contract.report import AUDIENCE
from hone_operator.progress.auth import POD_NAME, POD_UID, Authenticator
from hone_operator.progress.refusals import RefusalCounter
from hone_operator.progress.server import ProgressServer
from hone_operator.progress.store import ProgressStore
from hone_operator.progress.tls import renew, server_context

MAX_REVIEWS = 60
"""Budget for forged tokens."""
PATH = "/apis/hone.dev/v1alpha1/namespaces/ml/finetunejobs/a/status"
REPORT = json.dumps({"trainerStatus": {}, "hone": {"stage": "Training", "step": 1}}).encode()


EXPIRES = time.time() + 3600


def token(signature: str, uid: str = "pod-uid") -> str:
    """A token that claims to be of pod a-1-0; the played API server accepts only the signature `honest`."""
    bound = {"namespace": "ml", "pod": {"name": "a-1-0", "uid": uid}}
    claims = {"aud": [AUDIENCE], "exp": EXPIRES, "kubernetes.io": bound}
    return f"h.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.{signature}"


class Cluster:
    """One job with one pod; counts TokenReviews. Plays `Directory` and `ReviewsTokens`."""

    def __init__(self) -> None:
        self.reviews = 0
        owned = {"controller": True}
        labels = {"hone.dev/finetunejob": "a", "hone.dev/attempt": "1"}
        job = {"metadata": {"namespace": "ml", "name": "a", "uid": "job-uid"}, "status": {}}
        batch = {"namespace": "ml", "name": "a-1", "uid": "batch-uid"}
        owner = {**owned, "apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "name": "a", "uid": "job-uid"}
        pod_owner = {**owned, "apiVersion": "batch/v1", "kind": "Job", "name": "a-1", "uid": "batch-uid"}
        pod = {"namespace": "ml", "name": "a-1-0", "uid": "pod-uid", "labels": labels, "ownerReferences": [pod_owner]}
        self.objects = {
            "FineTuneJob": {"kind": "FineTuneJob", "apiVersion": "hone.dev/v1alpha1", **job},
            "Job": {"kind": "Job", "metadata": {**batch, "ownerReferences": [owner]}},
            "Pod": {"kind": "Pod", "metadata": pod},
        }

    def cached(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        return self.objects[kind]

    async def read(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        return self.objects[kind]

    def is_pod(self, namespace: str, name: str, uid: str) -> bool:
        return uid == "pod-uid"

    async def review_token(self, token: str, audience: str) -> Mapping[str, Any]:
        self.reviews += 1
        await asyncio.sleep(0.005)
        if not token.endswith(".honest"):
            return {"authenticated": False}
        extra = {POD_NAME: ["a-1-0"], POD_UID: ["pod-uid"]}
        user = {"username": "system:serviceaccount:ml:default", "extra": extra}
        return {"authenticated": True, "audiences": [audience], "user": user}


async def serve() -> None:
    """Until standard input ends; answers each line with what was counted."""
    cluster, certificates = Cluster(), renew(None, ["localhost"], datetime.now(UTC))
    authenticator = Authenticator(cluster, is_pod=cluster.is_pod)
    server = ProgressServer(authenticator, cluster, ProgressStore(lambda key: None, interval=60), RefusalCounter())
    runner = await server.start("127.0.0.1", 0, server_context(certificates))
    print(json.dumps({"port": runner.addresses[0][1], "ca": certificates.ca_pem}), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        told = {"open": len(server.connections), "reviews": cluster.reviews, "refused": server.refusals.total}
        print(json.dumps(told), flush=True)
    await runner.cleanup()


@dataclass
class Server:
    """The progress server's process."""

    process: subprocess.Popen[str]
    port: int
    tls: ssl.SSLContext

    def rss(self) -> float:
        """Resident memory in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024

    def counted(self) -> dict[str, Any]:
        """Open connections, TokenReviews and refusals so far."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        counted: dict[str, Any] = json.loads(self.process.stdout.readline())
        return counted


@contextmanager
def running(log: IO[str] | None = None) -> Iterator[Server]:
    """The server, for the block; its log goes to `log` or to ours."""
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        said = json.loads(process.stdout.readline())
        yield Server(process, said["port"], ssl.create_default_context(cadata=said["ca"]))
        process.stdin.close()


Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def dial(server: Server, tls: bool = True) -> Wire:
    """A connection to the progress port."""
    name = "localhost" if tls else None
    return await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=server.tls if tls else None, server_hostname=name, limit=2**12
    )


def head(bearer: str, length: int) -> bytes:
    """A whole head of a request."""
    text = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\nContent-Length: {length}\r\n\r\n"
    )
    return text.encode()


async def no_handshake(server: Server, _: int) -> Wire:
    """A TCP connection that never says anything."""
    return await dial(server, tls=False)


async def idle(server: Server, _: int) -> Wire:
    """A TLS connection that never says anything."""
    return await dial(server)


async def half_request(server: Server, _: int) -> Wire:
    """Half a head."""
    wire = await dial(server)
    wire[1].write(head("x" * 4000, 10)[:-2])
    return wire


async def slow_body(server: Server, number: int) -> Wire:
    """A whole head with a made-up token, and a body that never comes."""
    wire = await dial(server)
    wire[1].write(head(token(f"forged{number}"), 60_000))
    return wire


async def forged_token(server: Server, number: int) -> Wire:
    """A whole report in the name of the honest pod."""
    wire = await dial(server)
    wire[1].write(head(token(f"forged{number}"), len(REPORT)) + REPORT)
    return wire


async def unknown_pod(server: Server, number: int) -> Wire:
    """A whole report in the name of a pod that does not exist."""
    wire = await dial(server)
    wire[1].write(head(token("forged", uid=f"pod-{number}"), len(REPORT)) + REPORT)
    return wire


async def long_header(server: Server, _: int) -> Wire:
    """A header of 64 KiB that begins with a token."""
    wire = await dial(server)
    wire[1].write(head("SECRET" * 11_000, 10))
    return wire


Attack = Callable[[Server, int], Awaitable[Wire]]


async def report(server: Server) -> int:
    """An honest pod's report; the status of the answer."""
    reader, writer = await dial(server)
    writer.write(head(token("honest"), len(REPORT)) + REPORT)
    status = int((await reader.readline()).split()[1])
    writer.transport.abort()
    return status


@asynccontextmanager
async def besieged(server: Server, attack: Attack, connections: int) -> AsyncIterator[None]:
    """With so many hostile connections open, 32 opened at a time, and an honest pod that reports throughout."""
    wires: list[Wire] = []
    numbers = iter(range(connections))

    async def open_some() -> None:
        for number in numbers:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(10):
                    wires.append(await attack(server, number))

    async def keep_reporting() -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError, IndexError):
                async with asyncio.timeout(5):
                    await report(server)
            await asyncio.sleep(0.5)

    reporting = asyncio.create_task(keep_reporting())
    try:
        await asyncio.gather(*(open_some() for _ in range(32)))
        await asyncio.sleep(1)
        yield
    finally:
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)
        for _, writer in wires:
            writer.transport.abort()


if __name__ == "__main__":
    asyncio.run(serve())
