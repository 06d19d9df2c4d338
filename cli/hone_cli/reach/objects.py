"""Objects of a namespace by kind and name: read, created, applied, changed, deleted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone_api import GROUP, VERSION
from hone_cli.errors import CommandError
from hone_cli.reach.kube import Kube, NoKindError, NoObjectError

MANAGER = "hone"
"""Field manager of what `hone run` applies."""
_OURS, _CORE = (f"{GROUP}/{VERSION}", f"/apis/{GROUP}/{VERSION}"), ("v1", "/api/v1")
KINDS = {
    "Dataset": (*_OURS, "datasets"),
    "FineTuneJob": (*_OURS, "finetunejobs"),
    "Model": (*_OURS, "models"),
    "ModelVersion": (*_OURS, "modelversions"),
    "ConfigMap": (*_CORE, "configmaps"),
    "PersistentVolumeClaim": (*_CORE, "persistentvolumeclaims"),
    "Secret": (*_CORE, "secrets"),
    "Pod": (*_CORE, "pods"),
    "Event": (*_CORE, "events"),
    "Job": ("batch/v1", "/apis/batch/v1", "jobs"),
}
"""API version, beginning of the path, and plural of each kind."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMES = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
"""Metadata alone: a run has its whole history in its status."""
_JSON, _MERGE, _APPLY = "application/json", "application/merge-patch+json", "application/apply-patch+yaml"


@dataclass
class Objects:
    """Of one namespace."""

    kube: Kube

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """One object.

        Raises:
            CommandError: there is none; the others of the namespace are named.
        """
        try:
            return dict(self.kube.call("GET", self._one(kind, name)))
        except NoObjectError:
            names = ", ".join(self.names(kind)[:8])
            there = f"it has {names}" if names else "it has none"
            raise CommandError(f"namespace {self.kube.namespace} has no {kind} {name}: {there}") from None

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object; None: there is none."""
        try:
            return dict(self.kube.call("GET", self._one(kind, name)))
        except NoKindError:
            raise
        except NoObjectError:
            return None

    def names(self, kind: str) -> list[str]:
        """The names of all objects of a kind, in order."""
        found = self.kube.call("GET", self._all(kind), accept=_NAMES)["items"] or []  # null where there is none
        return sorted(str(each["metadata"]["name"]) for each in found)

    def list(self, kind: str, labels: str = "", fields: str = "") -> list[dict[str, Any]]:
        """All objects of a kind that match the selectors."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        return list(self.kube.call("GET", self._all(kind), query=query)["items"])

    def create(self, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create an object; the API server refuses one that exists."""
        return self._written("POST", self._all(body["kind"]), body, {"dryRun": "All"} if dry_run else {}, _JSON)

    def apply(self, body: Mapping[str, Any], *, dry_run: bool = False, force: bool = False) -> dict[str, Any]:
        """Server-side apply; a field that somebody else has set is a conflict, unless `force` takes it over."""
        query = {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}
        query |= {"force": "true"} if force else {}
        return self._written("PATCH", self._one(body["kind"], body["metadata"]["name"]), body, query, _APPLY)

    def _written(
        self, method: str, path: str, body: Mapping[str, Any], query: Mapping[str, str], media: str
    ) -> dict[str, Any]:
        return dict(self.kube.call(method, path, body, {"fieldValidation": "Strict", **query}, media))

    def merge(self, kind: str, name: str, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Change some fields."""
        query = {"dryRun": "All"} if dry_run else {}
        return dict(self.kube.call("PATCH", self._one(kind, name), body, query, _MERGE))

    def delete(self, kind: str, name: str, uid: str) -> None:
        """Delete this very object, and what it owns."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        self.kube.call("DELETE", self._one(kind, name), options)

    def _all(self, kind: str) -> str:
        _, start, plural = KINDS[kind]
        return f"{start}/namespaces/{self.kube.namespace}/{plural}"

    def _one(self, kind: str, name: str) -> str:
        """The path of one object: never that of all, nor that of another kind.

        Raises:
            CommandError: no object can have this name.
        """
        if not _NAME.fullmatch(name):
            raise CommandError(f"{name!r} is not the name of a {kind}")
        return f"{self._all(kind)}/{name}"
