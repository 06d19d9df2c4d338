"""What `apply` would do, and what the jobs would need: for `hone plan` and `hone run`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from hone_api.base.quantity import value
from hone_api.base.reading import in_words
from hone_api.blocks.shape import ModelShape
from hone_api.combinations import dataset_problems, problems
from hone_api.dataset.dataset import DatasetSpec
from hone_api.estimate import job_needs
from hone_api.estimate.advice import advise
from hone_api.estimate.cost import CPU_TFLOPS, disk, seconds_range
from hone_api.estimate.known_models import MODELS
from hone_api.estimate.memory import Setup, estimate, gib
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.methods import METHODS
from hone_cli.errors import CliExit, CommandError
from hone_cli.reach.kube import ServerRefusalError
from hone_cli.rows.init import CHECKED
from hone_cli.runs import cluster_room
from hone_cli.runs.prices import Prices

if TYPE_CHECKING:
    from hone_cli.reach.objects import Objects

Action = Literal["create", "change", "keep", "refused"]
_SPECS: dict[str, type[BaseModel]] = {"Dataset": DatasetSpec, "FineTuneJob": FineTuneJobSpec}


class PlanPart(BaseModel):
    """Written as JSON with names as in the API."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class PlannedObject(PlanPart):
    """What would become of one object."""

    kind: str
    name: str
    action: Action
    problems: list[str] = []
    warnings: list[str] = []


class NumberRange(PlanPart):
    """A number that is known as a range."""

    low: float
    high: float

    def times(self, factor: float) -> NumberRange:
        """Both ends multiplied."""
        return NumberRange(low=self.low * factor, high=self.high * factor)


class PlannedJob(PlanPart):
    """What a job would need; None where it is not known."""

    name: str
    method: str
    adapter: str
    model: str
    rows: int | None = None
    tokens: int | None = None
    """Of all epochs."""
    device: str
    """The GPU, or CPU."""
    ranks: int
    memory_bytes: int | None = None
    """Of one rank."""
    room_bytes: int | None = None
    fits: bool | None = None
    misfit: str | None = None
    """Why it does not fit, and the cheapest change."""
    seconds: NumberRange | None = None
    gpu_hours: NumberRange | None = None
    price: NumberRange | None = None
    currency: str | None = None
    budget_gpu_hours: float | None = None
    """GPU hours of spec.budget, by the smaller of its limits; None: it has none."""
    over_budget: bool | None = None
    """Whether even the shortest likely time needs more; None: there is no budget, or the time is not known."""
    disk_bytes: dict[str, int] | None = None
    advice: list[str] = []
    now: list[str] = []
    """GPUs, quota and queue of the cluster at the moment; empty without a cluster."""
    servable: list[str] = []
    """Which servers load what it makes."""


class ApplyPlan(PlanPart):
    """Everything that would be done."""

    objects: list[PlannedObject]
    jobs: list[PlannedJob]

    @property
    def exit_code(self) -> CliExit:
        """Of `hone plan`."""
        if any(each.action == "refused" for each in self.objects):
            return CliExit.REFUSED
        no = any(job.fits is False or job.over_budget for job in self.jobs)
        return CliExit.DOES_NOT_FIT if no else CliExit.DONE


def plan(bodies: list[dict[str, Any]], objects: Objects | None, prices: Prices | None, *, spot: bool) -> ApplyPlan:
    """The plan for these objects.

    Args:
        objects: of the cluster; None: no cluster is asked.
    """
    planned = [_object(body, objects) for body in bodies]
    for body, each in zip(bodies, planned, strict=True):
        each.warnings += _missing(body, bodies, objects)
    jobs = []
    for body in bodies:
        if body["kind"] == "FineTuneJob" and (spec := _read(FineTuneJobSpec, body)):
            jobs.append(planned_job(body["metadata"]["name"], spec, bodies, objects, prices, spot=spot))
    return ApplyPlan(objects=planned, jobs=jobs)


def _object(body: dict[str, Any], objects: Objects | None) -> PlannedObject:
    kind, name = body["kind"], body["metadata"]["name"]
    found = [*own_problems(kind, name, body, alone=objects is None)]
    action: Action = "create"
    if objects is not None:
        existing = objects.find(kind, name)
        try:
            # A new object asks for the right to create alone, which is all that `propose` of hone mcp needs.
            result = objects.apply(body, dry_run=True) if existing else objects.create(body, dry_run=True)
        except ServerRefusalError as error:
            way = ". Another tool manages it: apply it with that one" if "conflict" in str(error).lower() else ""
            found = [f"{error}{way}", *(each for each in found if each not in str(error))]
        else:
            action = "create" if existing is None else "keep" if _same(existing, result) else "change"
    return PlannedObject(kind=kind, name=name, action="refused" if found else action, problems=found)


