"""Models that a ServiceAccount signs without a key, and how they are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from support.servers.keyless_servers import Sigstore

from hone_api.blocks.signing import Identity, Keyless
from hone_api.contract.report import SignResult
from hone_api.plan import ArtifactInput, ModelInput, SignPlan, Trusted
from hone_trainer.artifacts import sign
from hone_trainer.artifacts.delivery.original import Original
from hone_trainer.errors import StoreError
from hone_trainer.store import signature

ACCOUNT = "hone-signer"
SUBJECT = "https://kubernetes.io/namespaces/team/serviceaccounts/"


class Signed(NamedTuple):
    """A folder that was signed, its digest, and what the Job reports."""

    folder: Path
    digest: str
    result: SignResult


def keyless(servers: Sigstore, *accounts: str, **services: str) -> Keyless:
    """What counts: certificates of these servers for these ServiceAccounts, by default for ours."""
    listed = [Identity(subject=SUBJECT + name, issuer=servers.issuer.url) for name in accounts or (ACCOUNT,)]
    return Keyless(trust_config=servers.trust_config(**services), identities=listed)


@dataclass(frozen=True)
class Pod:
    """A Job that signs: its folder with a token."""

    token: Path
    trusted: Keyless

    @classmethod
    def of(cls, folder: Path, trusted: Keyless, token: str) -> Pod:
        (file := folder / "token").write_text(token)
        return cls(file, trusted)

    def sign(self, model: Path, digest: str) -> SignResult:
        # As it is read from the plan's file.
        artifact = ArtifactInput(path=str(model), digest=digest, trusted=[self.trusted])
        plan = SignPlan(name="tutor-v3", artifacts=[artifact], token_path=str(self.token), provenance={})
        return sign.run(SignPlan.model_validate_json(plan.model_dump_json(by_alias=True)))


def refusal(folder: Path, digest: str, *trusted: Trusted) -> str:
    """The code with which the start of a run and a delivery refuse the folder."""
    model = ModelInput(path=str(folder), digest=digest, trusted=list(trusted))
    with pytest.raises(StoreError) as start:
        signature.compare(ModelInput.model_validate_json(model.model_dump_json(by_alias=True)))
    with pytest.raises(StoreError) as delivery:
        Original.of(folder, digest, list(trusted))
    assert start.value.code == delivery.value.code
    return str(start.value.code)


def flip(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = bytearray((folder / name).read_bytes())
        text[len(text) // 2] ^= 1
        (folder / name).write_bytes(text)

    return change
