"""The memory of a rank of a FineTuneJob, as far as its spec defines it."""

from hone_api.base.quantity import value
from hone_api.estimate import gpus
from hone_api.kinds.finetunejob import FineTuneJobSpec


def devices(spec: FineTuneJobSpec) -> dict[str, gpus.Gpu | None]:
    """Devices that the pods may run on, by name; None for a GPU that is not in the table, and for the CPU."""
    if spec.resources.gpus_per_node == 0:
        return {"CPU": None}
    return {product: gpus.find(product) for product in spec.resources.gpu_products or ["GPU"]}


def capacity(spec: FineTuneJobSpec, name: str) -> int | None:
    """Bytes for one rank on the named device, after the part for a vLLM that shares it; None if unknown."""
    if name == "CPU":
        return int(value(spec.resources.memory))
    gpu = gpus.find(name)
    return int(gpu.memory * (1 - vllm_fraction(spec))) if gpu else None


def vllm_fraction(spec: FineTuneJobSpec) -> float:
    """The fraction of a GPU's memory that a vLLM on it takes."""
    return spec.grpo.generation.gpu_fraction if spec.grpo else 0.0


def smallest(spec: FineTuneJobSpec) -> int | None:
    """Bytes for one rank on the smallest known device that the job may get."""
    return min((room for name in devices(spec) if (room := capacity(spec, name))), default=None)
