"""A token of SoftHSM with keys, as an HSM would have them."""

from __future__ import annotations

from pathlib import Path

import pkcs11
import pytest
from cryptography.hazmat.primitives import serialization
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

from hone_api.plan import ArtifactInput, SignPlan
from hone_dev.tools import packages
from hone_dev.tools.shell import run
from hone_trainer.artifacts import sign

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN, LABEL = "839271-pin", "hone signing"
URI = "pkcs11:token=hone%20signing;object=models;type=private"


class SoftToken:
    """The token, and a mounted Secret that names a key of it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        packages.ensure(packages.TOKENS)
        (folder / "tokens").mkdir(parents=True)
        (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        self.secret = folder / "secret"
        self.secret.mkdir()
        self.add(LABEL)
        self.public: dict[str, str] = {}
        self.name()

    def add(self, label: str) -> None:
        """Another token."""
        run("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "1111", "--pin", PIN)

    def generate(self, label: str, curve: str) -> None:
        """A pair of keys of this curve, whose public half is then `public[label]`."""
        library = pkcs11.lib(MODULE)
        with library.get_token(token_label=LABEL).open(user_pin=PIN, rw=True) as session:
            curve_of = {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
            domain = session.create_domain_parameters(KeyType.EC, curve_of, local=True)
            public, _ = domain.generate_keypair(label=label, id=label.encode(), store=True)
            key = serialization.load_der_public_key(encode_ec_public_key(public))
            pem, info = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            self.public[label] = key.public_bytes(pem, info).decode()
        pkcs11.unload(MODULE)

    def generate_rsa(self, label: str) -> None:
        """A pair of keys that model signing has no use for."""
        library = pkcs11.lib(MODULE)
        with library.get_token(token_label=LABEL).open(user_pin=PIN, rw=True) as session:
            session.generate_keypair(KeyType.RSA, 2048, label=label, store=True)
        pkcs11.unload(MODULE)

    def name(self, uri: str = URI, pin: str = PIN) -> None:
        """Write the Secret."""
        (self.secret / sign.URI).write_text(f"{uri}\n")
        (self.secret / sign.PIN).write_text(f"{pin}\n")

    def sign(self, folder: Path, digest: str, trusted: str, module: str = MODULE) -> str:
        """As the Job does; returns the key's name."""
        artifact = ArtifactInput(path=str(folder), digest=digest, trusted=[trusted])
        plan = SignPlan(
            name="tutor-v3",
            artifacts=[artifact],
            key_path=str(self.secret),
            pkcs11_module=module,
            provenance={},
        )
        return sign.run(plan).key
