"""A real progress server on loopback for one job with one pod; the cluster around it is a few dictionaries."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hone_api.contract.report import AUDIENCE, CA_ENV, TOKEN_ENV, URL_ENV, ProgressReport
from hone_operator.progress.auth import POD_NAME, POD_UID, Authenticator
from hone_operator.progress.numbers import Latest
from hone_operator.progress.server import ProgressServer
from hone_operator.progress.store import ProgressStore
from hone_operator.progress.tls import renew, server_context

JOB = "job-uid"


class Reporting:
    """`Directory` and `ReviewsTokens` of one pod, and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pods = folder, 0
        self.status: dict[str, Any] = {}
        """Status of the FineTuneJob."""
        self.reports: list[ProgressReport] = []
        """All that were accepted or dropped as old."""
        self.store = ProgressStore(lambda key: None, interval=60)
        accept = self.store.accept

        def noting(*args: Any) -> bool:
            self.reports.append(args[3])
            return accept(*args)

        self.store.accept = noting
        self.new_pod()

    def new_pod(self) -> None:
        """The pod is replaced, as after a suspension."""
        self.pods += 1
        time.sleep(1.1 if self.pods > 1 else 0)  # times of creation are whole seconds
        self.created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def latest(self) -> Latest | None:
        return self.store.latest(JOB)

    def cached(self, kind: str, namespace: str, name: str) -> Mapping[str, Any]:
        def owned(api: str, owner: str, owner_name: str, uid: str) -> list[dict[str, Any]]:
            reference = {"apiVersion": api, "kind": owner, "name": owner_name, "uid": uid, "controller": True}
            return [{**reference, "blockOwnerDeletion": True}]

        labels = {"hone.dev/finetunejob": "a", "hone.dev/attempt": "1", "hone.dev/component": "training"}
        meta: dict[str, Any] = {"namespace": "ml", "name": name, "labels": labels}
        if kind == "FineTuneJob":
            body = {**meta, "uid": JOB}
            return {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "metadata": body, "status": self.status}
        if kind == "Job":
            body = {**meta, "uid": "batch", "ownerReferences": owned("hone.dev/v1alpha1", "FineTuneJob", "a", JOB)}
            return {"apiVersion": "batch/v1", "kind": kind, "metadata": body}
        body = {**meta, "uid": f"pod-{self.pods}", "creationTimestamp": self.created}
        body["ownerReferences"] = owned("batch/v1", "Job", "a-1", "batch")
        return {"apiVersion": "v1", "kind": kind, "metadata": body}

    async def read(self, kind: str, namespace: str, name: str) -> Mapping[str, Any]:
        return self.cached(kind, namespace, name)

    async def review_token(self, token: str, audience: str) -> Mapping[str, Any]:
        extra = {POD_NAME: [f"a-1-{self.pods}"], POD_UID: [f"pod-{self.pods}"]}
        user = {"username": "system:serviceaccount:ml:default", "extra": extra}
        return {"authenticated": True, "audiences": [audience], "user": user}

    def environment(self) -> dict[str, str]:
        """Of the present pod, as the operator sets it."""
        claims = json.dumps({"aud": [AUDIENCE], "exp": time.time() + 3600, "pod": self.pods}).encode()
        token = self.folder / f"token-{self.pods}"
        token.write_text(f"h.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.s")
        path = "/apis/hone.dev/v1alpha1/namespaces/ml/finetunejobs/a/status"
        return {
            URL_ENV: f"https://localhost:{self.port}{path}",
            TOKEN_ENV: str(token),
            CA_ENV: str(self.folder / "ca.crt"),
        }

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        certificates = renew(None, ["localhost"], datetime.now(UTC))
        (self.folder / "ca.crt").write_text(certificates.ca_pem)
        runner = await ProgressServer(Authenticator(self), self, self.store).start(
            "127.0.0.1", 0, server_context(certificates)
        )
        self.port = runner.addresses[0][1]
        ready.set()
        await stop.wait()
        await runner.cleanup()


@contextmanager
def reporting(folder: Path) -> Iterator[Reporting]:
    """The server, in a thread, for the block."""
    made, ready, stop, loop = Reporting(folder), threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(made.serve(ready, stop),))
    thread.start()
    ready.wait()
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
