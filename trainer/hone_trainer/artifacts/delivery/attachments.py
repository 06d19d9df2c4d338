"""Documents about an image, attached to it (OCI 1.1): a registry lists them under the digest of the image.

A registry without the referrers API, such as CNCF Distribution 2, gets the list as the tag `sha256-<digest>`, where
clients look for it then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.delivery.registry import INDEX_TYPE, MANIFEST_TYPE, ImageRepository
from hone_trainer.errors import TrainerError

EMPTY_TYPE, EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
_TRIES = 5
_TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True)
class Attachment:
    """A document: its media type, file name and text."""

    media_type: str
    name: str
    text: bytes


def attach(repository: ImageRepository, subject: Mapping[str, object], documents: Sequence[Attachment]) -> None:
    """Attach the documents to the image; what is attached already stays.

    Args:
        subject: descriptor of the image's manifest, which need not be there yet.

    Raises:
        TrainerError: Destination…, DeliveryDamaged.
    """
    unlisted = []
    for document in documents:
        manifest = _manifest(subject, document)
        for blob in (EMPTY, document.text):
            if repository.size_of(_digest(blob)) != len(blob):
                repository.upload(_digest(blob), len(blob), partial(iter, (blob,)))
        answer = repository.put_manifest(_digest(manifest), manifest)
        if not answer.get("OCI-Subject"):
            described = _descriptor(MANIFEST_TYPE, manifest)
            unlisted.append({**described, "artifactType": document.media_type, "annotations": {_TITLE: document.name}})
    if unlisted:
        _list(repository, str(subject["digest"]).replace(":", "-"), unlisted)


def _manifest(subject: Mapping[str, object], document: Attachment) -> bytes:
    layer = {**_descriptor(document.media_type, document.text), "annotations": {_TITLE: document.name}}
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": document.media_type,
        "config": _descriptor(EMPTY_TYPE, EMPTY),
        "layers": [layer],
        "subject": dict(subject),
        "annotations": {_TITLE: document.name},
    }
    return _encoded(body)


def _list(repository: ImageRepository, tag: str, own: Sequence[Mapping[str, Any]]) -> None:
    """Add to the list under the tag; entries of others, such as signatures, stay.

    A tag has no precondition, so whoever else attaches at the same moment can overwrite the list: it is read again, and
    what is missing is added again.
    """
    for _ in range(_TRIES):
        listed = _entries(repository, tag)
        digests = {entry.get("digest") for entry in listed}
        missing = [entry for entry in own if entry["digest"] not in digests]
        if not missing:
            return
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*listed, *missing]}
        repository.put_manifest(tag, _encoded(index), INDEX_TYPE)
    raise TrainerError(FailureCode.DELIVERY_DAMAGED, f"{repository}:{tag} lacks what was added to it {_TRIES} times")


def _entries(repository: ImageRepository, tag: str) -> list[dict[str, Any]]:
    """The list under the tag; empty where there is none yet."""
    stored = repository.manifest(tag, INDEX_TYPE)
    if stored is None:
        return []
    try:
        manifests = json.loads(stored[1])["manifests"]
        return [dict(entry) for entry in manifests]
    except (ValueError, KeyError, TypeError):
        words = "is not a list of attachments, which clients look for under this name: remove the tag"
        raise TrainerError(FailureCode.DESTINATION_OCCUPIED, f"{repository}:{tag} {words}") from None


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _encoded(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
