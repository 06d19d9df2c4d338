"""What a decision about a ModelVersion depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone_operator.existence import Existence
from hone_operator.observe.children import Children
from hone_operator.reconcile.modelversion import ObservedForModelVersion


@dataclass(frozen=True)
class ModelVersionReader:
    """Reads the surroundings of one ModelVersion at a time."""

    children: Children
    exists: Existence

    async def observe(self, body: Mapping[str, Any]) -> ObservedForModelVersion:
        """What is seen of the ModelVersion: its Jobs, and a claim that is missing."""
        verified = bool((body.get("status") or {}).get("verifiedAt"))
        jobs = await self.children.jobs(body, lambda job: not verified)
        missing = None
        if not verified and not jobs:
            namespace = body["metadata"]["namespace"]
            for artifact in body["spec"]["artifacts"]:
                scheme, _, rest = artifact["uri"].partition("://")
                claim = rest.partition("/")[0]
                if scheme == "pvc" and not await self.exists.of_claim(namespace, claim):
                    missing = claim
        return ObservedForModelVersion(jobs=jobs, missing_claim=missing)
