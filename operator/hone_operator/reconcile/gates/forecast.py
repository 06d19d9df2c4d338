"""Forecast for a run before it requests a GPU: advice, the memory it needs, and whether it can fit."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from hone_api.base.wording import counted
from hone_api.blocks.shape import ModelShape
from hone_api.combinations import expert_problems
from hone_api.combinations.elastic import node_counts
from hone_api.contract.status_json import MemoryJson
from hone_api.estimate import gpus
from hone_api.estimate.advice import advise
from hone_api.estimate.cost import seconds
from hone_api.estimate.memory import Estimate, Setup, estimate, gib, of_vllm
from hone_api.estimate.micro_batch import fitted, longest_sequence, setup
from hone_api.estimate.savings import change_that_fits
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.methods import METHODS, Method
from hone_api.words.failures import FailureCode
from hone_api.words.states import ConditionType, Reason
from hone_operator.desired.run import memory
from hone_operator.desired.run.attempt import processes_per_node, world_size
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome_builder import JobBuilder
from hone_operator.reconcile.gates import licensing
from hone_operator.reconcile.gates.basemodel import BaseModel
from hone_operator.reconcile.staging.inputs import Datasets

SURE = 1.1
"""A run is refused only if the estimate exceeds the memory by more than the estimate's own error."""
TIGHT = 0.95
DOCUMENT_TOKENS = 2048
"""Tokens of a sequence of packed documents if the job sets none."""


def look_ahead(builder: JobBuilder, spec: FineTuneJobSpec, model: BaseModel, datasets: Datasets) -> Cause | None:
    """Set condition Advised and the estimate in status; returns the cause if the run cannot fit the requested
    resources."""
    packed = longest_sequence(spec, _longest(spec, model.shape, datasets)) if model.shape else None
    sentences = advise(spec, _rows(spec, datasets), _tokens(spec, datasets), packed)
    sentences += licensing.advise(spec, model, datasets)
    cause = None
    if model.shape is not None and not (_holds_teacher(spec) and model.teacher is None):
        devices = memory.devices(spec)
        rooms = {name: memory.capacity(spec, name) or 0 for name in devices}
        plans = {name: _setup(spec, model.shape, model.teacher, datasets, gpu) for name, gpu in devices.items()}
        estimates = {name: estimate(s) for name, s in plans.items()}
        largest = max(rooms, key=rooms.__getitem__)
        builder.put(
            memory=_memory(spec, estimates[largest]),
            estimatedSeconds=_training_seconds(spec, plans, devices, _trained_tokens(spec, datasets)),
        )
        if all(rooms.values()):  # on an unknown device it may fit
            cause = _misfit(spec, largest, plans[largest], estimates[largest])
        if plans[largest].adapts_experts and (wrong := expert_problems(spec.adapter)):
            cause = Cause(FailureCode.CONFLICTING_FIELDS, "; ".join(f"spec.{words}" for words in wrong))
        sentences += [
            f"memory is tight on {name}: about {gib(e.total)} of {gib(rooms[name])}."
            for name, e in estimates.items()
            if rooms[name] and e.total > TIGHT * rooms[name]
        ]
        sentences += _host(spec, estimates, plans)
        for name in (name for name, e in estimates.items() if rooms[name] and e.total <= TIGHT * rooms[name]):
            sentences += _on_fewer_nodes(spec, name, plans[name], rooms[name])
    put_advice(builder, sentences)
    return cause


def _host(spec: FineTuneJobSpec, estimates: Mapping[str, Estimate], plans: Mapping[str, Setup]) -> Iterator[str]:
    """Warn if rows and offloaded data fill the memory of a pod with GPUs, with all nodes or with fewer.

    Args:
        plans: of the estimates, by device.
    """
    need = max(_in_host(spec, e) for e in estimates.values())
    room = memory.capacity(spec, "CPU")
    if not spec.resources.gpus_per_node or not room:
        return
    if need > TIGHT * room:
        yield (
            f"memory of the host is tight: rows and what is offloaded take about {gib(need)} in a pod, over all its "
            f"ranks; resources.memory is {spec.resources.memory}."
        )
        return
    by_nodes = [_by_nodes(spec, s) for s in plans.values()]
    needs = {nodes: max(_in_host(spec, each[nodes]) for each in by_nodes) for nodes in by_nodes[0]}
    if tight := [nodes for nodes in needs if needs[nodes] > TIGHT * room]:
        yield (
            f"memory of the host is tight in an attempt with {counted(min(tight), 'node')}: rows and what is offloaded "
            f"take about {gib(needs[min(tight)])} in a pod, over all its ranks, because fewer ranks hold more of what "
            f"ZeRO divides; resources.memory is {spec.resources.memory}: raise it, or {_way(spec, needs, tight)}."
        )


