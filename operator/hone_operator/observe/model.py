"""What a decision about a Model depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone_operator.cache import Cache
from hone_operator.reconcile.model import ObservedForModel


@dataclass(frozen=True)
class ModelReader:
    """Reads the surroundings of one Model at a time; all of them are in the cache."""

    cache: Cache

    def observe(self, body: Mapping[str, Any]) -> ObservedForModel:
        """What is seen of the Model: the ModelVersions of its name."""
        meta = body["metadata"]
        return ObservedForModel(versions=self.cache.versions_of(meta["namespace"], meta["name"]))
