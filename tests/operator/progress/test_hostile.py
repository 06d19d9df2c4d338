"""Hostile callers of the progress port: memory, time and the log are bounded, and honest pods are served."""

import asyncio
import base64
import json
import ssl
from datetime import UTC, datetime

import pytest
from support.cluster import hostile_callers

from hone_api.contract.report import AUDIENCE
from hone_operator.progress import connections
from hone_operator.progress.auth import Authenticator, TooManyReviewsError
from hone_operator.progress.connections import Connections
from hone_operator.progress.refusals import RefusalCounter
from hone_operator.progress.server import ProgressServer
from hone_operator.progress.store import ProgressStore
from hone_operator.progress.tls import renew, server_context

pytestmark = pytest.mark.pure
WAYS = (
    "no_handshake",
    "idle",
    "half_request",
    "slow_body",
    "forged_token",
    "unknown_pod",
    "long_header",
)
SILENT = WAYS[:3]
MANY = 100


@pytest.mark.attack("progress server")
@pytest.mark.parametrize("way", WAYS)
async def test_a_flood_is_bounded_and_an_honest_pod_behind_the_same_address_is_served(way, tmp_path):
    log = tmp_path / "log"
    with log.open("w") as file, hostile_callers.running(file) as server:
        assert await hostile_callers.report(server) == 200
        before = server.rss()
        async with hostile_callers.besieged(server, getattr(hostile_callers, way), MANY):
            counted, grown = server.counted(), server.rss() - before
            assert await hostile_callers.report(server) == 200
    assert counted["open"] <= connections.MAX_OF_ADDRESS
    assert counted["reviews"] <= hostile_callers.MAX_REVIEWS
    assert sum(counted["refused"].values()) >= MANY - connections.MAX_OF_ADDRESS
    assert grown < 30
    text = log.read_text()
    assert len(text.splitlines()) <= 5
    assert not any(word in text for word in ("Traceback", "SECRET", "forged"))


@pytest.mark.attack("progress server")
@pytest.mark.parametrize("way", SILENT)
async def test_a_connection_without_a_report_is_closed_in_time(way, monkeypatch):
    monkeypatch.setattr(connections, "PROVE_SECONDS", 1)
    cluster, certificates = hostile_callers.Cluster(), renew(None, ["localhost"], datetime.now(UTC))
    server = ProgressServer(Authenticator(cluster), cluster, ProgressStore(lambda key: None, interval=60))
    runner = await server.start("127.0.0.1", 0, server_context(certificates))
    tls = ssl.create_default_context(cadata=certificates.ca_pem)
    reader, writer = await getattr(hostile_callers, way)(hostile_callers.Server(None, runner.addresses[0][1], tls), 0)
    async with asyncio.timeout(60):
        with pytest.raises((ConnectionError, EOFError)):
            await reader.readexactly(1)
    assert len(server.connections) == 0
    assert server.refusals.total == {"no report in time": 1}
    writer.close()
    await runner.cleanup()


async def test_an_idle_connection_with_an_accepted_report_gives_way_last():
    refusals, closed = RefusalCounter(), []
    open_ones = Connections(refusals, most=4, most_of_address=3)
    for port in (1, 2, 3):
        assert open_ones.admit(("10.0.0.1", port), lambda port=port: closed.append(port))
    open_ones.trust(("10.0.0.1", 1))
    open_ones.admit(("10.0.0.1", 4), lambda: closed.append(4))
    assert closed == [2]
    open_ones.admit(("10.0.0.2", 1), lambda: closed.append("other"))
    open_ones.admit(("10.0.0.3", 1), lambda: closed.append("third"))
    assert closed == [2, 3]  # full: the address with the most connections makes room
    assert len(open_ones) == 4
    assert refusals.total == {"too many connections": 2}


async def test_an_address_opens_only_so_many_connections_a_second():
    open_ones = Connections(RefusalCounter())
    admitted = [open_ones.admit(("10.0.0.1", port), lambda: None) for port in range(connections.NEW_AT_ONCE + 50)]
    assert connections.NEW_AT_ONCE <= sum(admitted) < len(admitted)
    assert open_ones.admit(("10.0.0.2", 1), lambda: None)


class Refusing:
    """An API server that knows no token."""

    count = 0

    async def review_token(self, token, audience):
        self.count += 1
        return {"authenticated": False}


def token(uid, number):
    bound = {"namespace": "ml", "pod": {"name": "p", "uid": uid}}
    claims = json.dumps({"aud": [AUDIENCE], "exp": 2e9, "kubernetes.io": bound, "n": number}).encode()
    return f"h.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.s"


@pytest.mark.attack("progress server")
@pytest.mark.parametrize("named", ["a pod that is not there", "a pod that is there"])
async def test_300_forged_tokens_cost_few_reviews_and_spend_no_other_pods_budget(named):
    reviews = Refusing()
    authenticator = Authenticator(reviews, clock=lambda: 1e9, is_pod=lambda namespace, name, uid: uid != "none")
    uid = "none" if named == "a pod that is not there" else "victim"
    refused = 0
    for number in range(300):
        try:
            assert await authenticator.authenticate(token(uid, number), "10.0.0.1") is None
        except TooManyReviewsError:
            refused += 1
    assert reviews.count <= 20
    assert refused == 300 - reviews.count
    before = reviews.count
    await authenticator.authenticate(token("honest", 0), "10.0.0.1")  # the same address, another pod
    await authenticator.authenticate(token(uid, 0), "10.0.0.2")  # another address
    assert reviews.count >= before + 1


@pytest.mark.attack("progress server")
@pytest.mark.parametrize("claims", ["[]", '{"aud": {}, "exp": 1e999}', '{"kubernetes.io": []}', "1", '"x"', "null"])
async def test_claims_of_another_shape_cost_no_review(claims):
    reviews = Refusing()
    text = f"h.{base64.urlsafe_b64encode(claims.encode()).decode().rstrip('=')}.s"
    assert await Authenticator(reviews).authenticate(text, "10.0.0.1") is None
    assert reviews.count == 0


def test_the_log_gets_one_line_in_a_while(caplog):
    now = [0.0]
    refusals = RefusalCounter(lambda: now[0])
    for number in range(1000):
        refusals.add("not HTTP", f"10.0.0.{number % 7}")
    now[0] += 61
    refusals.add("not HTTP", "10.0.0.1")
    assert len(caplog.messages) == 2
    assert "refused 1000" in caplog.messages[1]
    assert "and 2 more" in caplog.messages[1]
    [family] = list(refusals.collect())
    assert [(s.name, s.labels, s.value) for s in family.samples] == [
        ("hone_operator_progress_refused_total", {"reason": "not HTTP"}, 1001.0)
    ]