def _in_host(spec: FineTuneJobSpec, e: Estimate) -> int:
    """Bytes in the memory of a pod with GPUs."""
    return e.host * processes_per_node(spec) + e.rows


def _on_fewer_nodes(spec: FineTuneJobSpec, name: str, s: Setup, room: int) -> Iterator[str]:
    """Warn if a rank of an attempt with fewer nodes has too much of what ZeRO divides.

    Args:
        s: of an attempt with all nodes, which fits.
        room: memory of a rank, bytes.
    """
    needs = {nodes: e.total for nodes, e in _by_nodes(spec, s).items()}
    if tight := [nodes for nodes in needs if needs[nodes] > TIGHT * room]:
        yield (
            f"memory is tight on {name} in an attempt with {counted(min(tight), 'node')}: about "
            f"{gib(needs[min(tight)])} of {gib(room)}, because fewer ranks hold more of what ZeRO divides: "
            f"{_way(spec, needs, tight)}."
        )


def _by_nodes(spec: FineTuneJobSpec, s: Setup) -> dict[int, Estimate]:
    """Estimates for the numbers of nodes that attempts may have; none if all need the same memory.

    Args:
        s: of an attempt with all nodes.
    """
    if spec.deepspeed is None or spec.resources.min_nodes is None:
        return {}
    return {
        nodes: estimate(fitted(replace(s, ranks=world_size(spec, nodes)), spec, memory.smallest(spec)))
        for nodes in node_counts(spec.resources, spec.training)
    }


def _way(spec: FineTuneJobSpec, needs: Iterable[int], tight: Iterable[int]) -> str:
    """How attempts keep off the numbers of nodes on which memory is tight; with all nodes it is not."""
    fits = min({*needs} - {*tight} | {spec.resources.nodes})
    return f"set resources.minNodes to {fits}" if fits < spec.resources.nodes else "remove resources.minNodes"


def _holds_teacher(spec: FineTuneJobSpec) -> bool:
    return bool(spec.distillation and spec.distillation.by_logits)


def put_advice(builder: JobBuilder, sentences: list[str]) -> None:
    """Set condition Advised; add an Event the first time."""
    if sentences:
        builder.conditions.set(ConditionType.ADVISED, True, Reason.ADVICE, " ".join(sentences))
        builder.add_event_if_changed(ConditionType.ADVISED)
    else:
        builder.conditions.set(ConditionType.ADVISED, False, Reason.NOTHING_TO_ADVISE)


def add_advice(builder: JobBuilder, sentences: Iterable[str]) -> None:
    """Add sentences to condition Advised, which was set before, unless it has them."""
    before = builder.conditions.get(ConditionType.ADVISED).get("message", "")
    if new := [sentence for sentence in sentences if sentence not in before]:
        put_advice(builder, [*([before] if before else []), *new])


def _rows(spec: FineTuneJobSpec, datasets: Datasets) -> int:
    """Number of training rows."""
    counts = {
        (name, s["name"]): s["rows"]
        for name, dataset in datasets.items()
        for s in (dataset.get("status") or {}).get("splits") or ()
    }
    return sum(counts.get((ref.name, ref.split), 0) for ref in spec.datasets)


def _tokens(spec: FineTuneJobSpec, datasets: Datasets) -> int:
    """Tokens of the training rows, as counted by the Datasets; 0 if a Dataset has no count."""
    means = [s.get("mean", 0) for s in _statistics(spec, datasets)]
    return round(_rows(spec, datasets) * sum(means) / len(means)) if all(means) else 0


