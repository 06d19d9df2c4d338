"""Who reports: the pod that a token is bound to, by TokenReview; answers are kept, so that reports cost no API call."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hone_api.report import AUDIENCE

POD_NAME, POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
REFRESH_BEFORE_EXPIRY, KEEP_ACCEPTED, KEEP_REFUSED = 60.0, 600.0, 10.0
"""Seconds. A token stays valid until it expires or its pod is gone; the second is checked with each report."""
MAX_TOKENS = 8192
CONCURRENT_REVIEWS = 8


class ReviewsTokens(Protocol):
    """The API server's TokenReview."""

    async def review_token(self, token: str, audience: str) -> Mapping[str, Any]:
        """The `status` of the TokenReview."""


@dataclass(frozen=True)
class Caller:
    """The pod that a token is bound to."""

    namespace: str
    pod_name: str
    pod_uid: str


@dataclass(frozen=True)
class _Known:
    caller: Caller | None
    until: float


class Authenticator:
    """Tokens to callers; at most `MAX_TOKENS` answers are kept, by the token's hash."""

    def __init__(self, reviews: ReviewsTokens, clock: Callable[[], float] = time.time):
        self._reviews = reviews
        self._clock = clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._pending: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._slots = asyncio.Semaphore(CONCURRENT_REVIEWS)

    async def authenticate(self, token: str) -> Caller | None:
        """The caller; None for a token that is not valid, not ours or bound to no pod.

        Raises:
            Whatever the API server's client raises when it cannot be asked; nothing is remembered then.
        """
        expires = _claimed_expiry(token)
        if expires is None or expires <= self._clock():
            return None
        key = hashlib.sha256(token.encode()).digest()
        known = self._known.get(key)
        if known and known.until > self._clock():
            self._known.move_to_end(key)
            return known.caller
        if key not in self._pending:
            self._pending[key] = asyncio.create_task(self._review(key, token, expires))
        return await asyncio.shield(self._pending[key])

    async def _review(self, key: bytes, token: str, expires: float) -> Caller | None:
        try:
            async with self._slots:
                caller = _caller(await self._reviews.review_token(token, AUDIENCE))
            now = self._clock()
            until = max(min(expires - REFRESH_BEFORE_EXPIRY, now + KEEP_ACCEPTED), min(expires, now + 1))
            self._known[key] = _Known(caller, until if caller else now + KEEP_REFUSED)
            self._known.move_to_end(key)
            while len(self._known) > MAX_TOKENS:
                self._known.popitem(last=False)
            return caller
        finally:
            del self._pending[key]


def _claimed_expiry(token: str) -> float | None:
    """`exp` of a JWT that claims to be for us; None otherwise.

    Unverified: it only spares the API server the reviews of tokens that it would refuse anyway.
    """
    try:
        _, payload, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        audiences = [claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"]
        return float(claims["exp"]) if AUDIENCE in audiences else None
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        return None


def _caller(status: Mapping[str, Any]) -> Caller | None:
    if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or []):
        return None
    user = status.get("user") or {}
    extra = user.get("extra") or {}
    kind, _, rest = str(user.get("username", "")).rpartition("serviceaccount:")
    names, uids = extra.get(POD_NAME) or [], extra.get(POD_UID) or []
    if kind != "system:" or len(names) != 1 or len(uids) != 1:
        return None
    return Caller(namespace=rest.partition(":")[0], pod_name=names[0], pod_uid=uids[0])
