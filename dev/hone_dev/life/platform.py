"""What the platform team does once: a key that signs, a chart that asks for signatures and two people."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hone_dev.cluster import pki
from hone_dev.demo.command import RELEASE, SYSTEM
from hone_dev.demo.targets import Target
from hone_dev.life.places import secret
from hone_dev.tools import paths
from hone_dev.tools.console import HoneDevError
from hone_dev.tools.shell import run
from hone_trainer.errors import TrainerError
from hone_trainer.store import manifest

EXAMPLE = paths.SOURCE / "examples" / "13-model-life"
VALUES = EXAMPLE / "platform" / "values.yaml"
SIGNING, PRIVATE, PUBLIC = "platform-signing-key", "private-key.pem", "public-key.pem"
"""The Secret, as the values name it, and the files of a pair of keys."""


def make_key(folder: Path) -> Path:
    """The folder with a new pair of keys, as the page "Sign models" has them made."""
    folder.mkdir(parents=True)
    private = ec.generate_private_key(ec.SECP256R1())
    encoding = serialization.Encoding.PEM
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pki.write_private(folder / PRIVATE, private.private_bytes(encoding, pkcs8, plain))
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / PUBLIC).write_bytes(private.public_key().public_bytes(encoding, info))
    return folder


def signing_secret(key: Path) -> dict[str, Any]:
    """The Secret with the private key."""
    return secret(SIGNING, {PRIVATE: (key / PRIVATE).read_text()})


@contextmanager
def policies(target: Target, key: Path) -> Iterator[None]:
    """The chart with the example's values and this key, until the block ends."""
    chart, where = paths.SOURCE / "charts" / "hone", ("--namespace", SYSTEM, "--wait", "--timeout", "10m")
    public = f"signing.publicKeys[0]={key / PUBLIC}"
    target.helm("upgrade", RELEASE, chart, "--reuse-values", "--values", VALUES, "--set-file", public, *where)
    try:
        yield
    finally:
        target.helm("rollback", RELEASE, *where)


def verify(folder: Path, version: Mapping[str, Any], key: Path) -> None:
    """Compare every byte with the record, as Hone does and as whoever has only the public key.

    Raises:
        HoneDevError: a file is not that of the ModelVersion, or its signature is not by this key.
    """
    try:
        manifest.verify(folder, version["spec"]["artifacts"][0]["digest"])
    except TrainerError as error:
        raise HoneDevError(str(error)) from error
    signature = ("--signature", folder / "model.sig", "--public_key", key / PUBLIC)
    run(sys.executable, "-m", "model_signing", "verify", "key", folder, *signature)
