"""One of several operators works: whoever holds the Lease. The others wait, and take over when it is not renewed.

The times are those of client-go. The holder counts from before it asked to renew; a waiting operator from when it saw
that it had; neither compares clocks. A holder that could not renew for `RENEW_SECONDS` must not write any more, and
ends at once: also one that was stopped in between, whose requests were written before. See `Fence`. Only a process that
is stopped within the microseconds between the check and the socket still sends that one request, as with client-go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol

from hone_operator.apiserver.errors import AlreadyExistsError, ClusterError, ConflictError

log = logging.getLogger(__name__)
LEASE_SECONDS = 15
"""How long the others wait after they have last seen the Lease change."""
RENEW_SECONDS = 10.0
"""How long the holder may write after it has last renewed the Lease."""
RETRY_SECONDS = 2.0
EXIT_CODE = 1


def seconds() -> float:
    """Seconds of a clock that also counts while the process is stopped or the machine asleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def end() -> NoReturn:
    """End the process without any further request, also of tasks that would still clean up."""
    log.error("the Lease was not renewed in time: another operator may work now, so this one ends")
    logging.shutdown()
    os._exit(EXIT_CODE)


@dataclass
class Fence:
    """Ends the process before a write that may come after another operator has taken over."""

    now: Callable[[], float] = seconds
    lost: Callable[[], None] = end
    _until: float | None = None

    def renewed(self, asked: float) -> None:
        """The Lease was renewed by a request that was sent at this time, of `now`."""
        self._until = asked + RENEW_SECONDS

    def released(self) -> None:
        """Nothing may be written any more."""
        self._until = -1.0

    def check(self) -> None:
        """Before each write, as late as possible."""
        if self._until is None or self.now() >= self._until:
            self.lost()


class Leases(Protocol):
    """The API server, as far as it concerns Leases."""

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None: ...

    async def create(self, body: dict[str, Any]) -> dict[str, Any]: ...

    async def replace(self, body: dict[str, Any]) -> dict[str, Any]: ...


@dataclass
class Leadership:
    """The part of one operator in the election."""

    leases: Leases
    namespace: str
    name: str
    identity: str
    """Of the pod: a container that starts again in it takes its own Lease at once."""
    fence: Fence = field(default_factory=Fence)
    _seen: tuple[str, str] = ("", "")
    """Holder and time of the last renewal, as last seen."""
    _since: float = 0.0
    """When they were first seen."""

    async def acquire(self) -> None:
        """Return when this operator holds the Lease."""
        log.info("%s waits for the Lease %s/%s", self.identity, self.namespace, self.name)
        while True:
            if await self._try():
                break
            await asyncio.sleep(RETRY_SECONDS)
        log.info("%s holds the Lease", self.identity)

    async def keep(self) -> None:
        """Renew the Lease until cancelled; end the process when that fails for too long."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            if not await self._try():
                self.fence.check()

    async def release(self) -> None:
        """Let another operator take over at once. Nothing may be written by this one afterwards."""
        self.fence.released()
        try:
            with contextlib.suppress(ConflictError):
                return await self._give_back()
            await self._give_back()  # the last renewal, whose answer nobody waited for, came in between
        except ClusterError as error:
            log.warning("the Lease is not released, so the others wait for %d s: %s", LEASE_SECONDS, error)

    async def _give_back(self) -> None:
        lease = await self.leases.get("Lease", self.namespace, self.name)
        if lease and lease["spec"].get("holderIdentity") == self.identity:
            await self.leases.replace({**lease, "spec": {**lease["spec"], "holderIdentity": ""}})

    async def _try(self) -> bool:
        """Take or renew the Lease; whether this operator holds it."""
        asked = self.fence.now()
        try:
            lease = await self.leases.get("Lease", self.namespace, self.name)
            if lease is None:
                await self.leases.create(self._lease({}))
            elif self._may_take(lease["spec"], asked):
                await self.leases.replace({**lease, "spec": self._lease(lease["spec"])["spec"]})
            else:
                return False
        except (ConflictError, AlreadyExistsError):
            return False
        except (TimeoutError, ClusterError, OSError) as error:
            log.warning("the Lease could not be renewed: %s", error)
            return False
        self.fence.renewed(asked)
        return True

    def _may_take(self, spec: dict[str, Any], now: float) -> bool:
        holder = spec.get("holderIdentity") or ""
        seen = (holder, str(spec.get("renewTime")))
        if seen != self._seen:
            self._seen, self._since = seen, now
        return holder in ("", self.identity) or now - self._since > (spec.get("leaseDurationSeconds") or LEASE_SECONDS)

    def _lease(self, before: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        ours = before.get("holderIdentity") == self.identity
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": now,
            "acquireTime": before.get("acquireTime", now) if ours else now,
            "leaseTransitions": before.get("leaseTransitions", 0) + (bool(before) and not ours),
        }
        meta = {"namespace": self.namespace, "name": self.name}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
