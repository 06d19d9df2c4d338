"""Addresses and names of Services that pods may not connect to, and answers that never end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone_trainer.endpoints import http as https
from hone_trainer.endpoints.addresses import AllowedNetwork, Resolution, is_allowed
from hone_trainer.endpoints.client import Access, Endpoint, PromptRefusedError
from hone_trainer.errors import ConfigError, SourceError

pytestmark = pytest.mark.pure
_NEVER = """
0.0.0.0 0.1.2.3 127.0.0.1 127.255.255.254 10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1 100.64.0.1 100.127.255.254
169.254.169.254 169.254.170.2 168.63.129.16 192.0.0.192 192.0.0.8 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.1
203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::2 ::127.0.0.1 ::ffff:127.0.0.1
::ffff:169.254.169.254 ::ffff:0:10.0.0.1 ::ffff:0:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1
100::1 100:0:0:1::1 2001::1 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:a9fe:a9fe:: 3fff::1
3fff:fff::1 4000::1 5f00::1 fc00::1 fd00::1 fd00:ec2::254 fd20:ce::254 fe80::1 fe80::a9fe:a9fe fec0::1 ff02::1
ff0e::1
"""
NEVER = _NEVER.split()


@pytest.mark.attack("addresses")
@pytest.mark.parametrize("address", NEVER)
def test_an_address_of_a_special_purpose_is_refused(address: str) -> None:
    assert not is_allowed(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2600::1", "2a00:1450::1", "64:ff9b::808:808", "::ffff:1.1.1.1"])
def test_a_public_address_is_taken(address: str) -> None:
    assert is_allowed(address)


OURS = AllowedNetwork(namespace="team", services=["judge.models", "*.shared"], cidrs=["10.96.0.0/12", "fd00:10::/64"])
SERVICES = {
    "a Service of another namespace": ("http://grade.tenant-b.svc/v1", "10.96.0.9"),
    "by its whole name": ("http://grade.tenant-b.svc.cluster.local/v1", "10.96.0.9"),
    "with a dot at the end": ("http://grade.tenant-b.svc.cluster.local./v1", "10.96.0.9"),
    "the API server": ("https://kubernetes.default.svc/", "10.96.0.1"),
    "a pod of another namespace": ("http://pod-0.grade.tenant-b.svc/v1", "10.96.0.9"),
    "one named like a listed one": ("http://judge.models.tenant-b.svc/v1", "10.96.0.9"),
    "another one of a listed namespace": ("http://other.models.svc/v1", "10.96.0.9"),
    "loopback": ("http://db/any", "127.0.0.1"),
    "loopback by IPv6": ("http://db/any", "::1"),
    "loopback inside IPv6": ("http://db/any", "::ffff:127.0.0.1"),
    "loopback of a listed one": ("http://judge.models.svc/", "127.0.0.1"),
    "link-local": ("http://db/any", "169.254.169.254"),
    "link-local by IPv6": ("http://db/any", "fe80::1"),
    "Azure's WireServer": ("http://db/any", "168.63.129.16"),
    "metadata by IPv6": ("http://db/any", "fd00:ec2::254"),
    "a node": ("http://db/any", "192.168.1.10"),
    "a private address by an ExternalName": ("http://db.team.svc/any", "172.31.0.1"),
    "a public address by an ExternalName": ("http://db.team.svc/any", "8.8.8.8"),
}


@pytest.mark.attack("addresses")
@pytest.mark.parametrize("what", SERVICES)
def test_a_name_like_a_service_lifts_no_rule(what: str) -> None:
    url, address = SERVICES[what]
    canonical = {"ExternalName": "db.example.org"}.get(what.rpartition(" ")[2], "db.team.svc.cluster.local")
    assert OURS.problem(url) or OURS.refused(url, Resolution([address], canonical)) == [address]


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("http://db", "db.team.svc.cluster.local"),
        ("http://db.team.svc", "DB.team.svc.cluster.local."),
        ("http://pod-0.db.team.svc", "pod-0.db.team.svc.cluster.local"),
        ("http://alias", "db.team.svc.cluster.local"),
        ("http://judge.models.svc", "judge.models.svc.cluster.local"),
        ("http://a.shared.svc", "a.shared.svc.cluster.local"),
    ],
)
def test_a_service_that_may_be_named(url: str, canonical: str) -> None:
    assert OURS.problem(url) is None
    assert OURS.refusal(url, Resolution(["10.100.1.2", "fd00:10::5"], canonical)) is None


def test_without_cidrs_a_service_may_have_any_private_address_but_no_loopback() -> None:
    network, own = AllowedNetwork(namespace="team"), "db.team.svc.cluster.local"
    assert network.refused("http://db", Resolution(["192.168.1.1", "10.0.0.1"], own)) == []
    local = ["127.0.0.1", "169.254.169.254"]
    assert network.refused("http://db", Resolution(local, own)) == local
    assert network.refused("http://db.example.org", Resolution(["10.0.0.1"], own)) == ["10.0.0.1"]


LEAVING = {
    "a host outside the cluster": "db.example.org",
    "a Service of another namespace": "grade.tenant-b.svc.cluster.local",
    "a namespace that ends like it": "db.other-team.svc.cluster.local",
    "the namespace's name as a Service": "team.svc.cluster.local",
    "the zone below a public domain": "db.team.svc.cluster.local.example.org",
    "a domain that ends like the cluster's": "db.team.svc.evilcluster.local",
    "a search domain of the node": "db.corp.internal",
    "no canonical name": "",
}


@pytest.mark.attack("addresses")
@pytest.mark.parametrize("url", ["http://db/v1", "http://db.team.svc/v1", "http://db.team.svc.cluster.local/v1"])
@pytest.mark.parametrize("where", LEAVING)
def test_a_service_that_leads_out_of_its_namespace_has_no_private_address(where: str, url: str) -> None:
    network = AllowedNetwork(namespace="team")
    refusal = network.refusal(url, Resolution(["8.8.8.8", "172.31.0.1"], LEAVING[where]))
    assert refusal is not None
    assert "the address 172.31.0.1, which is not public" in refusal
    assert "is not a Service below team.svc.cluster.local" in refusal
    assert network.refusal(url, Resolution(["8.8.8.8"], LEAVING[where])) is None


@pytest.mark.attack("addresses")
def test_a_listed_service_that_leads_out_of_its_namespace_has_no_private_address() -> None:
    network = AllowedNetwork(namespace="team", services=["*.shared"])
    found = Resolution(["10.0.0.1"], "db.example.org")
    assert network.refused("http://a.shared.svc", found) == ["10.0.0.1"]


@pytest.mark.attack("addresses")
@pytest.mark.parametrize(
    ("pattern", "host", "listed"),
    [
        ("judge.team-*", "judge.team-b.svc", True),
        ("judge.team-*", "judge.team-b.foreign.svc", False),
        ("judge*.models", "judge-2.models.svc.cluster.local", True),
        ("judge*.models", "judge.models.foreign.svc", False),
        ("*.shared", "pod-0.judge.shared.svc", True),
        ("*.*", "judge.foreign.svc", True),
    ],
)
def test_a_pattern_of_a_namespace_matches_the_namespace_alone(pattern: str, host: str, listed: bool) -> None:
    """A pod has its own name below that of its Service: both are chosen by whoever has the namespace."""
    network = AllowedNetwork(namespace="team", services=[pattern])
    assert network.is_listed(f"http://{host}/v1") is listed
    assert (network.problem(f"http://{host}/v1") is None) is listed


def test_plans_without_a_namespace_name_services_as_before() -> None:
    assert AllowedNetwork().problem("http://judge.models.svc/v1") is None


@pytest.mark.attack("endpoints")
def test_a_service_of_another_namespace_is_refused_before_it_is_looked_up() -> None:
    with pytest.raises(ConfigError, match=r"added to limits\.services of the chart"):
        Endpoint(
            "http://grade.tenant-b.svc/v1",
            Access(AllowedNetwork(namespace="team"), resolver=lambda *_: pytest.fail("asked")),
        )


Reply = list[tuple[float, bytes]]


@pytest.fixture
def server() -> Iterator[tuple[int, Reply]]:
    """A port, and what is sent to each connection: pause before, bytes; the last one again and again."""
    reply: Reply = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer(connection: socket.socket) -> None:
            with connection:
                connection.recv(65536)
                try:
                    for pause, data in [*reply, *[reply[-1]] * 60_000]:
                        time.sleep(pause)
                        connection.sendall(data)
                except OSError:
                    pass

        def run() -> None:
            try:
                while True:
                    threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()
            except OSError:
                pass

        threading.Thread(target=run, daemon=True).start()
        yield listening.getsockname()[1], reply


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"
DRIPS: dict[str, Reply] = {
    "the first line": [(0.02, b"H")],
    "the headers": [(0, b"HTTP/1.1 200 OK\r\n"), (0.02, b"X: 1\r\n")],
    "one header": [(0, b"HTTP/1.1 200 OK\r\nX: "), (0.02, b"1")],
    "the body": [(0, HEAD + b"\r\n"), (0.02, b"x")],
    "chunks": [(0, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), (0.02, b"1\r\nx\r\n")],
    "an interim answer": [(0.02, b"HTTP/1.1 100 Continue\r\n\r\n")],
}


@pytest.mark.attack("downloads' time")
@pytest.mark.parametrize("what", DRIPS)
def test_a_download_that_drips_ends_at_its_limit(tmp_path: Path, server: tuple[int, Reply], what: str) -> None:
    port, reply = server
    reply += DRIPS[what]
    until = time.monotonic() + 0.5
    url = https.checked(f"http://127.0.0.1:{port}/", plain=True)
    pool = https.connect(url, AllowedNetwork(allow_private=True), until)
    with pytest.raises((https.HTTPError, OSError)):
        https.send_to(pool, url, "GET", {}).read(2**20)
    assert time.monotonic() - until < 600, "the server would go on for twenty minutes"


@pytest.mark.attack("endpoints")
@pytest.mark.parametrize("what", DRIPS)
def test_an_endpoint_that_drips_ends_at_its_limit(server: tuple[int, Reply], what: str) -> None:
    port, reply = server
    reply += DRIPS[what]
    endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", Access(AllowedNetwork(allow_private=True), most_seconds=0.5))
    start = time.monotonic()
    with pytest.raises(SourceError) as raised:
        endpoint.request("GET", "/models", tries=1)
    assert raised.value.code == "EndpointUnreachable"
    assert time.monotonic() - start < 600


@pytest.mark.attack("endpoints")
def test_what_a_private_server_says_is_not_repeated(server: tuple[int, Reply], monkeypatch: pytest.MonkeyPatch) -> None:
    port, reply = server
    reply.append((0, b"HTTP/1.1 400 Bad\r\nContent-Length: 6\r\nConnection: close\r\n\r\ncanary"))
    monkeypatch.setattr(AllowedNetwork, "refusal", lambda *_: None)
    endpoint = Endpoint(
        f"http://db:{port}/v1", Access(AllowedNetwork(namespace="team"), resolver=lambda *_: Resolution(["127.0.0.1"]))
    )
    with pytest.raises(PromptRefusedError) as raised:
        endpoint.request("GET", "/models", tries=1)
    assert raised.value.message == "db answers 400"
