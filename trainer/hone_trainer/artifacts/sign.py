"""`python -m hone_trainer sign`: says of each artifact where it comes from, and signs all of it.

What is said is the operator's record of the run, see `describe`.
"""

from __future__ import annotations

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


def run(plan: SignPlan) -> SignResult:
    """Sign the plan's artifacts, or without a key compare the signatures that they have.

    Raises:
        StoreError: ManifestMismatch, SignatureMissing, SignatureInvalid, SigningKeyUnusable; without a key
            SigningIdentityRefused, SigningServerUnreachable, SigningTrustUnusable.
        SourceError: SecretNotFound, SecretKeyNotFound.
    """
    key = _key(plan)
    with TaskProgress(f"sign {plan.name}") as progress:
        for artifact in plan.artifacts:
            who = _signed(artifact, plan, key)
            name = who if isinstance(who, str) else f"{who.subject} of {who.issuer}"
            progress.log(f"{artifact.path}: signed by {name}")
    if isinstance(who, str):
        return SignResult(key=who)
    return SignResult(identity=who, trust=_keyless(plan).trust)


def _key(plan: SignPlan) -> Path | Signer | None:
    """What signs: a file, or an identity; None: nothing is signed here."""
    if plan.token_path is not None:
        from hone_trainer.store import identity

        return identity.IdentitySigner(_keyless(plan), Path(plan.token_path))
    if plan.key_path is None:
        return None
    hub.secret_key(plan.key_path, KEY)
    return Path(plan.key_path) / KEY


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
