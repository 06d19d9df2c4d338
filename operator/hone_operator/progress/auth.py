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
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from hone_api.contract import metric_report, report
from hone_operator.progress.ratelimit import RateLimit

POD_NAME, POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
REFRESH_BEFORE_EXPIRY, KEEP_ACCEPTED, KEEP_REFUSED = 60.0, 600.0, 10.0
"""Seconds. A token stays valid until it expires or its pod is gone; each report checks the pod."""
MAX_TOKENS = 8192
CONCURRENT_REVIEWS = 8
T = TypeVar("T")


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


@dataclass(frozen=True)
class Account:
    """The ServiceAccount that a token is of."""

    namespace: str
    name: str


class TooManyReviewsError(Exception):
    """Too many unknown tokens came from one address; the API server is not asked about this one."""


@dataclass(frozen=True)
class _Claim:
    """What a token claims, unverified; used only to skip reviews that the API server would refuse anyway."""

    expires: float
    pod: tuple[str, str, str]
    """Namespace, name and uid."""


@dataclass(frozen=True)
class _Known(Generic[T]):
    caller: T | None
    until: float


class TokenReviewer(Generic[T]):
    """Maps tokens for one audience to callers; at most `MAX_TOKENS` answers are cached, by the token's hash."""

    audience: ClassVar[str]
    keep: ClassVar[float] = KEEP_ACCEPTED
    """Seconds for which an accepted token is not reviewed again."""

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
        self._known: OrderedDict[bytes, _Known[T]] = OrderedDict()
        self._pending: dict[bytes, asyncio.Task[T | None]] = {}
        self._slots = asyncio.Semaphore(CONCURRENT_REVIEWS)

    def identify(self, user: Mapping[str, Any]) -> T | None:
        """Who the user of a valid token is; None: nobody whom we serve."""
        raise NotImplementedError

    async def authenticate(self, token: str, address: str = "") -> T | None:
        """The caller at `address`; None if the token is not valid, not for our audience, or of nobody whom we serve.

        Raises:
            TooManyReviewsError: too many unknown tokens came from this address.
            Any error of the API server's client if the review fails; nothing is cached then.
        """
        claim = _claim(token, self.audience)
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

    async def _review(self, key: bytes, token: str, expires: float) -> T | None:
        try:
            async with self._slots:
                status = await self._reviews.review_token(token, self.audience)
            is_valid = status.get("authenticated") and self.audience in (status.get("audiences") or [])
            caller = self.identify(status.get("user") or {}) if is_valid else None
            now = self._clock()
            until = max(min(expires - REFRESH_BEFORE_EXPIRY, now + self.keep), min(expires, now + 1))
            self._known[key] = _Known(caller, until if caller else now + KEEP_REFUSED)
            self._known.move_to_end(key)
            while len(self._known) > MAX_TOKENS:
                self._known.popitem(last=False)
            return caller
        finally:
            del self._pending[key]


class Authenticator(TokenReviewer[Caller]):
    """Of pods that report their progress."""

    audience = report.AUDIENCE

    def identify(self, user: Mapping[str, Any]) -> Caller | None:
        """The pod that the token is bound to."""
        account, extra = _account(user), user.get("extra") or {}
        names, uids = extra.get(POD_NAME) or [], extra.get(POD_UID) or []
        if account is None or len(names) != 1 or len(uids) != 1:
            return None
        return Caller(namespace=account.namespace, pod_name=names[0], pod_uid=uids[0])


class AccountAuthenticator(TokenReviewer[Account]):
    """Of ServiceAccounts that report metrics."""

    audience = metric_report.AUDIENCE
    keep = 60.0  # nothing else reports that the ServiceAccount, or the pod that has the token, is gone

    def identify(self, user: Mapping[str, Any]) -> Account | None:
        """The ServiceAccount."""
        return _account(user)


def _claim(token: str, audience: str) -> _Claim | None:
    """The claims of a JWT that is for this audience; None otherwise."""
    try:
        _, payload, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        audiences = [claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"]
        bound = claims.get("kubernetes.io") or {}
        pod = bound.get("pod") or {}
        bound_to = (str(bound.get("namespace")), str(pod.get("name")), str(pod.get("uid")))
        return _Claim(float(claims["exp"]), bound_to) if audience in audiences else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error):
        return None


def _account(user: Mapping[str, Any]) -> Account | None:
    kind, _, rest = str(user.get("username", "")).rpartition("serviceaccount:")
    namespace, _, name = rest.partition(":")
    return Account(namespace, name) if kind == "system:" and namespace and name else None
