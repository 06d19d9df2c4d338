"""A ModelPack artifact, as the CNCF's model-spec 0.0.7 describes it: a layer for each file, and a config that says
what the model is.

A layer is the file itself (the raw media types), so its digest stands in the original's manifest, and no file is read
before it is sent. A tar would make neither the digest of a file nor the layer the same for every client.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hone_api.contract.manifest import BOM, MANIFEST, PROVENANCE, Entry
from hone_api.plan import DeliverPlan
from hone_trainer.artifacts.delivery.modelcar import WEIGHTS
from hone_trainer.artifacts.delivery.original import Original
from hone_trainer.artifacts.delivery.package import Blob, Package

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
LAYERS = "application/vnd.cncf.model."
"""How the media types of its layers begin."""
FILE_PATH, FILE_METADATA = "org.cncf.model.filepath", "org.cncf.model.file.metadata+json"
_TITLE = "org.opencontainers.image.title"
_WEIGHT, _CONFIG, _DOC, _CODE = (f"{LAYERS}{kind}.v1.raw" for kind in ("weight", "weight.config", "doc", "code"))
_DOCUMENTS = (".md", ".html", ".svg", ".png", ".pdf")
_NAMED_DOCUMENTS = ("LICENSE", "NOTICE", PROVENANCE, BOM, "report.json")
_PRECISIONS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
}
_MOST_OF_A_HEADER = 100 * 2**20


def package(plan: DeliverPlan, original: Original) -> Package:
    """The artifact. A file is compared with the original's manifest while it is sent.

    Raises:
        StoreError: ManifestMismatch, of the original.
    """
    entries = sorted([*original.files, original.manifest_entry], key=lambda entry: (not _is_weight(entry), entry.path))
    blobs = [_blob(original, entry) for entry in entries]
    config = {
        "descriptor": _descriptor(plan, original),
        "config": _parameters(original),
        "modelfs": {"type": "layers", "diffIds": [blob.descriptor["digest"] for blob in blobs]},
    }
    return Package.of(blobs, config, CONFIG_TYPE, plan.labels, ARTIFACT_TYPE)


def media_type(path: str) -> str:
    """Of the layer that is this file."""
    name = path.rpartition("/")[2]
    if path.endswith(WEIGHTS):
        return _WEIGHT
    if path.endswith(_DOCUMENTS) or name.startswith(_NAMED_DOCUMENTS):
        return _DOC
    return _CODE if path.endswith(".py") else _CONFIG


def _blob(original: Original, entry: Entry) -> Blob:
    metadata = {
        "name": entry.path.rpartition("/")[2],
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "size": entry.size,
        "mtime": "1970-01-01T00:00:00Z",  # the same in every version, as the spec asks for
        "typeflag": ord("0"),
    }
    descriptor = {
        "mediaType": media_type(entry.path),
        "digest": f"sha256:{entry.sha256}",
        "size": entry.size,
        "annotations": {
            FILE_PATH: entry.path,
            FILE_METADATA: json.dumps(metadata, sort_keys=True),
            _TITLE: entry.path,  # oras pulls only layers that have one
        },
    }
    return Blob(descriptor, partial(_content, original, entry))


def _content(original: Original, entry: Entry) -> Iterator[bytes]:
    if entry.path == MANIFEST:
        return iter((original.manifest_bytes,))
    return original.read(entry)


def _is_weight(entry: Entry) -> bool:
    return media_type(entry.path) == _WEIGHT


def _descriptor(plan: DeliverPlan, original: Original) -> dict[str, Any]:
    """What the model is called, and what it was made from."""
    labels = plan.labels
    base = "@".join(filter(None, (labels.get("dev.hone.base"), labels.get("dev.hone.base.commit"))))
    family = _settings(original).get("model_type")
    fields = {
        "name": labels.get(_TITLE, plan.name),
        "version": str(plan.version),
        "revision": original.digest,
        "createdAt": plan.created,
        "family": family if isinstance(family, str) else None,
        "description": f"{labels.get('dev.hone.form', 'Model')}, trained from {base}" if base else None,
        "licenses": [licence] if (licence := labels.get("org.opencontainers.image.licenses")) else None,
    }
    return {name: value for name, value in fields.items() if value}


def _parameters(original: Original) -> dict[str, Any]:
    """How the weights are stored; of a whole model also how many there are."""
    weights = [entry.path for entry in original.files if _is_weight(entry)]
    if any(path.endswith(".gguf") for path in weights):
        return {"architecture": "transformer", "format": "gguf"}
    numbers: Counter[str] = Counter()
    for path in weights:
        numbers.update(_numbers(original.folder / path))
    fields = {
        "architecture": "transformer",
        "format": "safetensors" if weights else None,
        "precision": ",".join(_PRECISIONS[kind] for kind, _ in numbers.most_common() if kind in _PRECISIONS),
        "paramSize": _short(numbers.total()) if _settings(original) else None,  # not that of an adapter
    }
    return {name: value for name, value in fields.items() if value}


def _settings(original: Original) -> Mapping[str, Any]:
    """config.json of a whole model."""
    try:
        settings = json.loads((original.folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _numbers(path: Path) -> Counter[str]:
    """How many numbers of each type a safetensors file has, by its header; none, if it has no such header."""
    numbers: Counter[str] = Counter()
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _MOST_OF_A_HEADER else {}
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for size in tensor["shape"]:
                    count *= size
                numbers[tensor["dtype"]] += count
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Counter()
    return numbers


def _short(count: int) -> str | None:
    """135.1M for 135,141,504."""
    for scale, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= scale:
            return f"{count / scale:.1f}".removesuffix(".0") + letter
    return None
