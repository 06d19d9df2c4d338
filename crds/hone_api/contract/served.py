"""What servers of a namespace may serve by the aliases of its Models: written by the operator, read by the pods that
follow an alias."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hone_api.base.meta import MAX_COUNT, ApiModel, Digest, KnownUri, Name, Text
from hone_api.kinds.model import MAX_ALIASES, AliasName
from hone_api.kinds.modelversion import MAX_VERSION

CONFIG_MAP = "hone-served"
"""ConfigMap of a namespace with one key for each Model that has an alias."""
MAX_APPROVED = 40
"""Versions whose adapter may stay loaded until the next one is."""


def key_of(model: str) -> str:
    """The Model's key in the ConfigMap."""
    return f"{model}.json"


class ServedAdapter(ApiModel):
    """An adapter that a server of its base may load."""

    uri: KnownUri = Field(description="Folder of its files, e.g. pvc://hone-store/models/…/adapter.")
    digest: Digest = Field(description="SHA-256 of the folder's manifest.json.")
    base: KnownUri = Field(description="Folder of its base's weights.")
    rank: int = Field(ge=1, le=MAX_COUNT, description="The least --max-lora-rank of vLLM that takes it.")


class ServedAlias(ApiModel):
    """Where an alias points, and what of it may be served."""

    name: AliasName = Field(description="Name of the alias.")
    version: int = Field(ge=1, le=MAX_VERSION, description="Number of the version.")
    model_version: Name = Field(description="Name of the ModelVersion.")
    adapter: ServedAdapter | None = Field(default=None, description="What is served; absent: nothing may be.")
    why: Text | None = Field(default=None, description="Why nothing may be served.")


class ServedAliases(ApiModel):
    """The aliases of one Model."""

    aliases: Annotated[list[ServedAlias], Field(max_length=2 * MAX_ALIASES)] = Field(
        default_factory=list, description="By name; an alias that points nowhere is absent."
    )
    approved: Annotated[list[Digest], Field(max_length=MAX_APPROVED)] = Field(
        default_factory=list,
        description="Adapters of approved versions, first those that an alias points or pointed to, then the newest: "
        "one that is loaded stays until the one that the alias points to is loaded. Any other is unloaded at once.",
    )
