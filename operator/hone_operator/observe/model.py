"""What a decision about a Model depends on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hone_api.base.schemes import claim_of
from hone_operator.apiserver.existence import Existence
from hone_operator.desired.core import modelref, names
from hone_operator.desired.model.importing import COMPONENT
from hone_operator.objects.cache import Cache
from hone_operator.observe import modelpods
from hone_operator.observe.children import Children
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.upstream import Upstream, target
from hone_operator.reconcile.model import aliases, retention
from hone_operator.reconcile.model.importing import ObservedForImports
from hone_operator.reconcile.model.model import ObservedForModel
from hone_operator.reconcile.model.registering import ObservedForRegistry
from hone_operator.reconcile.retrain import retrain_history
from hone_operator.reconcile.retrain.retrain_base import ObservedForBase
from hone_operator.reconcile.retrain.retraining import ObservedForRetraining, dataset_names
from hone_operator.reconcile.staging.observed import of_component
from hone_operator.reconcile.store import models


@dataclass(frozen=True)
class ModelReader:
    """Reads the surroundings of one Model at a time."""

    children: Children
    exists: Existence

    @property
    def cache(self) -> Cache:
        return self.children.cache

    async def observe(self, body: Mapping[str, Any]) -> ObservedForModel:
        """What is seen of the Model: the ModelVersions of its name, and which of the old ones are in use."""
        meta = body["metadata"]
        namespace = meta["namespace"]
        versions = self.cache.versions_of(namespace, meta["name"])
        jobs = await self.children.jobs(body, lambda _: True)  # also without their fields, since they are deleted then
        seen = ObservedForModel(
            versions,
            retraining=self._retraining(body, jobs),
            registry=ObservedForRegistry(self.children.platform if body["spec"].get("registry") else None, jobs),
            imports=await self._imports(body, jobs),
        )
        if not body["spec"].get("retention"):
            return seen
        keep = body["spec"]["retention"].get("keep") or len(versions)
        by_number = aliases.by_number(meta["name"], versions)
        old = {by_number[n]["metadata"]["name"]: by_number[n] for n in sorted(by_number)[:-keep]}
        needed = retention.needed_versions(
            [version for name in old for version in self.cache.trained_from(namespace, name)],
            self._unfinished_and_before(namespace),
            self.cache.items("Dataset", namespace),
        )
        return replace(seen, in_use=frozenset(needed | await self._served(namespace, old)))

    async def _imports(self, body: Mapping[str, Any], jobs: Sequence[ObservedJob]) -> ObservedForImports:
        """What spec.imports depends on."""
        namespace, entries = body["metadata"]["namespace"], body["spec"].get("imports") or ()
        if not entries:
            return ObservedForImports(jobs=jobs)
        claims = {claim for entry in entries for claim in _claims(entry)}
        missing = frozenset({claim for claim in claims if not await self.exists.of_claim(namespace, claim)})
        ended = any(job.succeeded for job in of_component(jobs, COMPONENT))
        ledger = await self.children.cluster.get("ConfigMap", namespace, names.LEDGER) if ended else None
        scored = {str(entry["evaluation"].get("dataset")) for entry in entries if entry.get("evaluation")}
        named = {name: self.cache.get("Dataset", namespace, name) for name in scored}
        datasets = {name: body for name, body in named.items() if body is not None}
        return ObservedForImports(self.children.platform, jobs, missing, datasets, ledger)

    def _retraining(self, body: Mapping[str, Any], looks: Sequence[ObservedJob]) -> ObservedForRetraining:
        """What spec.retrain depends on."""
        meta, retrain = body["metadata"], body["spec"].get("retrain")
        if not retrain:
            return ObservedForRetraining(base=ObservedForBase(looks=looks))
        namespace = meta["namespace"]
        template = self.cache.get("FineTuneJob", namespace, str(retrain.get("fineTuneJob")))
        named = {name: self.cache.get("Dataset", namespace, name) for name in dataset_names(template or {})}
        jobs, models = self.cache.making(namespace, meta["name"]), self.cache.items("Model", namespace)
        parents = retrain_history.parents(self._unfinished_and_repeated(namespace, models), models)
        datasets = {name: b for name, b in named.items() if b is not None}
        base = ObservedForBase(looks=looks)
        if retrain.get("base"):
            base = replace(base, platform=self.children.platform, target=self._target(namespace, template))
        versions = self.cache.versions_of(namespace, meta["name"])
        return ObservedForRetraining(template, datasets, jobs, parents, versions, base)

    def _unfinished_and_before(self, namespace: str) -> list[Mapping[str, Any]]:
        """Unfinished FineTuneJobs, and those from whose models they start."""
        unfinished = self.cache.unfinished(namespace)
        before = ((job["spec"].get("model") or {}).get("fineTuneJob") for job in unfinished)
        return [*unfinished, *self._jobs(namespace, before)]

    def _unfinished_and_repeated(self, namespace: str, models: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Unfinished FineTuneJobs, and those that a Model repeats."""
        repeated = (retrain_history.repeated_job(model) for model in models)
        return [*self.cache.unfinished(namespace), *self._jobs(namespace, repeated)]

    def _jobs(self, namespace: str, names_: Iterable[str | None]) -> list[Mapping[str, Any]]:
        jobs = (self.cache.get("FineTuneJob", namespace, name) for name in {*names_} if name)
        return [job for job in jobs if job is not None]

    def _target(self, namespace: str, template: Mapping[str, Any] | None) -> str | None:
        """ModelVersion to which the alias points that this job starts from."""
        alias = modelref.alias(template["spec"]) if template else None
        model = self.cache.get("Model", namespace, alias[0]) if alias else None
        return target(alias, Upstream(models={alias[0]: model})) if alias and model else None

    async def _served(self, namespace: str, versions: Mapping[str, Mapping[str, Any]]) -> set[str]:
        """Names of those whose folder a running pod names."""
        store = self.children.platform.store.claim_name
        places = {
            name: models.named_models(
                [("ModelVersion", {"spec": {"artifacts": v["spec"].get("artifacts")}})],
                store,
            )
            for name, v in versions.items()
        }
        if not any(places.values()):
            return set()
        used = await modelpods.used(self.children.cluster, namespace, set().union(*places.values()))
        return {name for name, own in places.items() if own & used.keys()}


def _claims(entry: Mapping[str, Any]) -> list[str]:
    """Claims of the pvc:// addresses of an entry of spec.imports."""
    uris = (entry.get("uri"), (entry.get("base") or {}).get("uri"))
    return [claim for uri in uris if uri and (claim := claim_of(uri))]
