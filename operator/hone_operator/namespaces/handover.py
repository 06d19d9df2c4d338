"""Keeps the ConfigMap from which servers of a namespace learn what the aliases of its Models mean now."""

import asyncio
import logging
from dataclasses import dataclass

from hone_api.served import CONFIG_MAP
from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import NamespaceGoneError, NotFoundError, RefusedError
from hone_operator.desired.served import served
from hone_operator.objects.cache import Cache
from hone_operator.reconcile.served import content

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Handover:
    """Processes one namespace."""

    cluster: Cluster
    cache: Cache

    async def process(self, namespace: str) -> None:
        """Write what the aliases say, if the ConfigMap says something else; there is none before the first alias."""
        models = self.cache.items("Model", namespace)
        versions = {m["metadata"]["name"]: self.cache.versions_of(namespace, m["metadata"]["name"]) for m in models}
        # In a thread: a namespace may have thousands of Models, and the event loop must continue.
        data = await asyncio.to_thread(content, models, versions)
        try:
            body = await self.cluster.get("ConfigMap", namespace, CONFIG_MAP)
            if (data or body) and ((body or {}).get("data") or {}) != data:
                await self.cluster.apply(served(namespace, data))
        except NamespaceGoneError:
            raise
        except (NotFoundError, RefusedError) as error:  # e.g. a quota is used up; the next request looks again
            log.warning("%s: what may be served is not written: %s", namespace, error)
