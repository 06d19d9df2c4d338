"""Jobs that run as far as the operator sees: a hand sets their pods to Running, and rank 0 reports over TLS."""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from kubeapi import HONE, KubeApi

from hone_api.contract.report import AUDIENCE
from hone_trainer.reporting.live import Progress, to_report

MERGE_PATCH = "application/merge-patch+json"
EVERY_SECONDS = 5.0
TLS_SECRET = "/api/v1/namespaces/hone-system/secrets/hone-operator-tls"
JOB, RANK = "hone.dev/finetunejob", "batch.kubernetes.io/job-completion-index"
Pod = tuple[str, str]
"""(namespace, name)"""


@dataclass
class Posts:
    """The outcome of the reports."""

    accepted: int = 0
    refused: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of each report, from the request to the answer."""


async def empty_tls_secret(api: KubeApi) -> None:
    """Create the Secret that the chart creates and the operator fills."""
    folder, _, name = TLS_SECRET.rpartition("/")
    await api.call("POST", folder, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}})


def now() -> str:
    """The present time as the kubelet writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def running() -> dict[str, Any]:
    """Status of a pod that runs."""
    at = now()
    state = {"name": "trainer", "image": "trainer", "imageID": "", "ready": True, "restartCount": 0}
    return {
        "phase": "Running",
        "startTime": at,
        "conditions": [{"type": t, "status": "True", "lastTransitionTime": at} for t in ("PodScheduled", "Ready")],
        "containerStatuses": [state | {"state": {"running": {"startedAt": at}}}],
    }


def unschedulable() -> dict[str, Any]:
    """Status of a pod for which the scheduler finds no node."""
    message = "0/25 nodes are available: 25 Insufficient cpu. preemption: 0/25 nodes are available."
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"conditions": [scheduled | {"lastTransitionTime": now()}]}


async def set_pods(api: KubeApi, namespaces: list[str], active: set[str]) -> dict[str, Pod]:
    """Play scheduler and kubelet: pods of `active` jobs run, all others find no node. Returns rank 0 of each active
    job."""
    first: dict[str, Pod] = {}
    changes: list[tuple[str, Any]] = []
    for namespace in namespaces:
        path = f"/api/v1/namespaces/{namespace}/pods"
        async for pod in api.each(f"{path}?labelSelector=hone.dev/component%3Dtraining"):
            labels, name = pod["metadata"]["labels"], pod["metadata"]["name"]
            runs = labels[JOB] in active
            changes.append((f"{path}/{name}/status", running() if runs else unschedulable()))
            if runs and labels[RANK] == "0":
                first[labels[JOB]] = (namespace, name)
    await api.all_of(lambda each: api.call("PATCH", each[0], {"status": each[1]}, MERGE_PATCH), changes)
    return first


async def _token(api: KubeApi, pod: Pod) -> str:
    """A token as the kubelet projects it, bound to the pod."""
    namespace, name = pod
    uid = (await api.call("GET", f"/api/v1/namespaces/{namespace}/pods/{name}"))["metadata"]["uid"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    spec = {"audiences": [AUDIENCE], "expirationSeconds": 7200, "boundObjectRef": bound}
    answer = await api.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token", {"spec": spec})
    return str(answer["status"]["token"])


class Reporters:
    """One process for each job that runs, as far as the operator sees: each has its own connection, and posts every
    5 s until it is asked to stop."""

    def __init__(self, port: int):
        self.port, self.posts = port, Posts()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, api: KubeApi, pods: dict[str, Pod]) -> None:
        """Get a token for each pod, and begin."""
        ca = base64.b64decode((await api.call("GET", TLS_SECRET))["data"]["ca.crt"]).decode()
        context = ssl.create_default_context(cadata=ca)
        for number, (job, pod) in enumerate(pods.items()):
            url = f"https://localhost:{self.port}{HONE}/namespaces/{pod[0]}/finetunejobs/{job}/status"
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(local_addr=(_address(number), 0)),
                headers={"Authorization": f"Bearer {await _token(api, pod)}"},
                trust_env=False,
            )
            self._tasks.append(asyncio.create_task(self._report(context, url, session)))

    async def stop(self) -> None:
        """End all; a report that is on its way is not counted."""
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if ended is not None and not isinstance(ended, asyncio.CancelledError):
                raise ended

    async def _report(self, context: ssl.SSLContext, url: str, session: aiohttp.ClientSession) -> None:
        await asyncio.sleep(random.uniform(0, EVERY_SECONDS))
        step, posts = 0, self.posts
        async with session:
            while True:
                step += 1
                began = time.monotonic()
                try:
                    async with session.post(url, data=_body(step), ssl=context) as answer:
                        if answer.status == 200:
                            posts.accepted += 1
                        else:
                            posts.refused.append(f"{answer.status} {(await answer.text())[:100]}")
                except (aiohttp.ClientError, TimeoutError) as error:
                    posts.refused.append(type(error).__name__)
                posts.seconds.append(time.monotonic() - began)
                await asyncio.sleep(EVERY_SECONDS)


def _address(number: int) -> str:
    """One of loopback for each pod: the progress port limits what one address may open."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


def _body(step: int) -> str:
    """What the trainer would send at this step."""
    progress = Progress(
        stage="Training",
        step=step,
        total_steps=100_000,
        epoch=step / 10_000,
        loss=2 + 1 / step,
        learning_rate=1e-4,
        grad_norm=0.5,
        tokens_per_second=9000.0,
        eta_seconds=500_000 - 5 * step,
    )
    return to_report(progress).model_dump_json(by_alias=True, exclude_none=True)
