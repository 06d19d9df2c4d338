"""`python -m hone_trainer sign`: says of each artifact where it comes from, and signs all of it.

What is said is the operator's record of the run, see `describe`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hone_api.blocks.signing import Identity, Keyless
from hone_api.contract.manifest import MANIFEST
from hone_api.contract.report import SignResult
from hone_api.plan import ArtifactInput, SignPlan
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts import describe
from hone_trainer.errors import StoreError
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import hub, manifest, signature

if TYPE_CHECKING:
    from model_signing._signing.signing import Signer

KEY = "private-key.pem"
URI, PIN = "pkcs11-uri", "pin"


def run(plan: SignPlan) -> SignResult:
    """Sign the plan's artifacts, or without a key compare the signatures that they have.

    Raises:
        StoreError: ManifestMismatch, SignatureMissing, SignatureInvalid, SigningKeyUnusable, and with a token
            SigningModuleUnusable, SigningTokenUnreachable, SigningPinRefused; without a key SigningIdentityRefused,
            SigningServerUnreachable, SigningTrustUnusable.
        SourceError: SecretNotFound, SecretKeyNotFound.
    """
    with _key(plan) as key, TaskProgress(f"sign {plan.name}") as progress:
        for artifact in plan.artifacts:
            who = _signed(artifact, plan, key)
            name = who if isinstance(who, str) else f"{who.subject} of {who.issuer}"
            progress.log(f"{artifact.path}: signed by {name}")
    if isinstance(who, str):
        return SignResult(key=who)
    return SignResult(identity=who, trust=_keyless(plan).trust)


@contextmanager
def _key(plan: SignPlan) -> Iterator[Path | Signer | None]:
    """What signs: a file, or a token as long as the block runs; None: nothing is signed here."""
    if plan.token_path is not None:
        from hone_trainer.store import identity

        yield identity.IdentitySigner(_keyless(plan), Path(plan.token_path))
    elif plan.key_path is None:
        yield None
    elif plan.pkcs11_module is None:
        hub.secret_key(plan.key_path, KEY)
        yield Path(plan.key_path) / KEY
    else:
        from hone_trainer.store import token_key

        uri, pin = (hub.secret_key(plan.key_path, name) for name in (URI, PIN))
        with token_key.opened(plan.pkcs11_module, uri, pin) as signer:
            yield signer


def _keyless(plan: SignPlan) -> Keyless:
    """The identities that all artifacts of the plan share."""
    return next(each for each in plan.artifacts[0].trusted or () if isinstance(each, Keyless))


def _signed(artifact: ArtifactInput, plan: SignPlan, key: Path | Signer | None) -> str | Identity:
    if key is None:
        return signature.verify(artifact.path, artifact.digest, artifact.trusted or [])
    root = Path(artifact.path)
    if manifest.digest_of(root) != artifact.digest:
        raise StoreError(FailureCode.MANIFEST_MISMATCH, f"{root}: {MANIFEST} is not the recorded one: it is not signed")
    for name, text in describe.documents(artifact, plan.provenance, plan.bom).items():
        if not (root / name).is_file() or (root / name).read_bytes() != text:
            manifest.write_atomically(root / name, text)
    return signature.write(root, artifact.digest, key, artifact.trusted or [])
