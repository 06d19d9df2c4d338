"""Forecast for a run before it requests a GPU: advice, the memory it needs, and whether it can fit."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from hone_api.base.wording import counted
from hone_api.combinations import expert_problems
from hone_api.combinations.elastic import node_counts
from hone_api.contract.status_json import MemoryJson
from hone_api.estimate import job_needs
from hone_api.estimate.advice import advise
from hone_api.estimate.memory import Estimate, Setup, estimate, gib
from hone_api.estimate.micro_batch import fitted, longest_sequence
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.words.failures import FailureCode
from hone_api.words.states import ConditionType, Reason
from hone_operator.desired.run.attempt import world_size
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome_builder import JobBuilder
from hone_operator.reconcile.gates import licensing, shared_rows
from hone_operator.reconcile.gates.basemodel import BaseModel
from hone_operator.reconcile.staging.inputs import Datasets


def look_ahead(builder: JobBuilder, spec: FineTuneJobSpec, model: BaseModel, datasets: Datasets) -> Cause | None:
    """Set condition Advised and the estimate in status; returns the cause if the run cannot fit the requested
    resources."""
    packed = longest_sequence(spec, job_needs.longest_row(spec, model.shape, datasets)) if model.shape else None
    sentences = advise(spec, job_needs.training_rows(spec, datasets), job_needs.training_tokens(spec, datasets), packed)
    sentences += [*licensing.advise(spec, model, datasets), *shared_rows.advise(spec, datasets)]
    cause = None
    if model.shape is not None and not (job_needs.holds_teacher(spec) and model.teacher is None):
        devices = job_needs.devices(spec)
        rooms = {name: job_needs.capacity(spec, name) or 0 for name in devices}
        plans = {
            name: job_needs.setup_of(spec, model.shape, model.teacher, datasets, gpu) for name, gpu in devices.items()
        }
        estimates = {name: estimate(s) for name, s in plans.items()}
        largest = max(rooms, key=rooms.__getitem__)
        builder.put(
            memory=_memory(spec, estimates[largest]),
            **job_needs.training_time(spec, plans, devices, job_needs.trained_tokens(spec, datasets)),
        )
        if all(rooms.values()):  # on an unknown device it may fit
            cause = _misfit(spec, largest, plans[largest], estimates[largest])
        if plans[largest].adapts_experts and (wrong := expert_problems(spec.adapter)):
            cause = Cause(FailureCode.CONFLICTING_FIELDS, "; ".join(f"spec.{words}" for words in wrong))
        sentences += [
            f"memory is tight on {name}: about {gib(e.total)} of {gib(rooms[name])}."
            for name, e in estimates.items()
            if rooms[name] and e.total > job_needs.TIGHT * rooms[name]
        ]
        sentences += _host(spec, estimates, plans)
        for name in (name for name, e in estimates.items() if rooms[name] and e.total <= job_needs.TIGHT * rooms[name]):
            sentences += _on_fewer_nodes(spec, name, plans[name], rooms[name])
    put_advice(builder, sentences)
    return cause


def _host(spec: FineTuneJobSpec, estimates: Mapping[str, Estimate], plans: Mapping[str, Setup]) -> Iterator[str]:
    """Warn if rows and offloaded data fill the memory of a pod with GPUs, with all nodes or with fewer.

    Args:
        plans: of the estimates, by device.
    """
    need = max(_in_host(spec, e) for e in estimates.values())
    room = job_needs.capacity(spec, "CPU")
    if not spec.resources.gpus_per_node or not room:
        return
    if need > job_needs.TIGHT * room:
        yield (
            f"memory of the host is tight: rows and what is offloaded take about {gib(need)} in a pod, over all its "
            f"ranks; resources.memory is {spec.resources.memory}."
        )
        return
    by_nodes = [_by_nodes(spec, s) for s in plans.values()]
    needs = {nodes: max(_in_host(spec, each[nodes]) for each in by_nodes) for nodes in by_nodes[0]}
    if tight := [nodes for nodes in needs if needs[nodes] > job_needs.TIGHT * room]:
        yield (
            f"memory of the host is tight in an attempt with {counted(min(tight), 'node')}: rows and what is offloaded "
            f"take about {gib(needs[min(tight)])} in a pod, over all its ranks, because fewer ranks hold more of what "
            f"ZeRO divides; resources.memory is {spec.resources.memory}: raise it, or {_way(spec, needs, tight)}."
        )


def _in_host(spec: FineTuneJobSpec, e: Estimate) -> int:
    """Bytes in the memory of a pod with GPUs."""
    return e.host * job_needs.processes_per_node(spec) + e.rows


def _on_fewer_nodes(spec: FineTuneJobSpec, name: str, s: Setup, room: int) -> Iterator[str]:
    """Warn if a rank of an attempt with fewer nodes has too much of what ZeRO divides.

    Args:
        s: of an attempt with all nodes, which fits.
        room: memory of a rank, bytes.
    """
    needs = {nodes: e.total for nodes, e in _by_nodes(spec, s).items()}
    if tight := [nodes for nodes in needs if needs[nodes] > job_needs.TIGHT * room]:
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
        nodes: estimate(fitted(replace(s, ranks=world_size(spec, nodes)), spec, job_needs.smallest(spec)))
        for nodes in node_counts(spec.resources, spec.training)
    }


def _way(spec: FineTuneJobSpec, needs: Iterable[int], tight: Iterable[int]) -> str:
    """How attempts keep off the numbers of nodes on which memory is tight; with all nodes it is not."""
    fits = min({*needs} - {*tight} | {spec.resources.nodes})
    return f"set resources.minNodes to {fits}" if fits < spec.resources.nodes else "remove resources.minNodes"


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


def _memory(spec: FineTuneJobSpec, needs: Estimate) -> MemoryJson:
    """The value of status.memory: all ranks of a pod together, like the measured peak."""
    terms = sorted(needs.terms.items(), key=lambda t: -t[1])
    return {
        "estimated": needs.total * job_needs.processes_per_node(spec),
        "terms": [{"name": name, "bytes": size} for name, size in terms],
    }


def _misfit(spec: FineTuneJobSpec, name: str, s: Setup, e: Estimate) -> Cause | None:
    found = job_needs.misfit(spec, name, s, e)
    return Cause(FailureCode.DOES_NOT_FIT, *found) if found else None
