"""Which GPUs of the cluster a job would fit on now, and which servers load what it makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hone_api.base.wording import counted
from hone_api.blocks.shape import ModelShape
from hone_api.estimate import gpus, job_needs
from hone_api.estimate.memory import estimate
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.modelversion import ModelVersionSpec
from hone_api.verdicts.servable import verdicts
from hone_cli.errors import CommandError
from hone_cli.reach.capacity import GpuNode, gpu_nodes, quota_left

if TYPE_CHECKING:
    from hone_cli.reach.kube import Kube

_QUEUES = "/apis/kueue.x-k8s.io/v1beta2/namespaces/{}/localqueues/{}"


def room(
    kube: Kube, spec: FineTuneJobSpec, shape: ModelShape | None, datasets: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What nodes, quota and queue leave for the job now, as far as the person may look; nothing on CPUs."""
    each, pods = spec.resources.gpus_per_node, spec.resources.nodes
    if not each:
        return []
    found: list[str] = []
    try:
        nodes = gpu_nodes(kube, spec.resources.gpu_resource_name)
        found += _on_nodes(nodes, spec, shape, datasets)
    except CommandError as error:
        found.append(f"free GPUs are unknown: {error}")
    left = quota_left(kube, spec.resources.gpu_resource_name)
    if left is not None and left < each * pods:
        found.append(f"the quota of the namespace has {counted(left, 'GPU')} left, and the job needs {each * pods}")
    return [*found, *_in_queue(kube, spec)]


def _on_nodes(
    nodes: list[GpuNode],
    spec: FineTuneJobSpec,
    shape: ModelShape | None,
    datasets: Mapping[str, Mapping[str, Any]],
) -> Iterator[str]:
    each, pods, wanted = spec.resources.gpus_per_node, spec.resources.nodes, spec.resources.gpu_products or ()
    if not nodes:
        yield f"no ready node offers {spec.resources.gpu_resource_name}"
        return
    for product in sorted({node.product for node in nodes}):
        own = [node for node in nodes if node.product == product]
        free = None if own[0].free is None else sum(node.free or 0 for node in own)
        words = f"{product}: {'free unknown' if free is None else f'{free} free'} of {sum(n.gpus for n in own)}"
        fits = _fits(product, spec, shape, datasets)
        words += {True: ", fits", False: ", does not fit", None: ""}[fits]
        yield words + ("" if not wanted or product in wanted else ", not in resources.gpuProducts")
    usable = [node for node in nodes if not wanted or node.product in wanted]
    if any(node.free is None for node in usable):
        return
    now = sum((node.free or 0) // each for node in usable)
    if now < pods:
        yield f"{now} of {counted(pods, 'pod')} with {counted(each, 'GPU')} would find a node now: the others wait"


def _fits(
    product: str, spec: FineTuneJobSpec, shape: ModelShape | None, datasets: Mapping[str, Mapping[str, Any]]
) -> bool | None:
    """Whether a rank fits on such a GPU by the estimate; None: the GPU or the model is not known."""
    gpu = gpus.find(product)
    if gpu is None or shape is None or job_needs.holds_teacher(spec):
        return None
    on_it = spec.model_copy(update={"resources": spec.resources.model_copy(update={"gpu_products": [product]})})
    setup = job_needs.setup_of(on_it, shape, None, datasets, gpu)
    return job_needs.misfit(on_it, product, setup, estimate(setup)) is None


def _in_queue(kube: Kube, spec: FineTuneJobSpec) -> Iterator[str]:
    name = spec.scheduling.queue_name
    if not name:
        return
    try:
        status = kube.call("GET", _QUEUES.format(kube.namespace, name)).get("status") or {}
    except CommandError as error:
        yield f"queue {name}: {error}"
        return
    yield f"queue {name}: {status.get('pendingWorkloads', 0)} wait, {status.get('admittedWorkloads', 0)} are admitted"


def servers(spec: FineTuneJobSpec, shape: ModelShape | None) -> list[str]:
    """Which servers load what the job makes, as condition Servable of its version will say."""
    forms = ["Full" if spec.adapter.type == "None" else "Adapter"]
    forms += ["Merged"] if spec.output.merge else []
    forms += ["GGUF"] if "GGUF" in spec.output.formats else []
    digest = f"sha256:{'0' * 64}"
    base: dict[str, Any] = {"uri": spec.model.uri or "models://base@base"}
    if shape:
        base["shape"] = shape.model_dump(mode="json", by_alias=True, exclude_none=True)
    settings = spec.model_dump(mode="json", by_alias=True, include={"adapter", "training"}, exclude_none=True)
    body = {
        "modelName": spec.output.model_name,
        "version": 1,
        "artifacts": [{"format": f, "uri": "pvc://store/x", "digest": digest, "sizeBytes": 1} for f in forms],
        "lineage": {
            "baseModel": base,
            "datasets": [],
            "job": {"name": "job", "uid": "uid"},
            "method": spec.method,
            "hyperParameters": settings,
        },
    }
    return [str(verdict) for verdict in verdicts(ModelVersionSpec.model_validate(body))]
