"""What a decision about a FineTuneJob depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from hone_api.base.schemes import claim_of
from hone_api.words.states import ConditionType
from hone_operator.apiserver.existence import Existence
from hone_operator.desired.core import modelref, names
from hone_operator.desired.core.shared import Shared
from hone_operator.desired.version.model_version import last_of
from hone_operator.namespaces import networks as ranks_networks
from hone_operator.objects import cache as caches
from hone_operator.observe.children import Children
from hone_operator.observe.stores import StoreReader
from hone_operator.progress.numbers import Latest
from hone_operator.reconcile.core import line, upstream
from hone_operator.reconcile.core.conditions import is_true
from hone_operator.reconcile.core.line import Line
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.reconcile.core.upstream import Upstream
from hone_operator.reconcile.run.earlier import differs, version_of_run
from hone_operator.reconcile.run.run_attempts import is_open, last_open
from hone_operator.reconcile.staging.encoding import ObservedEncoding
from hone_operator.reconcile.staging.observed import Observed, of_component


class Reports(Protocol):
    """The progress server's store."""

    def latest(self, job_uid: str) -> Latest | None: ...
    def due(self, job_uid: str) -> Latest | None: ...


class Left(NamedTuple):
    """Names of the pods of a Job that is gone."""

    stopping: Sequence[str]
    stranded: Sequence[str]
    """Pods that can never start."""
    orphaned: Sequence[str]
    """Those of `stopping` that do not stop by themselves: the Job was deleted without them."""


