"""Certificate authority and serving certificate of the progress server, created at run time and kept in a Secret.

The authority outlives every run: pods get its certificate with their plan. The serving certificate is renewed often. A
new authority has a new key and the old name. The server also sends certificates by its predecessors, so a pod that
knows
only one of them still trusts it. (A certificate whose subject equals its issuer does not count toward the path length,
which authorities limit to zero.)
"""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS, AUTHORITY_RENEW_DAYS = 3650, 365
SERVING_DAYS, SERVING_RENEW_DAYS = 90, 30
CLOCK_SKEW = timedelta(days=1)
"""The clock of a node may be so far behind: its pods report all the same."""
CA_KEY, CA_CERT, SERVING_KEY, SERVING_CERT = "ca.key", "ca.crt", "tls.key", "tls.crt"
CROSS_CERTS = "ca-cross.crt"
ROTATE, ROTATED = "rotate", "rotated"
"""Writing another text into the first key requests a new authority; the second key has the last text that took
effect."""


class TlsError(Exception):
    """The certificates cannot be stored; the message says what to do."""


class SecretStore(Protocol):
    """One Secret in the operator's own namespace."""

    async def read_secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Its data; None if it does not exist."""

    async def write_secret(self, namespace: str, name: str, data: Mapping[str, bytes]) -> None:
        """Set these keys of an existing Secret."""


@dataclass(frozen=True)
class Certificates:
    """PEM of the authority and of the serving certificate."""

    ca_key: bytes
    ca_cert: bytes
    key: bytes
    cert: bytes
    cross: bytes = b""
    """The authority's key signed by the authority before it, that one's key by the one before, and so on."""
    rotated: bytes = b""

    @classmethod
    def from_secret(cls, data: Mapping[str, bytes]) -> Certificates | None:
        """Parse the Secret's data; None if it is not filled yet."""
        parts = [data.get(name, b"") for name in (CA_KEY, CA_CERT, SERVING_KEY, SERVING_CERT)]
        if not all(parts):
            return None
        return replace(cls(*parts), cross=data.get(CROSS_CERTS, b""), rotated=data.get(ROTATED, b""))

    def to_secret(self) -> dict[str, bytes]:
        return {
            CA_KEY: self.ca_key,
            CA_CERT: self.ca_cert,
            SERVING_KEY: self.key,
            SERVING_CERT: self.cert,
            CROSS_CERTS: self.cross,
            ROTATED: self.rotated,
        }

    def ends(self) -> dict[str, float]:
        """When each certificate expires, Unix time."""
        certificates = {"authority": self.ca_cert, "serving": self.cert}
        return {
            n: x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp() for n, pem in certificates.items()
        }

    @property
    def ca_pem(self) -> str:
        """What pods verify the server with."""
        return self.ca_cert.decode()


def renew(old: Certificates | None, hosts: Sequence[str], now: datetime, rotate: bytes | None = None) -> Certificates:
    """`old` itself while it serves `hosts` for long enough; else new certificates, signed by the old authority if it
    still can.

    A new text in `rotate` creates a new authority, which the old one vouches for.
    """
    if old is None or not _usable(old, now):
        return _issue(Certificates(*_new_authority(now), b"", b"", rotated=rotate or b""), hosts, now)
    if _ends_soon(old.ca_cert, now, AUTHORITY_RENEW_DAYS) or (rotate and rotate != old.rotated):
        return _issue(_succeeded(old, now, rotate or old.rotated), hosts, now)
    names = x509.load_pem_x509_certificate(old.cert).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    if {str(n.value) for n in names.value} == set(hosts) and not _ends_soon(old.cert, now, SERVING_RENEW_DAYS):
        return old
    return _issue(old, hosts, now)


