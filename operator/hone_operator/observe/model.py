"""What a decision about a Model depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone_operator import modelpods
from hone_operator.cache import Cache
from hone_operator.cluster import Cluster
from hone_operator.observe.children import Children
from hone_operator.reconcile import aliases, models, retention
from hone_operator.reconcile.model import ObservedForModel
from hone_operator.reconcile.registering import ObservedForRegistry
from hone_operator.reconcile.retraining import ObservedForRetraining, dataset_names, made_model


@dataclass(frozen=True)
class ModelReader:
    """Reads the surroundings of one Model at a time."""

    cluster: Cluster
    cache: Cache
    children: Children

    async def observe(self, body: Mapping[str, Any]) -> ObservedForModel:
        """What is seen of the Model: the ModelVersions of its name, and which of the old ones are in use."""
        meta = body["metadata"]
        namespace = meta["namespace"]
        versions = self.cache.versions_of(namespace, meta["name"])
        repeated = self._retraining(body)
        registry = await self._registry(body)
        if not body["spec"].get("retention"):
            return ObservedForModel(versions, retraining=repeated, registry=registry)
        keep = body["spec"]["retention"].get("keep") or len(versions)
        by_number = aliases.by_number(meta["name"], versions)
        old = {by_number[n]["metadata"]["name"]: by_number[n] for n in sorted(by_number)[:-keep]}
        needed = retention.needed(
            self.cache.items("ModelVersion", namespace),
            self.cache.items("FineTuneJob", namespace),
            self.cache.items("Dataset", namespace),
        )
        return ObservedForModel(versions, frozenset(needed | await self._served(namespace, old)), repeated, registry)

    def _retraining(self, body: Mapping[str, Any]) -> ObservedForRetraining:
        """What spec.retrain depends on."""
        meta, retrain = body["metadata"], body["spec"].get("retrain")
        if not retrain:
            return ObservedForRetraining()
        namespace = meta["namespace"]
        template = self.cache.get("FineTuneJob", namespace, str(retrain.get("fineTuneJob")))
        named = {name: self.cache.get("Dataset", namespace, name) for name in dataset_names(template or {})}
        jobs = [j for j in self.cache.items("FineTuneJob", namespace) if made_model(j) == meta["name"]]
        return ObservedForRetraining(template, {name: b for name, b in named.items() if b is not None}, jobs)

    async def _registry(self, body: Mapping[str, Any]) -> ObservedForRegistry:
        """What spec.registry depends on. Jobs are looked for without it as well, since they are deleted then."""
        jobs = await self.children.jobs(body, lambda _: True)
        return ObservedForRegistry(self.children.platform if body["spec"].get("registry") else None, jobs)

    async def _served(self, namespace: str, versions: Mapping[str, Mapping[str, Any]]) -> set[str]:
        """Names of those whose folder a running pod names."""
        store = self.children.platform.store_claim
        places = {
            name: models.named(
                [("ModelVersion", {"spec": {"artifacts": v["spec"].get("artifacts")}})],
                store,
            )
            for name, v in versions.items()
        }
        if not any(places.values()):
            return set()
        used = await modelpods.used(self.cluster, namespace, set().union(*places.values()))
        return {name for name, own in places.items() if own & used.keys()}
