"""A timestamp authority (RFC 3161) on loopback: what it signs, OpenSSL signs."""

from __future__ import annotations

import datetime
import http.server
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.servers import loopback

CONFIG = """
[tsa]
serial = {folder}/serial
signer_cert = {folder}/signer.pem
signer_key = {folder}/signer.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
"""


@dataclass(frozen=True)
class Timestamps:
    """A running server."""

    url: str
    chain: tuple[x509.Certificate, ...]
    """From its own certificate to the root."""


@contextmanager
def serve(folder: Path) -> Iterator[Timestamps]:
    """Sign timestamps with a key in `folder`, until the block ends."""
    folder.mkdir()
    chain = _certificates(folder)
    config = folder / "openssl.cnf"
    config.write_text(CONFIG.format(folder=folder))
    turn = threading.Lock()

    class Handler(loopback.Handler, http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = folder / "query.tsq"
            with turn:
                query.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
                argv = ["openssl", "ts", "-reply", "-config", config, "-section", "tsa", "-queryfile", query]
                body = subprocess.run(argv, check=True, capture_output=True).stdout
            self.answer(200, "application/timestamp-reply", body)

    with loopback.serve(Handler) as address:
        yield Timestamps(address, chain)


def _certificates(folder: Path) -> tuple[x509.Certificate, ...]:
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, name = _name("timestamps root"), _name("timestamps")
    usage = dict.fromkeys(
        (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    root = (
        _builder(root_name, root_name, root_key)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "key_cert_sign": True}), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    own = (
        _builder(name, root_name, key)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "signer.pem").write_bytes(own.public_bytes(pem))
    (folder / "signer.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "serial").write_text("01\n")
    return own, root


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