async def ensure(
    secrets: SecretStore, namespace: str, name: str, hosts: Sequence[str], served: Certificates | None = None
) -> Certificates:
    """The certificates from the Secret, created or renewed if necessary.

    Args:
        secrets: access to the Secret.
        namespace: the operator's own.
        name: of the Secret.
        hosts: names under which pods reach the server.
        served: what the server has used so far. If the Secret was recreated, it gets these back, because pods trust
            them.

    Raises:
        TlsError: the Secret does not exist. The chart creates it empty, so that the operator needs no right to create
            secrets.
    """
    data = await secrets.read_secret(namespace, name)
    if data is None:
        raise TlsError(
            f"Secret {namespace}/{name} does not exist: it comes with the chart; run helm upgrade,"
            f" or kubectl -n {namespace} create secret generic {name}"
        )
    stored = Certificates.from_secret(data)
    new = renew(stored or served, hosts, datetime.now(UTC), data.get(ROTATE))
    if new is not stored:
        await secrets.write_secret(namespace, name, new.to_secret())
    return new


def load_into(context: ssl.SSLContext, certificates: Certificates) -> None:
    """Use this certificate for connections from now on."""
    with tempfile.TemporaryDirectory() as folder:  # ssl reads files only; mode 0700
        cert, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        cert.write_bytes(certificates.cert + certificates.cross)
        key.write_bytes(certificates.key)
        context.load_cert_chain(cert, key)


def server_context(certificates: Certificates) -> ssl.SSLContext:
    """TLS 1.2 or newer; `load_into` the same context renews the certificate without a restart."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_into(context, certificates)
    return context


def _usable(old: Certificates, now: datetime) -> bool:
    """Whether the authority can sign: its parts parse and match, and it has not expired."""
    try:
        ca = x509.load_pem_x509_certificate(old.ca_cert)
        cert = x509.load_pem_x509_certificate(old.cert)
        cert.verify_directly_issued_by(ca)
        for key, owner in ((old.ca_key, ca), (old.key, cert)):
            if serialization.load_pem_private_key(key, None).public_key() != owner.public_key():
                return False
        if old.cross:
            x509.load_pem_x509_certificates(old.cross)
    except Exception:  # a damaged Secret can raise anything here; new certificates replace it
        return False
    return ca.not_valid_after_utc > now


def _ends_soon(pem: bytes, now: datetime, days: int) -> bool:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc - now <= timedelta(days=days)


def _new_authority(now: datetime) -> tuple[bytes, bytes]:
    """(key, certificate) of an authority that nobody trusts yet."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"hone progress authority {now:%Y-%m-%dT%H:%M:%SZ}")
    return pem_of(key), _authority(name, key.public_key(), now, now + timedelta(days=AUTHORITY_DAYS), key)


def _succeeded(old: Certificates, now: datetime, rotated: bytes) -> Certificates:
    """A new authority with the same name, and the certificates that link it to its predecessors; no serving certificate
    yet."""
    ca, ca_key = _load_authority(old)
    key = ec.generate_private_key(ec.SECP256R1())
    cert = _authority(ca.subject, key.public_key(), now, now + timedelta(days=AUTHORITY_DAYS), key)
    cross = _authority(ca.subject, key.public_key(), now, ca.not_valid_after_utc, ca_key)
    before = x509.load_pem_x509_certificates(old.cross) if old.cross else []
    kept = [c.public_bytes(serialization.Encoding.PEM) for c in before if c.not_valid_after_utc > now]
    return Certificates(pem_of(key), cert, b"", b"", cross + b"".join(kept), rotated)


def _load_authority(of: Certificates) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = serialization.load_pem_private_key(of.ca_key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return x509.load_pem_x509_certificate(of.ca_cert), key


def _authority(
    name: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime, signer: ec.EllipticCurvePrivateKey
) -> bytes:
    """PEM of the authority's certificate, signed by itself or by the previous authority, which has the same name."""
    builder = (
        _builder(name, key, now, end)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _issue(authority: Certificates, hosts: Sequence[str], now: datetime) -> Certificates:
    """The same authority with a new serving certificate."""
    ca, ca_key = _load_authority(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name("hone progress"), key.public_key(), now, now + timedelta(days=SERVING_DAYS))
        .issuer_name(ca.subject)
        .add_extension(x509.SubjectAlternativeName([alternative_name(h) for h in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    cert = builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return replace(authority, key=pem_of(key), cert=cert)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(end)
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


def alternative_name(host: str) -> x509.GeneralName:
    """A host as a certificate has it: an address or a name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
