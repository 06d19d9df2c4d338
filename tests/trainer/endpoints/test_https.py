"""https:// sources: addresses that are refused, the checked one is used, redirects, limits. Real TLS on loopback."""

import hashlib
import json
from pathlib import Path

import pytest
from support.servers import tls_server

from hone_api.plan import Limits, MaterializePlan
from hone_trainer.datasets import materialize
from hone_trainer.endpoints import addresses
from hone_trainer.endpoints import http as https
from hone_trainer.endpoints.addresses import Resolution, is_allowed
from hone_trainer.errors import SourceError, classify

pytestmark = pytest.mark.trainer
PRIVATE_OK = Limits(allow_private_addresses=True)
ROWS = b"".join(json.dumps({"text": f"row {i}"}).encode() + b"\n" for i in range(200))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return tls_server.certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with tls_server.serve(certificate) as found:
        found.answers["/rows.jsonl"] = (200, {}, ROWS)
        yield found


def names(**addresses: str):
    """A resolver that knows these names (with _ for .)."""
    known = {name.replace("_", "."): address for name, address in addresses.items()}
    return lambda host, port: Resolution([known[host]]) if host in known else https.resolve(host, port)


def download(url, tmp_path, limits=PRIVATE_OK, **options):
    target = tmp_path / "target"
    https.Client(limits, **options).download(url, target)
    return target.read_bytes()


def refusal(url, tmp_path, limits=PRIVATE_OK, **options) -> SourceError:
    with pytest.raises(SourceError) as caught:
        https.Client(limits, **options).download(url, tmp_path / "target")
    return caught.value


@pytest.mark.attack("addresses")
@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.10",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2002:a00:1::",
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_allowed(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "185.199.108.153", "2606:50c0:8000::153", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address):
    assert is_allowed(address)


def test_private_addresses_may_be_allowed_but_never_link_local_ones():
    assert all(is_allowed(a, True) for a in ("127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd00::1"))
    never = ("169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1", "::")
    assert not any(is_allowed(a, True) for a in never)


@pytest.mark.attack("URLs")
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
        "[::]",
    ],
)
def test_no_spelling_of_loopback_is_reached(host, server, tmp_path):
    error = refusal(f"https://{host}:{server.port}/rows.jsonl", tmp_path, Limits())
    assert error.code in ("SourceRefused", "SourceUnreachable")
    assert "is not public" in error.message or "cannot be resolved" in error.message
    assert server.requests == []


@pytest.mark.attack("URLs")
@pytest.mark.parametrize(
    "url",
    [
        "http://data.test/rows.jsonl",
        "file:///etc/passwd",
        "ftp://data.test/x",
        "https:///etc/passwd",
        "https://user:hunter2@data.test/x",
        "https://data.test@127.0.0.1/x",
        "https://data.test\\@127.0.0.1/x",
        "https://data.test/x\r\nHost: other",
        "https://data.test/a b",
        "https://data.test:0/x",
        "https://data.test:99999/x",
        "https://[::1/x",
        "gopher://data.test/",
        "//data.test/x",
        "",
    ],
)
def test_addresses_that_are_refused_before_any_look_up(url, tmp_path):
    def no_look_up(host, port):
        raise AssertionError(f"{host} was looked up")

    error = refusal(url, tmp_path, resolver=no_look_up)
    assert error.code == "SourceRefused"
    assert "hunter2" not in error.message


def test_a_download(server, tmp_path):
    found = download(f"https://data.test:{server.port}/rows.jsonl", tmp_path, resolver=names(data_test="127.0.0.1"))
    assert found == ROWS
    assert server.requests == [("/rows.jsonl", f"data.test:{server.port}", "127.0.0.1", None)]


def test_the_certificate_must_be_the_hosts(server, tmp_path):
    resolver = names(stranger_test="127.0.0.1")
    error = refusal(f"https://stranger.test:{server.port}/rows.jsonl", tmp_path, resolver=resolver)
    assert error.code == "SourceUnreachable"
    assert server.requests == []


