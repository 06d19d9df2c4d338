"""What the CNCF's model-spec asks of a ModelPack artifact.

CONFIG is schema/config-schema.json of modelpack/model-spec at commit d78bf323 (June 2026; Copyright The CNCF ModelPack
Authors, Apache License 2.0) in Python's words. MANIFEST says what docs/spec.md of it says in prose.
"""

from __future__ import annotations

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
TEXTS: dict[str, Any] = {"type": "array", "items": TEXT}
TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
MODALITIES = {"type": "array", "items": {"enum": ["text", "image", "audio", "video", "embedding", "other"]}}
DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}


def _object(required: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": required or [], "additionalProperties": False}


CONFIG = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_object(
        ["descriptor", "config", "modelfs"],
        descriptor=_object(
            createdAt=TIME,
            authors=TEXTS,
            family=TEXT,
            name={"type": "string", "minLength": 1},
            docURL=TEXT,
            sourceURL=TEXT,
            datasetsURL=TEXTS,
            version=TEXT,
            revision=TEXT,
            vendor=TEXT,
            licenses=TEXTS,
            title=TEXT,
            description=TEXT,
        ),
        modelfs=_object(
            ["type", "diffIds"],
            type={"type": "string", "enum": ["layers"]},
            diffIds={"type": "array", "items": TEXT, "minItems": 1},
        ),
        config=_object(
            architecture=TEXT,
            format=TEXT,
            paramSize=TEXT,
            precision=TEXT,
            quantization=TEXT,
            capabilities=_object(
                inputTypes=MODALITIES,
                outputTypes=MODALITIES,
                knowledgeCutoff=TIME,
                reasoning={"type": "boolean"},
                toolUsage={"type": "boolean"},
                reward={"type": "boolean"},
                languages={"type": "array", "items": {"type": "string", "pattern": "^[a-z]{2}$"}},
            ),
        ),
    ),
}
_KINDS = "weight|weight[.]config|doc|code|dataset"
LAYER = _object(
    ["mediaType", "digest", "size"],
    mediaType={"pattern": rf"^application/vnd[.]cncf[.]model[.]({_KINDS})[.]v1[.](raw|tar|tar[+]gzip|tar[+]zstd)$"},
    digest=DIGEST,
    size={"type": "integer", "minimum": 0},
    annotations={"type": "object", "additionalProperties": TEXT},
)
MANIFEST = _object(
    ["schemaVersion", "mediaType", "artifactType", "config", "layers"],
    schemaVersion={"const": 2},
    mediaType={"const": "application/vnd.oci.image.manifest.v1+json"},
    artifactType={"const": "application/vnd.cncf.model.manifest.v1+json"},
    config=_object(
        ["mediaType", "digest", "size"],
        mediaType={"const": "application/vnd.cncf.model.config.v1+json"},
        digest=DIGEST,
        size={"type": "integer", "minimum": 2},
    ),
    layers={"type": "array", "items": LAYER, "minItems": 1},
    annotations={"type": "object", "additionalProperties": TEXT},
)
FILE_METADATA = _object(
    ["name", "mode", "uid", "gid", "size", "mtime", "typeflag"],
    name=TEXT,
    mode={"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    uid={"type": "integer", "minimum": 0},
    gid={"type": "integer", "minimum": 0},
    size={"type": "integer", "minimum": 0},
    mtime=TIME,
    typeflag={"type": "integer", "minimum": 0, "maximum": 255},
)
