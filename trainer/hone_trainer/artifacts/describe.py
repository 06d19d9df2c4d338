"""What says where an artifact comes from: an in-toto statement and a CycloneDX bill of materials.

Both are made from the operator's record of the run and not by the run itself: what a run did cannot change them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from hone_api.contract.manifest import BOM, MANIFEST, PROVENANCE
from hone_api.plan import ArtifactInput
from hone_trainer.store import manifest

STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://hone.dev/ml-bom")


def documents(
    artifact: ArtifactInput, provenance: Mapping[str, Any], bom: Mapping[str, Any] | None
) -> dict[str, bytes]:
    """The documents by file name; the same bytes for the same record and the same files.

    Args:
        artifact: a folder with this manifest.
        provenance: SLSA provenance 1.0.
        bom: a CycloneDX document about the model; none: no bill is made.
    """
    files = digests(artifact)
    texts = {PROVENANCE: statement(files, provenance)}
    return texts if bom is None else {**texts, BOM: bill(files, bom)}


def digests(artifact: ArtifactInput) -> dict[str, str]:
    """SHA-256 by path of the files that the manifest lists, and of the manifest."""
    entries = {entry.path: entry.sha256 for entry in manifest.read_entries(artifact.path)}
    return {**entries, MANIFEST: artifact.digest.removeprefix("sha256:")}


def statement(subjects: Mapping[str, str], predicate: Mapping[str, Any]) -> bytes:
    """An in-toto statement about files or images.

    Args:
        subjects: SHA-256 by name.
        predicate: SLSA provenance 1.0.
    """
    subject = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())]
    return _encoded({"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate})


def bill(files: Mapping[str, str], bom: Mapping[str, Any]) -> bytes:
    """The bill of materials with the files of one artifact.

    Args:
        files: SHA-256 by path.
        bom: a CycloneDX document about the model.
    """
    metadata = bom["metadata"]
    parts = [
        {"type": "file", "name": path, "hashes": [{"alg": "SHA-256", "content": digest}]}
        for path, digest in sorted(files.items())
    ]
    component = {**metadata["component"], "components": parts}
    serial = uuid.uuid5(_NAMESPACE, json.dumps([bom, sorted(files.items())], sort_keys=True))
    return _encoded({**bom, "serialNumber": f"urn:uuid:{serial}", "metadata": {**metadata, "component": component}})


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, indent=1, sort_keys=True).encode() + b"\n"
