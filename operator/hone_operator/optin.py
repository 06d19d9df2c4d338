"""Which namespaces have let the operator in, and the RoleBinding that its rights there come from.

A namespace opts in by the label hone.dev/enabled=true, or is named in the chart's value `namespaces`, for which the
chart makes the binding. Elsewhere the operator may read its own kinds, Jobs and Pods and write the status of its own
kinds, and nothing else.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import kopf

from hone_operator.cluster import AlreadyExistsError, Cluster, ClusterError
from hone_operator.desired import names
from hone_operator.settings import Settings

log = logging.getLogger(__name__)
SELECTOR = "hone.dev/enabled=true"
REFRESH_SECONDS = 60.0
RETRY_SECONDS = 15.0
RIGHTS_WAIT = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between looks whether a new binding has reached the API server's authorizer."""


@dataclass(frozen=True)
class Closed:
    """Why the operator may not work in a namespace."""

    message: str
    check_again_in: float | None = None
    """Seconds; None: the label tells by itself."""


@dataclass
class OptIn:
    """The namespaces in which the operator works."""

    cluster: Cluster
    config: Settings
    changed: Callable[[str], None] = lambda namespace: None
    """Called with each namespace that opts in or out."""
    _labelled: set[str] = field(default_factory=set)
    _bound: dict[str, float] = field(default_factory=dict)
    """Namespaces whose RoleBinding was seen, until when (monotonic seconds) it is not looked for again."""

    @property
    def _required(self) -> bool:
        return bool(self.config.opt_in.role)

    def enabled(self, namespace: str) -> bool:
        """Whether the operator may work in this namespace."""
        return not self._required or namespace in self.config.opt_in.namespaces or self._is_labelled(namespace)

    async def problem(self, namespace: str) -> Closed | None:
        """Why the operator may not work in a namespace; None: it may, and has its rights there."""
        if not self.enabled(namespace):
            return Closed(
                f"Namespace {namespace} is not enabled for Hone. Somebody who may edit namespaces must run: "
                f"kubectl label namespace {namespace} {SELECTOR}"
            )
        try:
            await self.enter(namespace)
        except ClusterError as error:
            message = f"Namespace {namespace} has opted in, but its RoleBinding cannot be made: {error.message}"
            return Closed(message, RETRY_SECONDS)
        return None

    def _is_labelled(self, namespace: str) -> bool:
        own = namespace == self.config.namespace or namespace.startswith("kube-")
        return namespace in self._labelled and not own

    async def enter(self, namespace: str) -> None:
        """Make the RoleBinding of a labelled namespace, unless it is there.

        Raises:
            ClusterError: when it cannot be made, or another object has its name.
        """
        if not self._required or namespace in self.config.opt_in.namespaces:
            return
        if self._bound.get(namespace, 0.0) > time.monotonic():
            return
        name = self.config.opt_in.role
        found = await self.cluster.get("RoleBinding", namespace, name)
        wanted = await self._binding(namespace)
        if found is None:
            with contextlib.suppress(AlreadyExistsError):
                found = await self.cluster.create(wanted)
            await self._wait_for_rights(namespace)
            log.info("%s: has the label %s; bound ClusterRole %s", namespace, SELECTOR, name)
        if found and (found["roleRef"], found.get("subjects")) != (wanted["roleRef"], wanted["subjects"]):
            raise ClusterError(409, "NameTaken", f"RoleBinding {name} binds something else: delete it")
        self._bound[namespace] = time.monotonic() + REFRESH_SECONDS

    async def _binding(self, namespace: str) -> dict[str, Any]:
        """It belongs to the ClusterRole, so that the garbage collector removes it when the chart is uninstalled."""
        opt_in = self.config.opt_in
        role = await self.cluster.get("ClusterRole", None, opt_in.role)
        if role is None:
            raise ClusterError(404, "NotFound", f"ClusterRole {opt_in.role} is not there: install the chart again")
        group = "rbac.authorization.k8s.io"
        owner = {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "name": opt_in.role,
            "uid": role["metadata"]["uid"],
        }
        return {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {
                "name": opt_in.role,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/managed-by": names.FIELD_MANAGER},
                "ownerReferences": [owner],
            },
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": opt_in.role},
            "subjects": [
                {"kind": "ServiceAccount", "name": opt_in.service_account, "namespace": self.config.namespace}
            ],
        }

    async def _wait_for_rights(self, namespace: str) -> None:
        """The authorizer learns of a new binding by a watch of its own."""
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

    async def fill(self) -> None:
        """Read which namespaces have the label; tell what has changed.

        Raises:
            ClusterError: when our rights do not suffice.
        """
        if not self._required:
            return
        scan = self.cluster.scan("Namespace", None, SELECTOR, metadata_only=True)
        now = {body["metadata"]["name"] async for body in scan}
        for namespace in sorted(now ^ self._labelled):
            await self._set(namespace, namespace in now)

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
        """Give the rights in a namespace back. The admission policy refuses writes there from the same moment on."""
        self._bound.pop(namespace, None)
        try:
            body = await self.cluster.get("RoleBinding", namespace, self.config.opt_in.role)
            managed = body and body["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by")
            if body and managed == names.FIELD_MANAGER:
                await self.cluster.delete("RoleBinding", body)
        except ClusterError as error:
            log.info("%s: the RoleBinding is not removed: %s", namespace, error)

    def register(self, registry: kopf.OperatorRegistry, settings: kopf.OperatorSettings) -> None:
        """Watch the label."""
        if not self._required:
            return
        settings.watching.label_selectors["", "v1", "namespaces"] = SELECTOR

        @kopf.on.event("", "v1", "namespaces", id="opt-in", registry=registry)
        async def opt_in(event: Any, body: Mapping[str, Any], **_: Any) -> None:
            # The watch has a selector: a namespace that loses the label is told of as deleted, and bodies are stripped.
            await self._set(body["metadata"]["name"], event["type"] != "DELETED")

    async def refresh(self) -> None:
        """Compare with the API server once a minute: a watch says nothing of what it has missed."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.fill()
            except (ClusterError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("the API server cannot be asked which namespaces opted in: %s", error)
