"""The memory that a rank of a FineTuneJob has, as far as its spec tells."""

from hone_api.estimate import gpus
from hone_api.finetunejob import FineTuneJobSpec
from hone_api.quantity import value


def devices(spec: FineTuneJobSpec) -> dict[str, gpus.Gpu | None]:
    """What the pods may run on, by name; None for what the table of GPUs does not know, and the CPU."""
    if spec.resources.gpus_per_node == 0:
        return {"CPU": None}
    return {product: gpus.find(product) for product in spec.resources.gpu_products or ["GPU"]}


def capacity(spec: FineTuneJobSpec, name: str) -> int | None:
    """Bytes that one rank has on a device of that name, beside a vLLM that shares it; None when nobody knows."""
    if name == "CPU":
        return int(value(spec.resources.memory))
    gpu = gpus.find(name)
    return int(gpu.memory * (1 - share(spec))) if gpu else None


def share(spec: FineTuneJobSpec) -> float:
    """Of a GPU's memory, what a vLLM on it takes."""
    return spec.grpo.generation.share if spec.grpo else 0.0


def smallest(spec: FineTuneJobSpec) -> int | None:
    """Bytes that one rank has on the smallest device that the job may get, of those that are known."""
    return min((room for name in devices(spec) if (room := capacity(spec, name))), default=None)
