"""A whole Sigstore on loopback: Fulcio, its log of certificates, Rekor, timestamps, and an issuer of tokens."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.servers import timestamps
from support.servers.token_issuer import AUDIENCE, TokenIssuer

from hone_dev.cluster import binaries
from hone_dev.cluster.objectstore import free_port, running

_FORMAT = "application/vnd.dev.sigstore"
_SINCE = {"start": "2020-01-01T00:00:00Z"}


@dataclass(frozen=True)
class Sigstore:
    """Running servers."""

    issuer: TokenIssuer
    fulcio: str
    rekor: str
    timestamps: str
    root: dict[str, Any]
    """What a verifier trusts."""

    def trust_config(self, **services: str) -> str:
        """JSON of a ClientTrustConfig, with other addresses of services where given."""
        address = {"fulcio": self.fulcio, "rekor": self.rekor, "timestamps": self.timestamps, **services}
        config = {
            "mediaType": f"{_FORMAT}.signingconfig.v0.2+json",
            "caUrls": [_service(address["fulcio"], 1)],
            "rekorTlogUrls": [_service(address["rekor"], 2)],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": [_service(address["timestamps"], 1)],
            "tsaConfig": {"selector": "ANY"},
        }
        kind = f"{_FORMAT}.clienttrustconfig.v0.1+json"
        return json.dumps({"mediaType": kind, "trustedRoot": self.root, "signingConfig": config})


@contextmanager
def serve(folder: Path, issuer: TokenIssuer) -> Iterator[Sigstore]:
    """Start all servers, with their files in `folder`; they accept tokens of the issuer until the block ends."""
    log_port, log_key = free_port("127.0.0.1"), folder / "log.key"
    log_public = _key(log_key)
    log_url = f"http://127.0.0.1:{log_port}"
    with ExitStack() as stack:
        fulcio = stack.enter_context(_fulcio(folder / "fulcio", issuer, log_url))
        bundle = requests.get(f"{fulcio}/api/v2/trustBundle", timeout=10).json()
        (certificate,) = bundle["chains"][0]["certificates"]
        roots = folder / "roots.pem"
        roots.write_text(certificate)
        stack.enter_context(_certificate_log(folder / "log", log_url, log_key, roots))
        rekor, rekor_public = stack.enter_context(_rekor(folder / "rekor"))
        stamps = stack.enter_context(timestamps.serve(folder / "timestamps"))
        authority = x509.load_pem_x509_certificate(certificate.encode())
        root = {
            "mediaType": f"{_FORMAT}.trustedroot+json;version=0.1",
            "tlogs": [_log(rekor, rekor_public)],
            "certificateAuthorities": [_authority(fulcio, authority)],
            "ctlogs": [_log(log_url, log_public)],
            "timestampAuthorities": [_authority(stamps.url, *stamps.chain)],
        }
        yield Sigstore(issuer, fulcio, rekor, stamps.url, root)


@contextmanager
def _fulcio(folder: Path, issuer: TokenIssuer, log_url: str) -> Iterator[str]:
    folder.mkdir(parents=True)
    trusted = {"IssuerURL": issuer.url, "ClientID": AUDIENCE, "Type": "kubernetes"}
    (folder / "config.json").write_text(json.dumps({"OIDCIssuers": {issuer.url: trusted}}))
    url, grpc = (f"127.0.0.1:{free_port('127.0.0.1')}" for _ in range(2))
    argv = [
        *(str(binaries.fulcio()), "-address", url, "-grpc-address", grpc),
        *("-config", str(folder / "config.json"), "-ct-log-url", log_url),
    ]
    with running("Fulcio", argv, f"http://{url}", folder, {}):
        yield f"http://{url}"


@contextmanager
def _certificate_log(folder: Path, url: str, key: Path, roots: Path) -> Iterator[None]:
    (folder / "storage").mkdir(parents=True)
    argv = [
        *(str(binaries.program("tesseract")), "--origin", "log.test", "--http_endpoint", url.removeprefix("http://")),
        *("--storage_dir", str(folder / "storage"), "--private_key", str(key), "--roots_pem_file", str(roots)),
        *("--checkpoint_interval", "200ms", "--batch_max_age", "20ms"),
    ]
    # Its metrics would go to a collector on this machine.
    with running("the log of certificates", argv, url, folder, {"OTEL_SDK_DISABLED": "true"}):
        yield


@contextmanager
def _rekor(folder: Path) -> Iterator[tuple[str, bytes]]:
    (folder / "storage").mkdir(parents=True)
    public = _key(folder / "signer.key")
    port, grpc, metrics = (str(free_port("127.0.0.1")) for _ in range(3))
    argv = [
        *(str(binaries.program("rekor")), "serve", "--hostname", "rekor.test", "--storage-dir", f"{folder}/storage"),
        *("--signer-filepath", str(folder / "signer.key"), "--http-port", port, "--grpc-port", grpc),
        *("--http-metrics-port", metrics, "--checkpoint-interval", "200ms", "--batch-max-age", "20ms"),
    ]
    url = f"http://127.0.0.1:{port}"
    with running("Rekor", argv, url, folder, {}):
        yield url, public


def _key(file: Path) -> bytes:
    """Write a new private key; DER of its public half."""
    key = ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.TraditionalOpenSSL
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _service(url: str, version: int) -> dict[str, Any]:
    return {"url": url, "majorApiVersion": version, "validFor": _SINCE, "operator": "test"}


def _log(url: str, public: bytes) -> dict[str, Any]:
    key = {"rawBytes": _text(public), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": _SINCE}
    name = {"keyId": _text(hashlib.sha256(public).digest())}
    return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": key, "logId": name}


def _authority(url: str, *chain: x509.Certificate) -> dict[str, Any]:
    certificates = [{"rawBytes": _text(each.public_bytes(serialization.Encoding.DER))} for each in chain]
    subject = {"organization": "test", "commonName": "test"}
    return {"subject": subject, "uri": url, "certChain": {"certificates": certificates}, "validFor": _SINCE}


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
