"""`from hone import AsyncClient`: the same calls, each in a thread, since the client of Kubernetes blocks."""

from __future__ import annotations

import inspect
from asyncio import to_thread
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hone_cli.clients.client import HoneClient, HoneRun, HoneVersion, Manifest
from hone_cli.lineage import ModelNode
from hone_cli.runs.planning import ApplyPlan
from hone_cli.runs.watch import SECONDS


class AsyncClient:
    """See `Client`, which is `client.sync`."""

    def __init__(
        self, namespace: str | None = None, context: str | None = None, price_table: str | Path | None = None
    ) -> None:
        self.sync = HoneClient(namespace, context, price_table)

    async def plan(self, *sources: Manifest, spot: bool = False) -> ApplyPlan:
        """See `Client.plan`."""
        return await to_thread(self.sync.plan, *sources, spot=spot)

    async def run(self, *sources: Manifest) -> AsyncRun:
        """See `Client.run`."""
        return AsyncRun(await to_thread(self.sync.run, *sources))

    async def job(self, name: str) -> AsyncRun:
        """See `Client.job`."""
        return AsyncRun(await to_thread(self.sync.job, name))

    async def jobs(self) -> list[AsyncRun]:
        """See `Client.jobs`."""
        return [AsyncRun(run) for run in await to_thread(self.sync.jobs)]

    async def compare(self, *names: str) -> dict[str, dict[str, list[Any]]]:
        """See `Client.compare`."""
        return await to_thread(self.sync.compare, *names)

    async def models(self) -> list[ModelNode]:
        """See `Client.models`."""
        return await to_thread(self.sync.models)

    async def version(self, reference: str) -> AsyncVersion:
        """See `Client.version`."""
        return AsyncVersion(await to_thread(self.sync.version, reference))


class AsyncRun:
    """See `Run`, which is `run.sync`: what was seen at the last look needs no waiting and is read there."""

    def __init__(self, run: HoneRun) -> None:
        self.sync = run

    async def looks(self, seconds: float = SECONDS) -> AsyncIterator[HoneRun]:
        """See `Run.looks`. After a cancellation its thread ends within `seconds`."""
        each = self.sync.looks(seconds)
        while (run := await to_thread(next, each, None)) is not None:
            yield run

    async def wait(self, progress: Callable[[HoneRun], Any] | None = None, *, seconds: float = SECONDS) -> AsyncRun:
        """See `Run.wait`; `progress` may be a coroutine function."""
        async for run in self.looks(seconds):
            if progress is not None and inspect.isawaitable(waited := progress(run)):
                await waited
        return self

    async def result(self) -> AsyncVersion:
        """See `Run.result`."""
        return AsyncVersion(await to_thread(self.sync.result))

    async def logs(self, rank: int = 0, tail: int = 100, *, previous: bool = False) -> str:
        """See `Run.logs`."""
        return await to_thread(self.sync.logs, rank, tail, previous=previous)

    async def suspend(self) -> AsyncRun:
        """See `Run.suspend`."""
        return AsyncRun(await to_thread(self.sync.suspend))

    async def resume(self) -> AsyncRun:
        """See `Run.resume`."""
        return AsyncRun(await to_thread(self.sync.resume))

    async def cancel(self) -> None:
        """See `Run.cancel`."""
        await to_thread(self.sync.cancel)


class AsyncVersion:
    """See `Version`, which is `version.sync`."""

    def __init__(self, version: HoneVersion) -> None:
        self.sync = version

    @asynccontextmanager
    async def chat(self, *, form: str | None = None, gpus: int = 0, memory: str | None = None) -> AsyncIterator[Any]:
        """See `Version.chat`; each question is awaited."""
        opened = self.sync.chat(form=form, gpus=gpus, memory=memory)
        chat = await to_thread(opened.__enter__)
        try:
            yield AsyncChat(chat.ask)
        finally:
            await to_thread(opened.__exit__, None, None, None)

    async def download(self, folder: str | Path, form: str | None = None) -> Path:
        """See `Version.download`."""
        return await to_thread(self.sync.download, folder, form)


class AsyncChat:
    """See `Chat`."""

    def __init__(self, ask: Callable[[str], dict[str, str]]) -> None:
        self._ask = ask

    async def ask(self, question: str) -> dict[str, str]:
        """See `Chat.ask`."""
        return await to_thread(self._ask, question)