def _same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether nothing but bookkeeping differs."""
    return all(before.get(part) == after.get(part) for part in ("spec", "data", "binaryData")) and all(
        before["metadata"].get(part) == after["metadata"].get(part) for part in ("labels", "annotations")
    )


def own_problems(kind: str, name: str, body: Mapping[str, Any], *, alone: bool) -> Iterator[str]:
    """What Hone knows about an object; without an API server also what its schema would refuse."""
    if kind not in _SPECS:
        return
    try:
        spec = _SPECS[kind].model_validate(body.get("spec") or {})
    except ValidationError as error:
        if alone:
            yield from (f"spec.{words}" for words in in_words(error, _SPECS[kind]))
        return
    if isinstance(spec, DatasetSpec):
        yield from (each.message for each in dataset_problems(name, spec)) if alone else ()
    elif isinstance(spec, FineTuneJobSpec):
        world = spec.resources.nodes * job_needs.processes_per_node(spec)
        yield from (f"spec.{each.message}" for each in problems(spec, world))


def _read(model: type[FineTuneJobSpec], body: Mapping[str, Any]) -> FineTuneJobSpec | None:
    try:
        return model.model_validate(body.get("spec") or {})
    except ValidationError:
        return None


def _missing(body: Mapping[str, Any], bodies: Iterable[Mapping[str, Any]], objects: Objects | None) -> Iterator[str]:
    """What an object would wait for."""
    if objects is None:
        return
    own = {(each["kind"], each["metadata"]["name"]) for each in bodies}
    for kind, name, way in _references(body):
        if (kind, name) in own:
            continue
        try:
            if objects.find(kind, name) is not None:
                continue
            there = [each["metadata"]["name"] for each in objects.list(kind)]
        except CommandError:  # no right to look, e.g. at Secrets
            continue
        near = difflib.get_close_matches(name, there, n=1)
        meant = f"did you mean {near[0]}?" if near else way
        yield f"it waits for {kind} {name}, which does not exist: {_elsewhere(kind, name, objects) or meant}"


def _elsewhere(kind: str, name: str, objects: Objects) -> str | None:
    """Where a file has become larger or smaller since `hone init`, so that `hone upload` has put it elsewhere."""
    others = {"ConfigMap": ("PersistentVolumeClaim", "pvc"), "PersistentVolumeClaim": ("ConfigMap", "configmap")}
    other, scheme = others.get(kind, ("", ""))
    if other and objects.find(other, name):
        return f"{other} {name} exists: write {scheme}://{name}/FILE in spec.source.uri, as hone upload printed it"
    return None


def _references(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Kind and name of what an object refers to, and how it is made."""
    spec = body.get("spec")
    if not isinstance(spec, dict):
        return
    secret = "kubectl create secret generic {} --from-literal=HF_TOKEN=hf_..."
    for part in (spec.get("source"), spec.get("model")):
        if isinstance(part, dict) and isinstance(name := part.get("secretName"), str):
            yield "Secret", name, secret.format(name)
    source = spec.get("source")
    uri = str(source.get("uri", "")) if isinstance(source, dict) else ""
    scheme, _, rest = uri.partition("://")
    if kind := {"configmap": "ConfigMap", "pvc": "PersistentVolumeClaim"}.get(scheme):
        name = rest.partition("/")[0]
        yield kind, name, f"hone upload FILE {name}"
    for field in ("datasets", "evaluationDatasets"):
        for each in spec.get(field) or () if isinstance(spec.get(field), list) else ():
            if body["kind"] == "FineTuneJob" and isinstance(each, dict) and isinstance(each.get("name"), str):
                yield "Dataset", each["name"], "apply its manifest as well"


