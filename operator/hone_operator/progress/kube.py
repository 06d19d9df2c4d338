"""The two calls that the progress server needs of the API server beside the watches: TokenReview and its own Secret.

Raw JSON through `ApiClient`: importing the typed CoreV1Api would cost 130 MiB of memory.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

MERGE_PATCH = "application/merge-patch+json"


class KubeIdentity:
    """`ReviewsTokens` and `SecretStore` by the API server."""

    def __init__(self, api: ApiClient, timeout: float = 10):
        self._api = api
        self._timeout = timeout

    async def review_token(self, token: str, audience: str) -> Mapping[str, Any]:
        """The `status` of a TokenReview."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        answer = await self._call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
        return answer.get("status") or {}

    async def read_secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Data of a Secret; None when it does not exist."""
        try:
            secret = await self._call("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}

    async def write_secret(self, namespace: str, name: str, data: Mapping[str, bytes]) -> None:
        """Set keys of an existing Secret."""
        body = {"data": {key: base64.b64encode(value).decode() for key, value in data.items()}}
        await self._call("PATCH", f"/api/v1/namespaces/{namespace}/secrets/{name}", body, MERGE_PATCH)

    async def _call(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        request = await self._api.param_serialize(
            method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        response = await self._api.call_api(*request, _request_timeout=self._timeout)
        data = await response.read()
        if not 200 <= response.status <= 299:
            raise ApiException(status=response.status, reason=response.reason)
        result: dict[str, Any] = json.loads(data)
        return result
