"""Certificate authority and serving certificate of the progress server, made at run time and kept in a Secret.

The authority outlives every run: pods get its certificate with their plan. The serving certificate is renewed often.
"""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS, AUTHORITY_RENEW_DAYS = 3650, 365
SERVING_DAYS, SERVING_RENEW_DAYS = 90, 30
CLOCK_SKEW = timedelta(minutes=10)
CA_KEY, CA_CERT, SERVING_KEY, SERVING_CERT = "ca.key", "ca.crt", "tls.key", "tls.crt"


class TlsError(Exception):
    """The certificates cannot be kept; the message says what to do."""


class SecretStore(Protocol):
    """One Secret in the operator's own namespace."""

    async def read_secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Its data; None when it does not exist."""

    async def write_secret(self, namespace: str, name: str, data: Mapping[str, bytes]) -> None:
        """Set these keys of an existing Secret."""


@dataclass(frozen=True)
class Certificates:
    """PEM of the authority and of the serving certificate."""

    ca_key: bytes
    ca_cert: bytes
    key: bytes
    cert: bytes

    @classmethod
    def from_secret(cls, data: Mapping[str, bytes]) -> Certificates | None:
        """None for a Secret that is not filled yet."""
        found = [data.get(name, b"") for name in (CA_KEY, CA_CERT, SERVING_KEY, SERVING_CERT)]
        return cls(*found) if all(found) else None

    def to_secret(self) -> dict[str, bytes]:
        return {CA_KEY: self.ca_key, CA_CERT: self.ca_cert, SERVING_KEY: self.key, SERVING_CERT: self.cert}

    @property
    def ca_pem(self) -> str:
        """What pods verify the server with."""
        return self.ca_cert.decode()


def renewed(old: Certificates | None, hosts: Sequence[str], now: datetime) -> Certificates:
    """`old` itself while it serves `hosts` for long enough; else new ones, by the old authority where it still can."""
    if old is None or not _usable(old, now):
        return _issue(*_new_authority(now), hosts, now)
    cert = x509.load_pem_x509_certificate(old.cert)
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    served = {str(n.value) for n in names}
    if served == set(hosts) and cert.not_valid_after_utc - now > timedelta(days=SERVING_RENEW_DAYS):
        return old
    return _issue(old.ca_key, old.ca_cert, hosts, now)


async def ensure(secrets: SecretStore, namespace: str, name: str, hosts: Sequence[str]) -> Certificates:
    """The certificates from the Secret, made or renewed when it must be.

    Raises:
        TlsError: when the Secret does not exist. The chart makes it, empty, so that the operator needs no right to
            create secrets.
    """
    data = await secrets.read_secret(namespace, name)
    if data is None:
        raise TlsError(
            f"Secret {namespace}/{name} does not exist: it comes with the chart; run helm upgrade,"
            f" or kubectl -n {namespace} create secret generic {name}"
        )
    old = Certificates.from_secret(data)
    new = renewed(old, hosts, datetime.now(UTC))
    if new is not old:
        await secrets.write_secret(namespace, name, new.to_secret())
    return new


def load_into(context: ssl.SSLContext, certificates: Certificates) -> None:
    """Serve this certificate to connections from now on."""
    with tempfile.TemporaryDirectory() as folder:  # ssl reads files only; mode 0700
        cert, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        cert.write_bytes(certificates.cert + certificates.ca_cert)
        key.write_bytes(certificates.key)
        context.load_cert_chain(cert, key)


def server_context(certificates: Certificates) -> ssl.SSLContext:
    """TLS 1.2 or newer; `load_into` the same context renews the certificate without a restart."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_into(context, certificates)
    return context


def _usable(old: Certificates, now: datetime) -> bool:
    """Whether the authority can sign: parts parse and belong together, and it lives longer than any run."""
    try:
        ca = x509.load_pem_x509_certificate(old.ca_cert)
        cert = x509.load_pem_x509_certificate(old.cert)
        cert.verify_directly_issued_by(ca)
        for key, owner in ((old.ca_key, ca), (old.key, cert)):
            if serialization.load_pem_private_key(key, None).public_key() != owner.public_key():
                return False
    except Exception:  # whatever a damaged Secret makes the parser raise: new ones mend it
        return False
    return ca.not_valid_after_utc - now > timedelta(days=AUTHORITY_RENEW_DAYS)


def _new_authority(now: datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial number in the name keeps an old and a new authority apart for clients that know both.
    name = _name(f"hone progress authority {now:%Y-%m-%dT%H:%M:%SZ}")
    builder = (
        _builder(name, key.public_key(), now, AUTHORITY_DAYS)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _pem(key), builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _issue(ca_key_pem: bytes, ca_pem: bytes, hosts: Sequence[str], now: datetime) -> Certificates:
    ca, ca_key = x509.load_pem_x509_certificate(ca_pem), serialization.load_pem_private_key(ca_key_pem, None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name("hone progress"), key.public_key(), now, SERVING_DAYS)
        .issuer_name(ca.subject)
        .add_extension(x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    cert = builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return Certificates(ca_key_pem, ca_pem, _pem(key), cert)


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
