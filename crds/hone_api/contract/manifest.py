"""manifest.json: path, size and SHA-256 of each file of a folder. The trainer writes it, and whoever copies the folder
holds the copy against it."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, FailFast, Field

MANIFEST = "manifest.json"
SIGNATURE, PROVENANCE, BOM = "model.sig", "provenance.json", "model.cdx.json"
DESCRIPTIONS = (PROVENANCE, BOM)
"""Files that say where a model comes from: an in-toto statement, a CycloneDX bill of materials."""
ADDED = (*DESCRIPTIONS, SIGNATURE)
"""Files that are added to a complete folder of a model: its manifest does not list them, its signature covers them."""
MAX_BYTES = 8 * 2**20
"""Of a manifest.json: some 35,000 files. A longer one is not read: whoever can write the folder may have made it."""


class Entry(BaseModel):
    """One file; path is relative to the folder, with forward slashes."""

    model_config = ConfigDict(extra="forbid")
    path: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def is_inside(self) -> bool:
        """Whether the path stays in its folder."""
        parts = PurePosixPath(self.path)
        return bool(parts.parts) and not parts.is_absolute() and ".." not in parts.parts and "\0" not in self.path


class Manifest(BaseModel):
    """All files of a folder but manifest.json itself, sorted by path."""

    model_config = ConfigDict(extra="forbid")
    version: int = Field(default=1, ge=1, le=1)
    files: Annotated[list[Entry], FailFast()]


def manifest_digest(text: bytes) -> str:
    """'sha256:' and the SHA-256 of a manifest.json, as ModelVersions and Datasets record it."""
    return f"sha256:{hashlib.sha256(text).hexdigest()}"
