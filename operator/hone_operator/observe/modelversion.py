"""What a decision about a ModelVersion depends on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.base.meta import alias_of
from hone_api.base.schemes import claim_of
from hone_api.words.states import DeliveryState, MeasurementState
from hone_operator.apiserver.existence import Existence
from hone_operator.desired.core import modelref, names
from hone_operator.desired.version import measure, sign
from hone_operator.desired.version.deliver import COMPONENT
from hone_operator.observe.children import Children
from hone_operator.observe.finetunejob import Reports
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.upstream import Upstream, target
from hone_operator.reconcile.model import aliases, model_deliveries
from hone_operator.reconcile.version.measuring import ObservedForEvaluations
from hone_operator.reconcile.version.modelversion import ObservedForModelVersion


@dataclass(frozen=True)
class ModelVersionReader:
    """Reads the surroundings of one ModelVersion at a time."""

    children: Children
    exists: Existence
    reports: Reports

    async def observe(self, body: Mapping[str, Any]) -> ObservedForModelVersion:
        """What is seen of the ModelVersion: its Jobs, claims that are missing, and its aliases."""
        status = body.get("status") or {}
        verified = bool(status.get("verifiedAt"))
        signature = status.get("signature") or {}
        signed = bool(signature.get("key"))
        done = {entry["key"] for entry in status.get("deliveries") or () if entry["state"] == DeliveryState.DELIVERED}
        measured = status.get("evaluations") or ()
        done |= {entry["key"] for entry in measured if entry["state"] == MeasurementState.MEASURED}

        def is_undigested(job: ObservedJob) -> bool:
            labels = job.body["metadata"].get("labels", {})
            if labels.get(names.COMPONENT) in (COMPONENT, measure.COMPONENT):
                return labels.get(names.CONTENT) not in done
            return not (signed if labels.get(names.COMPONENT) == sign.COMPONENT else verified)

        jobs = await self.children.jobs(body, is_undigested)
        namespace = body["metadata"]["namespace"]
        model = self.children.cache.get("Model", namespace, body["spec"].get("modelName", ""))
        pointing = aliases.at(model, body["metadata"]["name"])
        more = model_deliveries.of_model(model, body)
        if verified or jobs:  # the decision that sees how a verification ended goes on to the deliveries
            missing_targets = await self._missing(namespace, [*(body["spec"].get("deliveries") or ()), *more])
            uids = [job.body["metadata"]["uid"] for job in jobs if not job.finished]
            return ObservedForModelVersion(
                jobs=jobs,
                missing_targets=missing_targets,
                aliases=pointing,
                model_deliveries=more,
                evaluations=self._evaluations(body),
                reports={uid: report for uid in uids if (report := self.reports.due(uid))},
            )
        missing = None
        for artifact in body["spec"]["artifacts"]:
            claim = claim_of(artifact["uri"])
            if claim and not await self.exists.of_claim(namespace, claim):
                missing = claim
        return ObservedForModelVersion(jobs=jobs, missing_claim=missing, aliases=pointing, model_deliveries=more)

    def _evaluations(self, body: Mapping[str, Any]) -> ObservedForEvaluations:
        """What spec.evaluations depends on."""
        spec, namespace, cache = body["spec"], body["metadata"]["namespace"], self.children.cache
        entries = spec.get("evaluations") or ()
        if not entries:
            return ObservedForEvaluations()

        def existing(kind: str, named: Iterable[str | None]) -> dict[str, Mapping[str, Any]]:
            bodies = {name: cache.get(kind, namespace, name) for name in named if name}
            return {name: other for name, other in bodies.items() if other is not None}

        of = modelref.measured_on(spec)
        models = existing("Model", (name for kind, name in of if kind == "Model"))
        aliases_ = [alias for entry in entries if (alias := alias_of(entry.get("against")))]
        others = [name for kind, name in of if kind == "ModelVersion"]
        others += [meant for alias in aliases_ if (meant := target(alias, Upstream(models=models)))]
        measured = (body.get("status") or {}).get("evaluations") or ()
        before = [*(entry.get("against") for entry in measured), (spec.get("evaluation") or {}).get("against")]
        versions = existing("ModelVersion", [*others, *before])
        datasets = existing("Dataset", (name for kind, name in of if kind == "Dataset"))
        return ObservedForEvaluations(datasets, Upstream(versions=versions, models=models))

    async def _missing(self, namespace: str, targets: Sequence[Mapping[str, Any]]) -> frozenset[str]:
        """Claims that deliveries write and that do not exist."""
        claims = {claim for target in targets if (claim := claim_of(target["uri"]))}
        return frozenset({claim for claim in claims if not await self.exists.of_claim(namespace, claim)})
