"""Certificates of the progress server: kept, renewed in time, repaired."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from hone_operator.progress.tls import (
    CA_KEY,
    ROTATE,
    SERVING_CERT,
    Certificates,
    TlsError,
    ensure,
    renew,
    server_context,
)

pytestmark = pytest.mark.pure
NOW = datetime(2026, 5, 1, tzinfo=UTC)
HOSTS = ["hone-progress.hone.svc", "10.1.2.3"]


def test_kept_while_they_serve():
    first = renew(None, HOSTS, NOW)
    assert renew(first, HOSTS, NOW + timedelta(days=59)) is first


def test_the_serving_certificate_is_renewed_by_the_same_authority():
    first = renew(None, HOSTS, NOW)
    second = renew(first, HOSTS, NOW + timedelta(days=61))
    assert second.ca_cert == first.ca_cert
    assert second.cert != first.cert
    other = renew(first, ["elsewhere.svc"], NOW)
    assert other.ca_cert == first.ca_cert
    assert other.cert != first.cert


def test_the_authority_is_renewed_a_year_before_its_end():
    first = renew(None, HOSTS, NOW)
    assert renew(first, HOSTS, NOW + timedelta(days=3650 - 366)).ca_cert == first.ca_cert
    assert renew(first, HOSTS, NOW + timedelta(days=3650 - 364)).ca_cert != first.ca_cert


def test_a_damaged_or_mixed_secret_is_fixed():
    first, second = renew(None, HOSTS, NOW), renew(None, HOSTS, NOW)
    for broken in (
        Certificates(b"x", first.ca_cert, first.key, first.cert),
        Certificates(first.ca_key, first.ca_cert, second.key, first.cert),
        Certificates(second.ca_key, first.ca_cert, first.key, first.cert),
        Certificates(first.ca_key, first.ca_cert, second.key, second.cert),
    ):
        assert renew(broken, HOSTS, NOW).ca_cert not in (broken.ca_cert,)


def test_an_ordinary_client_verifies_the_chain_and_the_host():
    certificates = renew(None, HOSTS, datetime.now(UTC))
    client = ssl.create_default_context(cadata=certificates.ca_pem)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    for host, trusted in (*((h, True) for h in HOSTS), ("other.svc", False)):
        assert _handshake(client, server_context(certificates), host) is trusted, host
    stranger = ssl.create_default_context(cadata=renew(None, HOSTS, datetime.now(UTC)).ca_pem)
    assert not _handshake(stranger, server_context(certificates), HOSTS[0])


@pytest.mark.faults("T12")
def test_a_node_whose_clock_is_hours_behind_trusts_new_certificates():
    now = datetime.now(UTC)
    certificates = renew(None, HOSTS, now)
    for pem in (certificates.ca_cert, certificates.cert):
        assert x509.load_pem_x509_certificate(pem).not_valid_before_utc < now - timedelta(hours=23)


@pytest.mark.parametrize("strict", [False, True])
def test_pods_of_every_earlier_authority_trust_the_newest(strict):
    now = datetime.now(UTC)
    first = renew(None, HOSTS, now)
    second = renew(first, HOSTS, now, b"once")
    third = renew(second, HOSTS, now, b"twice")
    assert len({c.ca_key for c in (first, second, third)}) == 3
    for known in (first, second, third):
        client = ssl.create_default_context(cadata=known.ca_pem)
        if strict:
            client.verify_flags |= ssl.VERIFY_X509_STRICT
        assert _handshake(client, server_context(third), HOSTS[0])
        assert not _handshake(client, server_context(third), "other.svc")
    assert not _handshake(ssl.create_default_context(cadata=third.ca_pem), server_context(first), HOSTS[0])


def test_the_renewed_authority_is_trusted_by_pods_of_the_one_that_ends():
    now = datetime.now(UTC)
    first = renew(None, HOSTS, now - timedelta(days=3650 - 300))
    second = renew(first, HOSTS, now)
    assert second.ca_cert != first.ca_cert
    assert _handshake(ssl.create_default_context(cadata=first.ca_pem), server_context(second), HOSTS[0])
    much_later = renew(second, HOSTS, now + timedelta(days=3650 - 300))
    ends = [c.not_valid_after_utc for c in x509.load_pem_x509_certificates(much_later.cross)]
    assert ends == [x509.load_pem_x509_certificate(second.ca_cert).not_valid_after_utc]  # the first one's has ended


def _handshake(client_context, server_context, host):
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return client.getpeercert()["subject"] == ((("commonName", "hone progress"),),)


class Secrets:
    """One Secret."""

    def __init__(self, data):
        self.data, self.writes = data, 0

    async def read_secret(self, namespace, name):
        return self.data

    async def write_secret(self, namespace, name, data):
        self.data, self.writes = dict(data), self.writes + 1


async def test_filled_once_and_read_after_a_restart():
    secrets = Secrets({})
    first = await ensure(secrets, "hone", "hone-operator-tls", HOSTS)
    assert await ensure(secrets, "hone", "hone-operator-tls", HOSTS) == first
    assert secrets.writes == 1
    assert x509.load_pem_x509_certificate(secrets.data[SERVING_CERT])
    del secrets.data[CA_KEY]
    assert (await ensure(secrets, "hone", "hone-operator-tls", HOSTS)).ca_cert != first.ca_cert


async def test_a_text_in_the_secret_makes_one_new_authority():
    secrets = Secrets({})
    first = await ensure(secrets, "hone", "hone-operator-tls", HOSTS)
    secrets.data[ROTATE] = b"2026-05-01"
    second = await ensure(secrets, "hone", "hone-operator-tls", HOSTS, first)
    assert second.ca_cert != first.ca_cert
    secrets.data[ROTATE] = b"2026-05-01"
    assert await ensure(secrets, "hone", "hone-operator-tls", HOSTS) == second


async def test_a_secret_made_again_gets_back_what_pods_trust():
    secrets = Secrets({})
    first = await ensure(secrets, "hone", "hone-operator-tls", HOSTS)
    secrets.data = {}
    assert await ensure(secrets, "hone", "hone-operator-tls", HOSTS, first) == first
    assert Certificates.from_secret(secrets.data) == first


async def test_a_missing_secret_is_reported_with_the_way_out():
    with pytest.raises(TlsError, match=r"helm upgrade"):
        await ensure(Secrets(None), "hone", "hone-operator-tls", HOSTS)
