"""`python -m hone_trainer sign`: says of each artifact where it comes from, and signs all of it.

The statement is made from the operator's record of the run and not by the run itself: what a run did cannot change it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hone_api.failures import FailureCode
from hone_api.manifest import MANIFEST, PROVENANCE
from hone_api.plan import ArtifactInput, SignPlan
from hone_api.report import SignResult
from hone_trainer.errors import StoreError
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import hub, manifest, signature

KEY = "private-key.pem"
STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"


def run(plan: SignPlan) -> SignResult:
    """Sign the plan's artifacts, or without a key compare the signatures that they have.

    Raises:
        StoreError: ManifestMismatch, SignatureMissing, SignatureInvalid, SigningKeyUnusable.
        SourceError: SecretNotFound, SecretKeyNotFound.
    """
    if plan.key_path is not None:
        hub.secret_key(plan.key_path, KEY)
    with TaskProgress(f"sign {plan.name}") as progress:
        for artifact in plan.artifacts:
            key = _signed(artifact, plan)
            progress.say(f"{artifact.path}: signed by {key}")
    return SignResult(key=key)


def _signed(artifact: ArtifactInput, plan: SignPlan) -> str:
    if plan.key_path is None:
        return signature.verify(artifact.path, artifact.digest, artifact.trusted or [])
    root = Path(artifact.path)
    if manifest.digest_of(root) != artifact.digest:
        raise StoreError(FailureCode.MANIFEST_MISMATCH, f"{root}: {MANIFEST} is not the recorded one: it is not signed")
    text = statement(artifact, plan.provenance)
    if not (root / PROVENANCE).is_file() or (root / PROVENANCE).read_bytes() != text:
        manifest.write_atomically(root / PROVENANCE, text)
    return signature.write(root, artifact.digest, Path(plan.key_path) / KEY, artifact.trusted or [])


def statement(artifact: ArtifactInput, predicate: dict[str, Any]) -> bytes:
    """An in-toto statement about all files of the folder; the same bytes for the same record."""
    files = {entry.path: entry.sha256 for entry in manifest.read_entries(artifact.path)}
    files[MANIFEST] = artifact.digest.removeprefix("sha256:")
    subject = [{"name": path, "digest": {"sha256": digest}} for path, digest in sorted(files.items())]
    body = {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
    return json.dumps(body, indent=1, sort_keys=True).encode() + b"\n"