def planned_job(
    name: str,
    spec: FineTuneJobSpec,
    bodies: Iterable[Mapping[str, Any]],
    objects: Objects | None,
    prices: Prices | None,
    *,
    spot: bool,
    room: bool = True,
) -> PlannedJob:
    """What a job would need.

    Args:
        room: look at the nodes, pods and queues of the cluster.
    """
    datasets = {ref.name: _counted(ref.name, bodies, objects) for ref in spec.datasets}
    devices = job_needs.devices(spec)
    rooms = {device: job_needs.capacity(spec, device) or 0 for device in devices}
    device = max(rooms, key=rooms.__getitem__)
    job = PlannedJob(
        name=name,
        method=spec.method,
        adapter=str(spec.adapter.type),
        model=_model(spec),
        rows=job_needs.training_rows(spec, datasets) or None,
        tokens=round(job_needs.trained_tokens(spec, datasets)) or None,
        device=device,
        ranks=spec.resources.nodes * job_needs.processes_per_node(spec),
    )
    job.budget_gpu_hours = spec.budget.hours if spec.budget else None
    if job.rows:
        job.advice = advise(spec, job.rows)
    shape = _shape(spec, objects)
    job.servable = cluster_room.servers(spec, shape)
    if objects is not None and room:
        job.now = cluster_room.room(objects.kube, spec, shape, datasets)
    if shape is None or job_needs.holds_teacher(spec):
        return job
    setups = {each: job_needs.setup_of(spec, shape, None, datasets, gpu) for each, gpu in devices.items()}
    needed = estimate(setups[device])
    job.memory_bytes, job.room_bytes = round(needed.total), rooms[device] or None
    if all(rooms.values()) and job.tokens:  # rows that nobody has counted may be shorter or longer than assumed
        found = {each: job_needs.misfit(spec, each, s, estimate(s)) for each, s in setups.items()}
        misfit = found[device]
        job.fits, job.misfit = misfit is None, misfit.message if misfit else None
        job.advice += [f"on {each}: {no.message}" for each, no in found.items() if no and each != device]
        if job.fits and needed.total > job_needs.TIGHT * rooms[device]:
            job.advice.append(f"the memory is tight: {gib(needed.total)} of {gib(rooms[device])}")
    if shape.context and (spec.training.max_length or 0) > (most := spec.training.context_of(shape.context)):
        job.fits, job.misfit = False, f"training.maxLength is over the context of {job.model}, {most:,} tokens"
    job.disk_bytes = disk(setups[device], keep=spec.checkpoints.keep, merge=spec.output.merge)
    job.seconds = _seconds(spec, setups, job.tokens)
    _price(job, spec, prices, spot=spot)
    return job


def _seconds(spec: FineTuneJobSpec, setups: Mapping[str, Setup], tokens: int | None) -> NumberRange | None:
    """Of the training steps, over all devices that the job may get."""
    if not tokens or METHODS[spec.method].samples:
        return None
    spans = []
    for name, gpu in job_needs.devices(spec).items():
        if name != "CPU" and gpu is None:
            return None
        tflops = gpu.tflops if gpu else CPU_TFLOPS * float(value(spec.resources.cpu))
        spans.append(seconds_range(setups[name], tokens, tflops))
    return NumberRange(low=min(low for low, _ in spans), high=max(high for _, high in spans))


def _price(job: PlannedJob, spec: FineTuneJobSpec, prices: Prices | None, *, spot: bool) -> None:
    if job.seconds is None:
        return
    gpus = spec.resources.nodes * spec.resources.gpus_per_node
    hours = job.seconds.times(1 / 3600)
    job.gpu_hours = hours.times(gpus) if gpus else None
    if job.gpu_hours and job.budget_gpu_hours is not None:
        job.over_budget = job.gpu_hours.low > job.budget_gpu_hours
    if prices is None:
        return
    if gpus:
        each = [prices.of(product, spot=spot) for product in spec.resources.gpu_products or [""]]
        known = [price for price in each if price is not None]
        if len(known) < len(each):
            return
        job.price = NumberRange(low=hours.low * gpus * min(known), high=hours.high * gpus * max(known))
    elif prices.core_hour is not None:
        job.price = hours.times(spec.resources.nodes * float(value(spec.resources.cpu)) * prices.core_hour)
    job.currency = prices.currency if job.price else None


def _counted(name: str, bodies: Iterable[Mapping[str, Any]], objects: Objects | None) -> dict[str, Any]:
    """A Dataset with the counts of the cluster, or those that `hone init` wrote into its manifest."""
    stored = objects.find("Dataset", name) if objects is not None else None
    if stored and (stored.get("status") or {}).get("tokens"):
        return stored
    for body in (*bodies, *([stored] if stored else [])):
        if body["kind"] == "Dataset" and body["metadata"]["name"] == name:
            try:
                counted = dict(json.loads((body["metadata"].get("annotations") or {})[CHECKED]))
                splits = [{"name": str(each["name"]), "rows": int(each["rows"])} for each in counted["splits"]]
                tokens = {key: float(counted["tokens"][key]) for key in ("mean", "max")}
                return {"status": {**counted, "splits": splits, "tokens": tokens}}
            except (KeyError, ValueError, TypeError):
                continue
    return {}


def _model(spec: FineTuneJobSpec) -> str:
    return str(spec.model.uri or spec.model.model_version or spec.model.fine_tune_job)


def _shape(spec: FineTuneJobSpec, objects: Objects | None) -> ModelShape | None:
    """The sizes of the base: of a job that has staged it, or of a model that Hone knows."""
    uri = _model(spec)
    for job in objects.list("FineTuneJob") if objects is not None else ():
        resolved = (job.get("status") or {}).get("resolved") or {}
        if (job["spec"].get("model") or {}).get("uri") == uri and resolved.get("modelShape"):
            try:
                return ModelShape.model_validate(resolved["modelShape"])
            except ValidationError:  # of another release
                continue
    return MODELS.get(uri.removeprefix("hf://").partition("@")[0])
