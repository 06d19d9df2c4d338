"""What a decision about a Dataset depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone_operator.apiserver.existence import Existence
from hone_operator.desired.dataset.materialize import COMPONENT, named_versions
from hone_operator.observe.children import Children
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.dataset import dataset
from hone_operator.reconcile.dataset.dataset import ObservedForDataset
from hone_operator.reconcile.staging.observed import of_component


@dataclass(frozen=True)
class DatasetReader:
    """Reads the surroundings of one Dataset at a time."""

    children: Children
    exists: Existence

    async def observe(self, body: Mapping[str, Any]) -> ObservedForDataset:
        """What is seen of the Dataset and of what it refers to."""
        jobs = await self.children.jobs(body, lambda job: dataset.is_news(body, job))
        return ObservedForDataset(
            jobs=jobs,
            missing=await self._missing_source(body, jobs),
            datasets=self._others(body),
            versions=self.children.named("ModelVersion", body, named_versions),
        )

    def _others(self, body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """The other Datasets of the namespace, which can be thousands; only while rows may have to be read."""
        if _is_settled(body):
            return {}
        own, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        here = {one["metadata"]["name"]: one for one in self.children.cache.items("Dataset", namespace)}
        return {name: one for name, one in here.items() if name != own}

    async def _missing_source(self, body: Mapping[str, Any], jobs: list[ObservedJob]) -> str | None:
        """`kind/name` of a source in the namespace that does not exist; looked up only when an attempt is due."""
        uri = (body["spec"].get("source") or {}).get("uri", "")
        if _is_settled(body) or any(not j.finished for j in of_component(jobs, COMPONENT)):
            return None
        namespace = body["metadata"]["namespace"]
        scheme, _, rest = uri.partition("://")
        name = rest.partition("/")[0]
        if scheme == "configmap" and await self.children.cluster.get("ConfigMap", namespace, name) is None:
            return f"ConfigMap/{name}"
        if scheme == "pvc" and not await self.exists.of_claim(namespace, name):
            return f"PersistentVolumeClaim/{name}"
        return None


def _is_settled(body: Mapping[str, Any]) -> bool:
    """Whether a Dataset has its rows and is not refreshed."""
    return dataset.is_ready(body) and not body["spec"].get("refresh")