@pytest.mark.attack("redirects")
def test_one_bad_address_among_good_ones_refuses_the_host(server, tmp_path):
    error = refusal("https://data.test/x", tmp_path, Limits(), resolver=lambda *_: Resolution(["8.8.8.8", "10.0.0.7"]))
    assert error.code == "SourceRefused"
    assert "10.0.0.7" in error.message


@pytest.fixture
def second_loopback_is_public(monkeypatch):
    """127.0.0.2 stands for a public address: there is no other that a test can serve at."""
    real = addresses._allowed
    monkeypatch.setattr(addresses, "_allowed", lambda a, *may: str(a) == "127.0.0.2" or real(a, *may))


@pytest.fixture
def public_server(server, second_loopback_is_public, certificate):
    """The server at 127.0.0.2, and the one at 127.0.0.1 with the same port."""
    with tls_server.also_at("127.0.0.2", server, certificate):
        yield server


@pytest.mark.attack("redirects")
def test_a_name_server_that_changes_its_answer_leads_nowhere_else(public_server, tmp_path):
    answers = ["127.0.0.2", "127.0.0.1", "127.0.0.1"]
    url = f"https://data.test:{public_server.port}/rows.jsonl"
    assert download(url, tmp_path, Limits(), resolver=lambda *_: Resolution([answers.pop(0)])) == ROWS
    assert [local for _, _, local, _ in public_server.requests] == ["127.0.0.2"]
    assert len(answers) == 2, "the name was resolved once"


@pytest.mark.attack("redirects")
@pytest.mark.parametrize(
    "target",
    [
        "https://127.0.0.1:{port}/rows.jsonl",
        "https://localhost:{port}/rows.jsonl",
        "https://2130706433:{port}/rows.jsonl",
        "https://[::ffff:127.0.0.1]:{port}/rows.jsonl",
        "https://169.254.169.254/latest/meta-data/",
        "https://user@data.test/rows.jsonl",
        "http://data.test:{port}/rows.jsonl",
        "file:///etc/passwd",
    ],
)
def test_a_redirect_is_checked_like_the_first_address(public_server, tmp_path, target):
    public_server.answers["/go"] = (302, {"Location": target.format(port=public_server.port)}, b"")
    url = f"https://data.test:{public_server.port}/go"
    error = refusal(url, tmp_path, Limits(), resolver=names(data_test="127.0.0.2"))
    assert error.code in ("SourceRefused", "SourceUnreachable")
    assert [(path, local) for path, _, local, _ in public_server.requests] == [("/go", "127.0.0.2")]


def test_relative_redirects_are_followed(server, tmp_path):
    server.answers["/go"] = (307, {"Location": "/rows.jsonl"}, b"")
    url = f"https://data.test:{server.port}/go"
    assert download(url, tmp_path, resolver=names(data_test="127.0.0.1")) == ROWS


@pytest.mark.attack("redirects")
def test_endless_redirects_end(server, tmp_path):
    server.answers["/loop"] = (302, {"Location": "/loop"}, b"")
    error = refusal(f"https://data.test:{server.port}/loop", tmp_path, resolver=names(data_test="127.0.0.1"))
    assert error.code == "SourceRefused"
    assert len(server.requests) == 6


@pytest.mark.attack("redirects")
def test_credentials_go_to_the_first_host_alone(server, tmp_path):
    server.answers["/go"] = (302, {"Location": f"https://other.test:{server.port}/rows.jsonl"}, b"")
    resolver = names(data_test="127.0.0.1", other_test="127.0.0.1")
    url = f"https://data.test:{server.port}/go"
    assert download(url, tmp_path, authorization="Bearer canary-secret", resolver=resolver) == ROWS
    assert [auth for *_, auth in server.requests] == ["Bearer canary-secret", None]


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "SourceNotFound"), (401, "SourceNotFound"), (403, "SourceNotFound"), (500, "SourceUnreachable")],
)
def test_answers_other_than_the_file(server, tmp_path, status, code):
    server.answers["/x?signature=canary"] = (status, {}, b"")
    url = f"https://data.test:{server.port}/x?signature=canary"
    error = refusal(url, tmp_path, resolver=names(data_test="127.0.0.1"))
    assert error.code == code
    assert str(status) in error.message
    assert "canary" not in error.message


