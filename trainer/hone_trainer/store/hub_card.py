"""The card of a repository of the hub: the front matter of its README.md."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone_trainer.store import hub

_log = logging.getLogger(__name__)
_MAX_BYTES = 5 * 2**20


def front_matter(repository: hub.Repository, snapshot: hub.Snapshot, folder: Path) -> dict[str, Any]:
    """What the card says; empty if there is none, or none that can be parsed.

    Args:
        folder: where README.md is downloaded to.

    Raises:
        SourceError: as `hub.download`.
    """
    if snapshot.files.get("README.md", _MAX_BYTES) >= _MAX_BYTES:
        return {}
    hub.download(repository, snapshot, ["README.md"], folder, resumable=True)
    return read(folder / "README.md")


def read(file: Path) -> dict[str, Any]:
    """What a card in a file says; empty if there is none, or none that can be parsed."""
    if not file.is_file() or file.stat().st_size >= _MAX_BYTES:
        return {}
    from huggingface_hub import metadata_load

    try:
        return metadata_load(file) or {}
    except Exception as error:  # a broken card is not a reason to fail
        _log.warning("the card %s cannot be read: %s", file, error)
        return {}


def licence(card: Mapping[str, Any]) -> str | None:
    """The licence that a card names; `other` is what its license_name says. At most 253 characters."""
    values = card.get("license")
    texts = [value for value in (values if isinstance(values, list) else [values]) if isinstance(value, str)]
    if texts in ([], ["other"]) and isinstance(card.get("license_name"), str):
        texts = [card["license_name"]]
    return ", ".join(" ".join(text.split()) for text in texts)[:253] or None
