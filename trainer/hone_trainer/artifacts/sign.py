"""`python -m hone_trainer sign`: says of each artifact where it comes from, and signs all of it.

What is said is the operator's record of the run, see `describe`.
"""

from __future__ import annotations

from pathlib import Path

from hone_api.contract.manifest import MANIFEST
from hone_api.contract.report import SignResult
from hone_api.plan import ArtifactInput, SignPlan
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts import describe
from hone_trainer.errors import StoreError
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import hub, manifest, signature

KEY = "private-key.pem"


def run(plan: SignPlan) -> SignResult:
    """Sign the plan's artifacts, or without a key compare the signatures that they have.

    Raises:
        StoreError: ManifestMismatch, SignatureMissing, SignatureInvalid, SigningKeyUnusable.
        SourceError: SecretNotFound, SecretKeyNotFound.
    """
    key = _key(plan)
    with TaskProgress(f"sign {plan.name}") as progress:
        for artifact in plan.artifacts:
            who = _signed(artifact, plan, key)
            progress.log(f"{artifact.path}: signed by {who}")
    return SignResult(key=who)


def _key(plan: SignPlan) -> Path | None:
    """The file that signs; None: nothing is signed here."""
    if plan.key_path is None:
        return None
    hub.secret_key(plan.key_path, KEY)
    return Path(plan.key_path) / KEY


def _signed(artifact: ArtifactInput, plan: SignPlan, key: Path | None) -> str:
    if key is None:
        return signature.verify(artifact.path, artifact.digest, artifact.trusted or [])
    root = Path(artifact.path)
    if manifest.digest_of(root) != artifact.digest:
        raise StoreError(FailureCode.MANIFEST_MISMATCH, f"{root}: {MANIFEST} is not the recorded one: it is not signed")
    for name, text in describe.documents(artifact, plan.provenance, plan.bom).items():
        if not (root / name).is_file() or (root / name).read_bytes() != text:
            manifest.write_atomically(root / name, text)
    return signature.write(root, artifact.digest, key, artifact.trusted or [])
