"""A key that signs models, and its use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hone_api.plan import ArtifactInput, SignPlan
from hone_trainer.artifacts import sign


class Key:
    """A mounted Secret with a private key, and its public key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        private = ec.generate_private_key(ec.SECP256R1())
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        text = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        (folder / sign.KEY).write_bytes(text)
        self.public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(
        self, folder: Path, digest: str, *trusted: Key, bom: dict[str, Any] | None = None, **predicate: object
    ) -> str:
        """As the Job does; returns the key's name."""
        pems = [key.public for key in trusted or (self,)]
        artifact = ArtifactInput(path=str(folder), digest=digest, trusted=pems)
        plan = SignPlan(name="tutor-v3", artifacts=[artifact], key_path=str(self.folder), provenance=predicate, bom=bom)
        return sign.run(plan).key
