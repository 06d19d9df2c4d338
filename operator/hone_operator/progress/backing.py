"""Cluster access for the progress server: the watches' caches first, then the API server, because watches lag."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from hone_operator.apiserver.cluster import Cluster
from hone_operator.objects.cache import Cache
from hone_operator.progress.binding import Object


class ClusterBacking:
    """`Directory`, `ReviewsTokens` and `SecretStore`, backed by the operator's own cache and API client."""

    def __init__(self, cache: Cache, cluster: Cluster):
        self._cache = cache
        self._cluster = cluster

    def cached(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object as last seen by a watch."""
        return self._cache.get(kind, namespace, name)

    def is_pod(self, namespace: str, name: str, uid: str) -> bool:
        """Whether a watch has seen this exact pod."""
        pod = self._cache.get("Pod", namespace, name)
        return pod is not None and pod["metadata"]["uid"] == uid

    async def read(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object as the API server has it at present."""
        return await self._cluster.get(kind, namespace, name)

    async def review_token(self, token: str, audience: str) -> Mapping[str, Any]:
        """The `status` of a TokenReview."""
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token, "audiences": [audience]},
        }
        return (await self._cluster.create(review)).get("status") or {}

    async def read_secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Data of a Secret; None if it does not exist."""
        secret = await self._cluster.get("Secret", namespace, name)
        if secret is None:
            return None
        return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}

    async def write_secret(self, namespace: str, name: str, data: Mapping[str, bytes]) -> None:
        """Set keys of an existing Secret; its other fields stay unchanged."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        metadata = {"namespace": namespace, "name": name}
        await self._cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded})
