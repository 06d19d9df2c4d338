"""Keeps the ConfigMap from which servers of a namespace learn what the aliases of its Models mean now."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hone_api.contract.served import CONFIG_MAP, key_of
from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import NamespaceGoneError, NotFoundError, RefusedError
from hone_operator.desired.model.served import served_config_map
from hone_operator.objects.cache import Cache
from hone_operator.reconcile.model.model import moves_alias
from hone_operator.reconcile.model.served import content

log = logging.getLogger(__name__)
LOOK_SECONDS = 30.0
"""Until what could not be written is tried again: nothing reports that it can be."""
HOLD_SECONDS = 10.0
"""A Model moves its aliases within milliseconds; a withdrawn version must not stay for one that does not."""


@dataclass
class Holds:
    """Models whose aliases are about to move: what servers read of them stays until then. Otherwise servers could read
    that a version is withdrawn before they read which one is next, and serve none for as long as a kubelet takes."""

    clock: Callable[[], float] = time.monotonic
    refused: dict[str, str] = field(default_factory=dict)
    """By namespace: why what servers may load could not be written."""
    _since: dict[tuple[str, str], float] = field(default_factory=dict)

    def left(self, namespace: str, moving: Collection[str]) -> dict[str, float]:
        """Seconds for which each of these Models still has to move; the others of the namespace have moved."""
        for held in [key for key in self._since if key[0] == namespace and key[1] not in moving]:
            del self._since[held]
        now = self.clock()
        ends = {model: self._since.setdefault((namespace, model), now) + HOLD_SECONDS for model in moving}
        return {model: end - now for model, end in ends.items() if end > now}

    def give_up(self, namespace: str, model: str) -> bool:
        """Wait no longer for this Model, whose reconcile failed; whether anything did."""
        if (namespace, model) not in self._since:
            return False
        self._since[namespace, model] = float("-inf")
        return True


@dataclass(frozen=True)
class Handover:
    """Processes one namespace."""

    cluster: Cluster
    cache: Cache
    holds: Holds

    async def process(self, namespace: str) -> float | None:
        """Write what the aliases say, if the ConfigMap says something else; there is none before the first alias.

        Returns:
            Seconds until it has to be called again, because a Model is about to move an alias or the API server refused
            the ConfigMap; None: it has not.
        """
        models = self.cache.items("Model", namespace)
        versions = {m["metadata"]["name"]: self.cache.versions_of(namespace, m["metadata"]["name"]) for m in models}
        # In a thread: a namespace may have thousands of Models, and the event loop must continue.
        data = await asyncio.to_thread(content, models, versions)
        try:
            body = await self.cluster.get("ConfigMap", namespace, CONFIG_MAP)
            before = (body or {}).get("data") or {}
            changed = [m for m in models if data.get(key := key_of(m["metadata"]["name"])) != before.get(key)]
            held = self.holds.left(namespace, await asyncio.to_thread(_moving, changed, versions))
            data = {key: text for key, text in data.items() if key not in map(key_of, held)}
            data |= {key: before[key] for key in map(key_of, held) if key in before}
            if (data or body) and before != data:
                await self.cluster.apply(served_config_map(namespace, data))
            self.holds.refused.pop(namespace, None)
            return min(held.values(), default=None)
        except NamespaceGoneError:
            raise
        except (NotFoundError, RefusedError) as error:  # e.g. a quota is used up, or the ConfigMap is immutable
            log.warning("%s: what may be served is not written: %s", namespace, error)
            self.holds.refused[namespace] = str(error)
            return LOOK_SECONDS


def _moving(models: Sequence[Mapping[str, Any]], versions: Mapping[str, Sequence[Mapping[str, Any]]]) -> set[str]:
    """Names of those of the Models that are about to move an alias."""
    names = ((model, model["metadata"]["name"]) for model in models)
    return {name for model, name in names if moves_alias(model, versions[name])}
