"""Which namespaces have opted in, the RoleBinding that gives the operator rights there, and closed ports.

A namespace opts in by the label hone.dev/enabled=true, or by being in the chart's value `namespaces`, for which the
chart creates the binding. Elsewhere the operator may only read its own kinds, Jobs and Pods, and write the status of
its
own kinds.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import aiohttp

from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import AlreadyExistsError, ClusterError, NamespaceGoneError
from hone_operator.apiserver.reflector import Reflector
from hone_operator.desired.core import names
from hone_operator.desired.core.namespace import NamespaceSetup
from hone_operator.settings import Settings

log = logging.getLogger(__name__)
SELECTOR = "hone.dev/enabled=true"
REFRESH_SECONDS = 60.0
RETRY_SECONDS = 15.0
RIGHTS_WAIT = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between checks whether a new binding has reached the API server's authorizer."""


@dataclass(frozen=True)
class Closed:
    """Why the operator may not work in a namespace."""

    message: str
    check_again_in: float | None = None
    """Seconds until the next check; None: a change of the label triggers it."""


@dataclass
class OptedInNamespaces:
    """The namespaces in which the operator works."""

    cluster: Cluster
    config: Settings
    changed: Callable[[str], None] = lambda namespace: None
    """Called with each namespace that opts in or out."""
    _labelled: set[str] = field(default_factory=set)
    _bound: dict[str, float] = field(default_factory=dict)
    """Namespaces whose RoleBinding was seen, and until when (monotonic seconds) it is not checked again."""
    _leaving: set[asyncio.Task[None]] = field(default_factory=set)
    _turns: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """Locks in use. Namespaces are entered and left one at a time: otherwise a label that is removed and added again
    could leave no RoleBinding."""

    @property
    def _required(self) -> bool:
        return bool(self.config.opt_in.role)

    def enabled(self, namespace: str) -> bool:
        """Whether the operator may work in this namespace."""
        return not self._required or namespace in self.config.opt_in.namespaces or self._is_labelled(namespace)

    async def problem(self, namespace: str) -> Closed | None:
        """Why the operator may not work in a namespace; None: it may, and has its rights there.

        Raises:
            NamespaceGoneError: the namespace is being deleted.
            ClusterError: the API server is overloaded or fails. That says nothing about the namespace.
        """
        async with self._turn(namespace):
            if not self.enabled(namespace):
                return Closed(
                    f"Namespace {namespace} is not enabled for Hone. Somebody who may edit namespaces must run: "
                    f"kubectl label namespace {namespace} {SELECTOR}"
                )
            try:
                await self._enter(namespace)
            except NamespaceGoneError:
                raise
            except ClusterError as error:
                if error.status == 429 or error.status >= 500:
                    raise
                message = f"Namespace {namespace} has opted in, but the operator cannot work there: {error.message}"
                return Closed(message, RETRY_SECONDS)
            return None

    def _turn(self, namespace: str) -> asyncio.Lock:
        return self._turns.setdefault(namespace, asyncio.Lock())

    def _is_labelled(self, namespace: str) -> bool:
        own = namespace == self.config.namespace or namespace.startswith("kube-")
        return namespace in self._labelled and not own

    async def _enter(self, namespace: str) -> None:
        """Create the RoleBinding and the NetworkPolicy of a labelled namespace unless they exist.

        Raises:
            ClusterError: it cannot be created, or another object has its name.
        """
        if not self._required or namespace in self.config.opt_in.namespaces:
            return
        if self._bound.get(namespace, 0.0) > time.monotonic():
            return
        setup = await self._setup(namespace)
        await self._bind(setup)
        await (self._close_ports(setup) if self.config.opt_in.close_ports else self._open_ports(setup))
        self._bound[namespace] = time.monotonic() + REFRESH_SECONDS

    async def _setup(self, namespace: str) -> NamespaceSetup:
        name = self.config.opt_in.role
        role = await self.cluster.get("ClusterRole", None, name)
        if role is None:
            raise ClusterError(404, "NotFound", f"ClusterRole {name} does not exist: install the chart again")
        return NamespaceSetup(namespace, name, role["metadata"]["uid"])

    async def _bind(self, setup: NamespaceSetup) -> None:
        binding = setup.binding(self.config.opt_in.service_account, self.config.namespace)
        existing = await self.cluster.get("RoleBinding", setup.namespace, setup.role)
        if existing is None:
            with contextlib.suppress(AlreadyExistsError):
                existing = await self.cluster.create(binding)
            await self._wait_for_rights(setup.namespace)
            log.info("%s: has the label %s; bound ClusterRole %s", setup.namespace, SELECTOR, setup.role)
        if existing and (existing["roleRef"], existing.get("subjects")) != (binding["roleRef"], binding["subjects"]):
            raise ClusterError(409, "NameTaken", f"RoleBinding {setup.role} binds something else: delete it")

    async def _close_ports(self, setup: NamespaceSetup) -> None:
        """Create the NetworkPolicy for all pods of Hone; one that was changed, or has other settings, is replaced."""
        policy = setup.closed_ports(self.config.metrics_from)
        existing = await self.cluster.get("NetworkPolicy", setup.namespace, setup.role)
        if existing and existing["spec"] != policy["spec"]:
            await self.cluster.delete("NetworkPolicy", existing)
            existing = None
        if existing is None:
            with contextlib.suppress(AlreadyExistsError):
                await self.cluster.create(policy)

    async def _open_ports(self, setup: NamespaceSetup) -> None:
        """Remove the NetworkPolicy that an operator with other settings created."""
        existing = await self.cluster.get("NetworkPolicy", setup.namespace, setup.role)
        if existing and _is_managed(existing):
            await self.cluster.delete("NetworkPolicy", existing)

    async def _wait_for_rights(self, namespace: str) -> None:
        """Wait until the authorizer has seen a new binding, which it learns by its own watch."""
        attributes = {"namespace": namespace, "verb": "create", "group": "batch", "resource": "jobs"}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "metadata": {},
            "spec": {"resourceAttributes": attributes},
        }
        for seconds in RIGHTS_WAIT:
            if (await self.cluster.create(review))["status"].get("allowed"):
                return
            await asyncio.sleep(seconds)

    async def fill(self) -> str:
        """Read which namespaces have the label, and report changes; gives the resourceVersion of the list.

        Raises:
            ClusterError: our rights do not suffice.
        """
        if not self._required:
            return ""
        versions: list[str] = []
        scan = self.cluster.scan("Namespace", None, SELECTOR, metadata_only=True, listed_at=versions.append)
        now = {body["metadata"]["name"] async for body in scan}
        for namespace in sorted(now ^ self._labelled):
            await self._set(namespace, namespace in now)
        return versions[0]

    async def _set(self, namespace: str, labelled: bool) -> None:
        if labelled == (namespace in self._labelled):
            return
        if labelled:
            self._labelled.add(namespace)
        else:
            self._labelled.discard(namespace)
            await self._leave(namespace)
        self.changed(namespace)

    async def _leave(self, namespace: str) -> None:
        """Give up the rights in a namespace; pods that continue keep their ports closed.

        The admission policy refuses writes there from that moment on.
        """
        async with self._turn(namespace):
            self._bound.pop(namespace, None)
            try:
                body = await self.cluster.get("RoleBinding", namespace, self.config.opt_in.role)
                if body and _is_managed(body):
                    await self.cluster.delete("RoleBinding", body)
            except (ClusterError, aiohttp.ClientError, TimeoutError) as error:
                log.info("%s: the RoleBinding is not removed: %s", namespace, error)

    async def watch(self) -> None:
        """Follow the label until cancelled.

        Raises:
            ClusterError: the API server refuses it for good.
        """
        if self._required:
            await Reflector(
                self.cluster,
                "Namespace",
                None,
                SELECTOR,
                self._take,
                is_known=lambda kind, body: False,
                compare=self.fill,
                note=self.cluster.note,
                metadata_only=True,
            ).run()
        else:
            await asyncio.Event().wait()

    def _take(self, kind: str, body: Mapping[str, Any], is_deleted: bool) -> None:
        """Note a namespace with the label. One that has lost it is deleted as far as the watch can see."""
        task = asyncio.create_task(self._set(body["metadata"]["name"], not is_deleted))
        self._leaving.add(task)  # the event loop has weak references alone
        task.add_done_callback(self._leaving.discard)

    async def refresh(self) -> None:
        """Compare with the API server once a minute: a watch does not report what it missed."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.fill()
            except (ClusterError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("the API server cannot be asked which namespaces opted in: %s", error)


def _is_managed(body: Mapping[str, Any]) -> bool:
    """Whether an operator created it, not the chart or somebody else."""
    return (body["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == names.FIELD_MANAGER
