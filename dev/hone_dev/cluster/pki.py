"""Random credentials for one cluster: a certificate authority, certificates, a key for service accounts."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hone_operator.progress.tls import alternative_name, pem_of

_LIFE = timedelta(days=365)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read. Whoever reads meanwhile finds the one before, or the whole new one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_bytes(content)
    fresh.replace(path)


def _name(common_name: str, organization: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(parts)


class Authority:
    """A certificate authority whose files are in `folder`; existing ones are reused."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.certificate, self.private_key = folder / "ca.crt", folder / "ca.key"
        if not (self.certificate.exists() and self.private_key.exists()):
            self._create()
        self._ca = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        key = serialization.load_pem_private_key(self.private_key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    def _create(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("hone-dev", "")
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = _builder(name, name, key).add_extension(x509.BasicConstraints(True, None), critical=True)
        certificate = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
        write_private(self.private_key, pem_of(key))
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, file: str, common_name: str, organization: str = "", hosts: tuple[str, ...] = ()
    ) -> tuple[Path, Path]:
        """Return certificate and key `file`.{crt,key}, valid for client and server use; reused if there."""
        certificate_path, key_path = self.folder / f"{file}.crt", self.folder / f"{file}.key"
        if certificate_path.exists() and key_path.exists():
            return certificate_path, key_path
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = _builder(_name(common_name, organization), self._ca.subject, key)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([alternative_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        write_private(key_path, pem_of(key))
        certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return certificate_path, key_path

    def signing_key(self, file: str) -> tuple[Path, Path]:
        """Return the public and private key files that sign service account tokens."""
        public_path, key_path = self.folder / f"{file}.pub", self.folder / f"{file}.key"
        if not (public_path.exists() and key_path.exists()):
            key = ec.generate_private_key(ec.SECP256R1())
            write_private(key_path, pem_of(key))
            form = serialization.PublicFormat.SubjectPublicKeyInfo
            public_path.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
        return public_path, key_path

    def kubeconfig(self, path: Path, server: str, common_name: str, organization: str = "") -> Path:
        """Write a self-contained kubeconfig, mode 0600, for that user; reused if there."""
        if path.exists():
            return path
        pair = self.issue(common_name.replace(":", "-"), common_name, organization)

        def encode(file: Path) -> str:
            return base64.b64encode(file.read_bytes()).decode()

        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "hone",
                    "cluster": {"server": server, "certificate-authority-data": encode(self.certificate)},
                }
            ],
            "users": [
                {
                    "name": common_name,
                    "user": {"client-certificate-data": encode(pair[0]), "client-key-data": encode(pair[1])},
                }
            ],
            "contexts": [{"name": "hone", "context": {"cluster": "hone", "user": common_name}}],
            "current-context": "hone",
        }
        write_private(path, yaml.safe_dump(document, sort_keys=False).encode())
        return path


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFE)
    )
