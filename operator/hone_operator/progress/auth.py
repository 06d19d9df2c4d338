"""Identifies who a token is of, by TokenReview; answers are cached, so that reports cost no API call."""

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

from hone_api.contract.report import AUDIENCE
from hone_operator.progress.ratelimit import RateLimit

POD_NAME, POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
REFRESH_BEFORE_EXPIRY, KEEP_ACCEPTED, KEEP_REFUSED = 60.0, 600.0, 10.0
"""Seconds. A token stays valid until it expires or its pod is gone; each report checks the pod."""
MAX_TOKENS = 8192
CONCURRENT_REVIEWS = 8


class ReviewsTokens(Protocol):
    """Reviews tokens with the API server's TokenReview."""

    async def review_token(self, token: str, audience: str) -> Mapping[str, Any]:
        """The `status` of the TokenReview."""


@dataclass(frozen=True)
class Caller:
    """The pod that a token is bound to."""

    namespace: str
    pod_name: str
    pod_uid: str


class TooManyReviewsError(Exception):
    """Too many unknown tokens came from one address; the API server is not asked about this one."""


@dataclass(frozen=True)
class _Claim:
    """What a token claims, unverified; used only to skip reviews that the API server would refuse anyway."""

    expires: float
    pod: tuple[str, str, str]
    """Namespace, name and uid."""


@dataclass(frozen=True)
class _Known:
    caller: Caller | None
    until: float


class Authenticator:
    """Maps tokens to the pods that report; at most `MAX_TOKENS` answers are cached, by the token's hash."""

    def __init__(
        self,
        reviews: ReviewsTokens,
        clock: Callable[[], float] = time.time,
        is_pod: Callable[[str, str, str], bool] = lambda namespace, name, uid: False,
    ):
        """`is_pod` says whether a watch has seen a pod with this namespace, name and uid."""
        self._reviews = reviews
        self._clock = clock
        self._is_pod = is_pod
        self._strangers = RateLimit(rate=1, burst=20)
        """Reviews by address, for tokens that name a pod we do not watch (yet)."""
        self._pods = RateLimit(rate=0.2, burst=5)
        """Reviews by address and claimed pod: a hostile neighbour at the same address uses up only its own."""
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._pending: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._slots = asyncio.Semaphore(CONCURRENT_REVIEWS)

    async def authenticate(self, token: str, address: str = "") -> Caller | None:
        """The caller at `address`; None if the token is not valid, not for our audience, or of nobody whom we serve.

        Raises:
            TooManyReviewsError: too many unknown tokens came from this address.
            Any error of the API server's client if the review fails; nothing is cached then.
        """
        claim = _claim(token)
        if claim is None or claim.expires <= self._clock():
            return None
        key = hashlib.sha256(token.encode()).digest()
        cached = self._known.get(key)
        if cached and cached.until > self._clock():
            self._known.move_to_end(key)
            return cached.caller
        if key not in self._pending:
            if not self._may_review(claim, address):
                raise TooManyReviewsError("too many unknown tokens from this address; try again in a few seconds")
            self._pending[key] = asyncio.create_task(self._review(key, token, claim.expires))
        return await asyncio.shield(self._pending[key])

    def _may_review(self, claim: _Claim, address: str) -> bool:
        if self._is_pod(*claim.pod):
            return self._pods.allow(f"{address} {claim.pod[2]}", self._clock())
        return self._strangers.allow(address, self._clock())

    async def _review(self, key: bytes, token: str, expires: float) -> Caller | None:
        try:
            async with self._slots:
                status = await self._reviews.review_token(token, AUDIENCE)
            is_valid = status.get("authenticated") and AUDIENCE in (status.get("audiences") or [])
            caller = _caller(status.get("user") or {}) if is_valid else None
            now = self._clock()
            until = max(min(expires - REFRESH_BEFORE_EXPIRY, now + KEEP_ACCEPTED), min(expires, now + 1))
            self._known[key] = _Known(caller, until if caller else now + KEEP_REFUSED)
            self._known.move_to_end(key)
            while len(self._known) > MAX_TOKENS:
                self._known.popitem(last=False)
            return caller
        finally:
            del self._pending[key]


def _claim(token: str) -> _Claim | None:
    """The claims of a JWT that is for our audience; None otherwise."""
    try:
        _, payload, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        audiences = [claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"]
        bound = claims.get("kubernetes.io") or {}
        pod = bound.get("pod") or {}
        bound_to = (str(bound.get("namespace")), str(pod.get("name")), str(pod.get("uid")))
        return _Claim(float(claims["exp"]), bound_to) if AUDIENCE in audiences else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error):
        return None


def _caller(user: Mapping[str, Any]) -> Caller | None:
    """The pod that a valid token is bound to."""
    kind, _, rest = str(user.get("username", "")).rpartition("serviceaccount:")
    namespace, _, name = rest.partition(":")
    extra = user.get("extra") or {}
    names, uids = extra.get(POD_NAME) or [], extra.get(POD_UID) or []
    if kind != "system:" or not (namespace and name) or len(names) != 1 or len(uids) != 1:
        return None
    return Caller(namespace=namespace, pod_name=names[0], pod_uid=uids[0])
