"""The memory that a rank of a FineTuneJob has, as far as its spec tells."""

from hone_api import gpus
from hone_api.finetunejob import FineTuneJobSpec
from hone_operator.desired.quantity import value


def devices(spec: FineTuneJobSpec) -> dict[str, gpus.Gpu | None]:
    """What the pods may run on, by name: the GPUs that the job allows and the table knows, any GPU, or the CPU."""
    if spec.resources.gpus_per_node == 0:
        return {"CPU": None}
    known = {product: gpu for product in spec.resources.gpu_products or () if (gpu := gpus.find(product))}
    return dict(known) or {"GPU": None}


def capacity(spec: FineTuneJobSpec, name: str) -> int | None:
    """Bytes that one rank has on a device of that name, beside a vLLM that shares it; None when nobody knows."""
    if name == "CPU":
        return int(value(spec.resources.memory))
    gpu = gpus.find(name)
    taken = spec.grpo.generation.share if spec.grpo else 0.0
    return int(gpu.memory * (1 - taken)) if gpu else None


def smallest(spec: FineTuneJobSpec) -> int | None:
    """Bytes that one rank has on any device that the job may get."""
    return min((room for name in devices(spec) if (room := capacity(spec, name))), default=None)
