"""What the API server answers when it does not do what was asked."""

import json
import re
from collections.abc import Mapping
from typing import Any

TOO_LARGE = re.compile("request is too large|trying to send message larger than max")
"""Messages of etcd, and of the API server's client of etcd."""


class ClusterError(Exception):
    """The API server's answer was not a success."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None):
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after


class NotFoundError(ClusterError):
    """404."""


class MissingKindError(ClusterError):
    """The cluster lacks a kind that the operator needs; the message says what installs it."""


class AlreadyExistsError(ClusterError):
    """409 on a create."""


class ConflictError(ClusterError):
    """409 on a write: the object changed, or was replaced."""


class UnreadableObjectError(ClusterError):
    """The object is too large, too deep or not JSON; it is treated as absent until somebody changes it."""


class RefusedError(ClusterError):
    """403 or 422: the same write will be refused until something else changes."""


class TooLargeError(ClusterError):
    """413, or etcd's refusal: with this write the object would exceed the storage limit."""


class NamespaceGoneError(RefusedError):
    """403 or 404: the namespace is being deleted or is gone. Expected; nothing is left to do in it."""


def error_of(status: int, body: bytes, headers: Mapping[str, str], verb: str) -> ClusterError:
    """The error of an answer with this status."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    answer = answer if isinstance(answer, dict) else {}  # of a proxy before the API server
    reason = answer.get("reason") or str(status)
    message = answer.get("message") or body[:200].decode(errors="replace")
    after = headers.get("Retry-After", "")
    kind: type[ClusterError] = ClusterError
    if _namespace_gone(status, answer):
        kind = NamespaceGoneError
    elif status == 404:
        kind = NotFoundError
    elif status == 409:
        kind = AlreadyExistsError if verb == "POST" and reason == "AlreadyExists" else ConflictError
    elif status in (403, 422):
        kind = RefusedError
    elif status == 413 or (status == 500 and TOO_LARGE.search(message)):
        kind = TooLargeError
    return kind(status, reason, message, float(after) if after.isdigit() else None)


def _namespace_gone(status: int, answer: Mapping[str, Any]) -> bool:
    details = answer.get("details") or {}
    if status == 403:
        return any(cause.get("reason") == "NamespaceTerminating" for cause in details.get("causes") or ())
    return status == 404 and details.get("kind") == "namespaces"
