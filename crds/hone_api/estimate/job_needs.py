"""What a job needs, by its spec and the Datasets as the cluster counts them: for the operator before a run, and for
`hone plan` on a laptop. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from hone_api.base.quantity import value
from hone_api.blocks.shape import ModelShape
from hone_api.estimate import gpus
from hone_api.estimate.cost import seconds, seconds_range
from hone_api.estimate.memory import Estimate, Setup, gib, of_vllm
from hone_api.estimate.micro_batch import longest_sequence, setup
from hone_api.estimate.savings import change_that_fits
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.methods import METHODS, Method

SURE = 1.1
"""A run is refused only if the estimate exceeds the memory by more than the estimate's own error."""
TIGHT = 0.95
"""Fraction of the memory from which it is tight."""
DOCUMENT_TOKENS = 2048
"""Tokens of a sequence of packed documents if the job sets none."""
Datasets = Mapping[str, Mapping[str, Any]]
"""The Datasets of a job by name, as far as they exist."""


class Misfit(NamedTuple):
    """Why a run cannot fit."""

    message: str
    hint: str


def processes_per_node(spec: FineTuneJobSpec) -> int:
    """Ranks of one pod: one for each GPU; one on CPU."""
    return max(1, spec.resources.gpus_per_node)


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


def holds_teacher(spec: FineTuneJobSpec) -> bool:
    """Whether a teacher is in memory next to the trained model."""
    return bool(spec.distillation and spec.distillation.by_logits)


def training_rows(spec: FineTuneJobSpec, datasets: Datasets) -> int:
    """Number of training rows."""
    counts = {
        (name, s["name"]): s["rows"]
        for name, dataset in datasets.items()
        for s in (dataset.get("status") or {}).get("splits") or ()
    }
    return sum(counts.get((ref.name, ref.split), 0) for ref in spec.datasets)


def training_tokens(spec: FineTuneJobSpec, datasets: Datasets) -> int:
    """Tokens of the training rows, as counted by the Datasets; 0 if a Dataset has no count."""
    means = [s.get("mean", 0) for s in _statistics(spec, datasets)]
    return round(training_rows(spec, datasets) * sum(means) / len(means)) if all(means) else 0


def trained_tokens(spec: FineTuneJobSpec, datasets: Datasets) -> float:
    """Tokens of all passes over the training rows; 0 if a Dataset has no count."""
    tokens, training = training_tokens(spec, datasets), spec.training
    if training.max_steps is None:
        return tokens * float(training.epochs or 1)
    return tokens / max(1, training_rows(spec, datasets)) * training.max_steps * training.batch_size


def training_time(
    spec: FineTuneJobSpec, plans: Mapping[str, Setup], by_name: Mapping[str, gpus.Gpu | None], tokens: float
) -> dict[str, Any]:
    """The values of status.estimatedSeconds and its range, by the devices that `devices` gives."""
    products = {name: gpu for name, gpu in by_name.items() if gpu}
    if METHODS[spec.method].samples or not tokens or len(products) < len(by_name):
        return {"estimatedSeconds": None, "estimatedSecondsRange": None}
    each = [(plans[name], math.ceil(tokens), gpu.tflops) for name, gpu in products.items()]
    spans = [seconds_range(*one) for one in each]
    low, high = (math.ceil(end) for end in (min(low for low, _ in spans), max(high for _, high in spans)))
    expected = math.ceil(max(seconds(*one) for one in each))
    return {"estimatedSeconds": expected, "estimatedSecondsRange": {"low": low, "high": high}}


def _statistics(spec: FineTuneJobSpec, datasets: Datasets) -> list[Mapping[str, Any]]:
    """Token statistics of each Dataset; empty for one that was deleted after the run began."""
    datasets_used = [datasets.get(ref.name, {}) for ref in spec.datasets]
    return [(dataset.get("status") or {}).get("tokens") or {} for dataset in datasets_used]


def setup_of(
    spec: FineTuneJobSpec, shape: ModelShape, teacher: ModelShape | None, datasets: Datasets, gpu: gpus.Gpu | None
) -> Setup:
    """The setup of a rank on a device of `devices`."""
    on_gpu = spec.resources.gpus_per_node > 0
    by_hardware = on_gpu and (gpu is None or gpu.bf16)
    return setup(
        spec,
        shape,
        ranks=spec.resources.nodes * processes_per_node(spec),
        gpu=on_gpu,
        bf16=by_hardware or spec.training.precision == "BFloat16",
        longest=longest_sequence(spec, longest_row(spec, shape, datasets)),
        memory=smallest(spec),
        teacher=teacher,
        row_tokens=training_tokens(spec, datasets),
    )


def longest_row(spec: FineTuneJobSpec, shape: ModelShape, datasets: Datasets) -> int:
    """Tokens of the longest row, as the Datasets count them (bytes/4), at most the model's context."""
    if spec.method == Method.DAPT:
        return DOCUMENT_TOKENS
    longest = max((s.get("max", 0) for s in _statistics(spec, datasets)), default=0) or DOCUMENT_TOKENS
    return min(longest, spec.training.context_of(shape.context) if shape.context else longest)


def misfit(spec: FineTuneJobSpec, name: str, s: Setup, needs: Estimate) -> Misfit | None:
    """Why the run cannot fit on this device, whose memory is known."""
    room = capacity(spec, name) or 0
    if needs.total > SURE * room:
        shared = " next to vLLM" if vllm_fraction(spec) else ""
        has = f"resources.memory is {spec.resources.memory}" if name == "CPU" else f"{name} has {gib(room)}{shared}"
        way = change_that_fits(s, int(TIGHT * room))
        hint = f"The cheapest change that fits: {way}." if way else "No setting makes it fit there: use more memory."
        return Misfit(
            f"A rank needs about {gib(needs.total)} ({needs.words()}), but {has}. {hint}",
            hint,
        )
    gpu, need = gpus.find(name), of_vllm(s)
    if gpu and (fraction := vllm_fraction(spec)) and need > fraction * gpu.memory:
        hint = f"Set grpo.generation.gpuMemoryUtilization to {math.ceil(100 * need / gpu.memory) / 100:.2f} or more."
        has = f"but {fraction:g} of {name} is {gib(fraction * gpu.memory)}"
        return Misfit(f"vLLM needs {gib(need)} for its weights and one sample, {has}. {hint}", hint)
    return None