def test_a_file_that_says_it_is_too_large_is_not_read(server, tmp_path):
    server.answers["/big"] = (200, {"Content-Length": str(10**12)}, b"")
    limits = Limits(allow_private_addresses=True, max_source_bytes=10_000)
    url = f"https://data.test:{server.port}/big"
    assert refusal(url, tmp_path, limits, resolver=names(data_test="127.0.0.1")).code == "SourceTooLarge"


def test_a_file_that_does_not_end_is_cut_off(server, tmp_path):
    server.answers["/endless"] = (200, {"X-Endless": "1"}, b"")
    limits = Limits(allow_private_addresses=True, max_source_bytes=3_000_000)
    url = f"https://data.test:{server.port}/endless"
    assert refusal(url, tmp_path, limits, resolver=names(data_test="127.0.0.1")).code == "SourceTooLarge"


def test_a_file_that_ends_early_is_not_taken(server, tmp_path):
    server.answers["/short"] = (200, {"Content-Length": "500"}, b"x" * 100)
    error = refusal(f"https://data.test:{server.port}/short", tmp_path, resolver=names(data_test="127.0.0.1"))
    assert error.code == "SourceUnreachable"


def test_a_full_disk_is_not_taken_for_a_broken_connection(server):
    url = f"https://data.test:{server.port}/rows.jsonl"
    with pytest.raises(OSError, match="No space left") as caught:
        https.Client(PRIVATE_OK, resolver=names(data_test="127.0.0.1")).download(url, Path("/dev/full"))
    assert classify(caught.value).code == "DiskFull"


def plan(server, tmp_path, **source) -> MaterializePlan:
    source = {"uri": f"https://localhost:{server.port}/rows.jsonl?token=canary", **source}
    limits = {"allowPrivateAddresses": True}
    return MaterializePlan.model_validate(
        {"name": "rows", "source": source, "store": str(tmp_path / "store"), "limits": limits}
    )


def test_a_dataset_from_https(server, tmp_path):
    server.answers["/rows.jsonl?token=canary"] = (200, {}, ROWS)
    digest = hashlib.sha256(ROWS).hexdigest()
    result = materialize.run(plan(server, tmp_path, sha256=digest))
    assert (result.rows, result.revision) == (200, digest)
    report = (tmp_path / "store" / str(result.path) / "report.json").read_text()
    assert "/rows.jsonl" in report
    assert "canary" not in report


def test_another_content_than_sha256_promised(server, tmp_path):
    server.answers["/rows.jsonl?token=canary"] = (200, {}, ROWS)
    with pytest.raises(SourceError, match=hashlib.sha256(ROWS).hexdigest()) as caught:
        materialize.run(plan(server, tmp_path, sha256="0" * 64))
    assert caught.value.code == "ChecksumMismatch"
    assert not list((tmp_path / "store").rglob("*.jsonl"))


def test_the_secrets_authorization_is_sent(server, tmp_path):
    server.answers["/rows.jsonl?token=canary"] = (200, {}, ROWS)
    secret = tmp_path / "secret"
    secret.mkdir()
    asked = plan(server, tmp_path, secretName="s").model_copy(update={"secret_path": str(secret)})
    with pytest.raises(SourceError, match="does not exist") as caught:
        materialize.run(asked)
    assert caught.value.code == "SecretNotFound"
    (secret / "AUTHORIZATION").write_text("Bearer canary-secret\n")
    materialize.run(asked)
    assert server.requests[-1][3] == "Bearer canary-secret"