def _trained_tokens(spec: FineTuneJobSpec, datasets: Datasets) -> float:
    """Tokens of all passes over the training rows; 0 if a Dataset has no count."""
    tokens, training = _tokens(spec, datasets), spec.training
    if training.max_steps is None:
        return tokens * float(training.epochs or 1)
    return tokens / max(1, _rows(spec, datasets)) * training.max_steps * training.batch_size


def _training_seconds(
    spec: FineTuneJobSpec, plans: Mapping[str, Setup], devices: Mapping[str, gpus.Gpu | None], tokens: float
) -> int | None:
    """The value of status.estimatedSeconds."""
    products = {name: gpu for name, gpu in devices.items() if gpu}
    if METHODS[spec.method].samples or not tokens or len(products) < len(devices):
        return None
    return math.ceil(max(seconds(plans[name], math.ceil(tokens), gpu.tflops) for name, gpu in products.items()))


def _statistics(spec: FineTuneJobSpec, datasets: Datasets) -> list[Mapping[str, Any]]:
    """Token statistics of each Dataset; empty for one that was deleted after the run began."""
    datasets_used = [datasets.get(ref.name, {}) for ref in spec.datasets]
    return [(dataset.get("status") or {}).get("tokens") or {} for dataset in datasets_used]


def _setup(
    spec: FineTuneJobSpec, shape: ModelShape, teacher: ModelShape | None, datasets: Datasets, gpu: gpus.Gpu | None
) -> Setup:
    on_gpu = spec.resources.gpus_per_node > 0
    by_hardware = on_gpu and (gpu is None or gpu.bf16)
    return setup(
        spec,
        shape,
        ranks=world_size(spec),
        gpu=on_gpu,
        bf16=by_hardware or spec.training.precision == "BFloat16",
        longest=longest_sequence(spec, _longest(spec, shape, datasets)),
        memory=memory.smallest(spec),
        teacher=teacher,
        row_tokens=_tokens(spec, datasets),
    )


def _longest(spec: FineTuneJobSpec, shape: ModelShape, datasets: Datasets) -> int:
    """Tokens of the longest row, as the Datasets count them (bytes/4), at most the model's context."""
    if spec.method == Method.DAPT:
        return DOCUMENT_TOKENS
    longest = max((s.get("max", 0) for s in _statistics(spec, datasets)), default=0) or DOCUMENT_TOKENS
    return min(longest, shape.context or longest)


def _memory(spec: FineTuneJobSpec, needs: Estimate) -> MemoryJson:
    """The value of status.memory: all ranks of a pod together, like the measured peak."""
    terms = sorted(needs.terms.items(), key=lambda t: -t[1])
    return {
        "estimated": needs.total * processes_per_node(spec),
        "terms": [{"name": name, "bytes": size} for name, size in terms],
    }


def _misfit(spec: FineTuneJobSpec, name: str, s: Setup, needs: Estimate) -> Cause | None:
    """Why the run cannot fit on this device, whose memory is known."""
    room = memory.capacity(spec, name) or 0
    if needs.total > SURE * room:
        shared = " next to vLLM" if memory.vllm_fraction(spec) else ""
        has = f"resources.memory is {spec.resources.memory}" if name == "CPU" else f"{name} has {gib(room)}{shared}"
        way = change_that_fits(s, int(TIGHT * room))
        hint = f"The cheapest change that fits: {way}." if way else "No setting makes it fit there: use more memory."
        return Cause(
            FailureCode.DOES_NOT_FIT,
            f"A rank needs about {gib(needs.total)} ({needs.words()}), but {has}. {hint}",
            hint,
        )
    gpu, need = gpus.find(name), of_vllm(s)
    if gpu and (fraction := memory.vllm_fraction(spec)) and need > fraction * gpu.memory:
        hint = f"Set grpo.generation.gpuMemoryUtilization to {math.ceil(100 * need / gpu.memory) / 100:.2f} or more."
        has = f"but {fraction:g} of {name} is {gib(fraction * gpu.memory)}"
        return Cause(
            FailureCode.DOES_NOT_FIT, f"vLLM needs {gib(need)} for its weights and one sample, {has}. {hint}", hint
        )
    return None