@dataclass(frozen=True)
class FineTuneJobReader:
    """Reads the surroundings of one FineTuneJob at a time."""

    children: Children
    exists: Existence
    stores: StoreReader
    networks: Existence
    reports: Reports

    async def observe(self, body: Mapping[str, Any]) -> Observed:
        """What is seen of the job and of what it refers to."""
        meta, namespace = body["metadata"], body["metadata"]["namespace"]
        jobs, left = await self._attempts(body)
        versions = self.children.cache.made_by(namespace, meta["name"], meta["uid"])
        newest, attempts = self.reports.latest(meta["uid"]), of_component(jobs, "training")
        is_still = left is not None or all(job.is_still for job in attempts)
        model = self.children.cache.get("Model", namespace, _model(body))
        seen = Observed(
            datasets=self.children.named("Dataset", body, modelref.datasets),
            similar=self.children.similar("Dataset", body, modelref.datasets),
            jobs=jobs,
            report=newest if is_still else self.reports.due(meta["uid"]),
            claim_exists=await self._model_claim(body),
            upstream=self._upstream(body),
            line=self._line(body),
            store=await self.stores.observe(body),
            stopping=None if left is None else len(left.stopping),
            stranded=left.stranded if left else (),
            orphaned=left.orphaned if left else (),
            network_lost=await ranks_networks.is_lost(self.networks, attempts, newest),
            network_left=await ranks_networks.find_left_behind(self.children.cluster, body, attempts),
            model_missing=model is None,
            last_version=last_of(model),
            made=version_of_run(body, versions),
            differs=differs(body, versions),
        )
        if any(j.succeeded and is_open(body, j) for j in attempts):
            ledger = await self.children.cluster.get("ConfigMap", namespace, names.LEDGER)
            seen = replace(seen, ledger=ledger, versions=self.children.cache.versions_of(namespace, _model(body)))
        return seen

    async def encoder(self, namespace: str, work: Shared) -> ObservedEncoding:
        """The shared Job that encodes the rows of a FineTuneJob, and what its pod reports."""
        stage = await self.stores.stage(namespace, [work])
        uids = [job.body["metadata"]["uid"] for job in stage.jobs if not job.finished]
        return ObservedEncoding(stage, next(filter(None, map(self.reports.due, uids)), None))

    async def _attempts(self, body: Mapping[str, Any]) -> tuple[list[ObservedJob], "Left | None"]:
        """Child Jobs, and the remaining pods of the last attempt if somebody deleted its Job."""
        jobs = await self.children.jobs(body, lambda job: is_open(body, job))
        training = of_component(jobs, "training")
        if is_true(body, ConditionType.FINISHED) or (record := last_open(body, training)) is None:
            return jobs, None
        namespace, name = body["metadata"]["namespace"], record["jobName"]
        # Not trusting the cache: another attempt next to a running Job would spoil its checkpoints.
        job = await self.children.cluster.get("Job", namespace, name)
        if job is not None and caches.controls(body, job) and self.children.cache.put("Job", job):
            return await self._attempts(body)
        pods = await self.children.cluster.list("Pod", namespace, labels=f"{names.RUN}={body['metadata']['uid']}")
        pods = [p for p in pods if p["metadata"]["labels"].get(names.COMPONENT) == "training" and _of_job(p, name)]
        left = [p for p in pods if p["status"].get("phase") not in ("Succeeded", "Failed")]
        stranded = [p["metadata"]["name"] for p in left if await self.children.read.never_starts(p)]
        left = [p for p in left if p["metadata"]["name"] not in stranded]
        orphaned = [p["metadata"]["name"] for p in left if _is_orphan(p)]
        return jobs, Left([p["metadata"]["name"] for p in left], stranded, orphaned)

    def _line(self, body: Mapping[str, Any]) -> Line | None:
        """The place in the line of the namespace, if there is one and the job does not use a queue of Kueue."""
        platform = self.children.platform
        most = platform.tenants.max_active_jobs
        if not most or (line.queue_of(body) and platform.kueue.enabled) or is_true(body, ConditionType.FINISHED):
            return None
        cache, namespace = self.children.cache, body["metadata"]["namespace"]
        children = cache.items("Job", namespace)
        owners = filter(None, (caches.owner_of(child) for child in children if line.trains(child)))
        ending = (cache.get("FineTuneJob", namespace, owner.name) for owner in owners)  # finished, but a Job still runs
        siblings = {job["metadata"]["uid"]: job for job in (*cache.unfinished(namespace), *filter(None, ending))}
        here = [job for job in siblings.values() if not (platform.kueue.enabled and line.queue_of(job))]
        return line.place(body, most, here, children)

    def _upstream(self, body: Mapping[str, Any]) -> Upstream:
        """The jobs along spec.model.fineTuneJob, and the ModelVersions that this job or its parent refers to."""
        namespace, spec = body["metadata"]["namespace"], body["spec"]
        jobs: dict[str, Mapping[str, Any]] = {}
        name = spec["model"].get("fineTuneJob")
        while name and name not in jobs and (job := self.children.cache.get("FineTuneJob", namespace, name)):
            jobs[name] = job
            name = job["spec"]["model"].get("fineTuneJob")
        made_by = jobs.get(spec["model"].get("fineTuneJob"), {}).get("status") or {}
        models = self._models(body)
        meant = [(body.get("status") or {}).get("baseModelVersion")]
        meant += [upstream.target(alias, Upstream(models=models)) for alias in _aliases(spec)]
        named = [made_by.get("modelVersionName"), *meant, *sorted(modelref.versions(spec))]
        versions = {n: self.children.cache.get("ModelVersion", namespace, n) for n in named if n}
        return Upstream(jobs, {n: v for n, v in versions.items() if v is not None}, models)

    def _models(self, body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """The Models whose aliases the job names."""
        cache, namespace = self.children.cache, body["metadata"]["namespace"]
        models = {model: cache.get("Model", namespace, model) for model, _ in _aliases(body["spec"])}
        return {name: model for name, model in models.items() if model is not None}

    async def _model_claim(self, body: Mapping[str, Any]) -> bool | None:
        uri = body["spec"]["model"].get("uri", "")
        started = bool((body.get("status") or {}).get("attempts"))
        if not (claim := claim_of(uri)) or started or is_true(body, ConditionType.FINISHED):
            return None
        return await self.exists.of_claim(body["metadata"]["namespace"], claim)


def _aliases(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(Model, alias) of each alias that the job names."""
    return [alias for alias in (modelref.alias(spec), modelref.comparison_alias(spec)) if alias]


def _model(body: Mapping[str, Any]) -> str:
    """The name that a job gives its model; empty if an older schema accepted a spec without one."""
    name: str = (body["spec"].get("output") or {}).get("modelName", "")
    return name


def _of_job(pod: Mapping[str, Any], name: str) -> bool:
    """Whether a pod of the run has no controller, or had a Job with this name; that is gone, so its uid is unknown."""
    owner = caches.owner_of(pod)
    return owner is None or (owner.api_version, owner.kind, owner.name) == ("batch/v1", "Job", name)


def _is_orphan(pod: Mapping[str, Any]) -> bool:
    """Whether nobody ends a pod, because its Job was deleted with --cascade=orphan."""
    return caches.owner_of(pod) is None and "deletionTimestamp" not in pod["metadata"]
