"""Which tokens reach the API server, and for how long its answers are kept."""

import asyncio
import base64
import json

import pytest

from hone_api.contract.report import AUDIENCE
from hone_operator.progress.auth import POD_NAME, POD_UID, Authenticator, Caller

pytestmark = pytest.mark.pure
NOW = 1_000_000.0


def token(**claims):
    body = json.dumps({"aud": [AUDIENCE], "exp": NOW + 3600, **claims}).encode()
    return f"h.{base64.urlsafe_b64encode(body).decode().rstrip('=')}.s"


class Reviews:
    """The API server's side, with given answers."""

    def __init__(self, **changes):
        self.count = 0
        self.status = {
            "authenticated": True,
            "audiences": [AUDIENCE],
            "user": {
                "username": "system:serviceaccount:ml:default",
                "extra": {POD_NAME: ["a-1-0-x"], POD_UID: ["pod-uid"]},
            },
            **changes,
        }

    async def review_token(self, token, audience):
        self.count += 1
        await asyncio.sleep(0)
        return self.status


class Clock:
    now = NOW

    def __call__(self):
        return self.now


async def test_one_review_serves_many_reports_until_it_gets_old():
    reviews, clock = Reviews(), Clock()
    authenticator = Authenticator(reviews, clock)
    callers = await asyncio.gather(*(authenticator.authenticate(token()) for _ in range(20)))
    assert set(callers) == {Caller("ml", "a-1-0-x", "pod-uid")}
    assert reviews.count == 1
    clock.now += 599
    await authenticator.authenticate(token())
    assert reviews.count == 1
    clock.now += 2
    await authenticator.authenticate(token())
    assert reviews.count == 2


async def test_an_answer_is_not_kept_beyond_the_token():
    reviews, clock = Reviews(), Clock()
    authenticator = Authenticator(reviews, clock)
    assert await authenticator.authenticate(token(exp=NOW + 100))
    clock.now += 41
    assert await authenticator.authenticate(token(exp=NOW + 100))
    assert reviews.count == 2
    clock.now += 60
    assert await authenticator.authenticate(token(exp=NOW + 100)) is None
    assert reviews.count == 2


async def test_a_refusal_is_kept_briefly():
    reviews, clock = Reviews(authenticated=False), Clock()
    authenticator = Authenticator(reviews, clock)
    assert await authenticator.authenticate(token()) is None
    assert await authenticator.authenticate(token()) is None
    assert reviews.count == 1
    clock.now += 11
    reviews.status = Reviews().status
    assert await authenticator.authenticate(token()) is not None


@pytest.mark.faults("T10")
@pytest.mark.parametrize(
    "changes",
    [
        {"audiences": ["https://kubernetes.default.svc"]},
        {"audiences": None},
        {"user": {"username": "system:serviceaccount:ml:default", "extra": {}}},
        *(
            {"user": {"username": name, "extra": {POD_NAME: ["p"], POD_UID: ["u"]}}}
            for name in ("alice", "", "system:serviceaccount:ml", "x:system:serviceaccount:ml:default")
        ),
        {"user": None},
    ],
)
async def test_a_valid_token_of_somebody_else_is_refused(changes):
    assert await Authenticator(Reviews(**changes), Clock()).authenticate(token()) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c",
        "h.e30.s",
        token(aud="other"),
        token(exp=NOW - 1),
        token(exp="soon"),
        token(aud=None),
        "h.W10.s",
    ],
)
async def test_what_cannot_be_ours_costs_no_review(text):
    reviews = Reviews()
    assert await Authenticator(reviews, Clock()).authenticate(text) is None
    assert reviews.count == 0


async def test_an_outage_is_not_remembered():
    class Down(Reviews):
        async def review_token(self, token, audience):
            if self.count == 0:
                self.count += 1
                raise ConnectionError
            return self.status

    authenticator = Authenticator(Down(), Clock())
    with pytest.raises(ConnectionError):
        await authenticator.authenticate(token())
    assert await authenticator.authenticate(token())
