"""Combinations of settings that are valid individually but not together. Used by operator and trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from hone_api.base.meta import ApiModel
from hone_api.blocks.evaluation import Evaluation
from hone_api.blocks.training import Adapter, AdapterType, DeepSpeed, Training
from hone_api.combinations.batches import batch_problems, divisors
from hone_api.combinations.evaluation import evaluation_problems, schema_problems, twice_in
from hone_api.combinations.rules import broken_rules
from hone_api.combinations.shares import share_problem
from hone_api.dataset.dataset import DATASET, DatasetSpec
from hone_api.methods import METHODS, GrpoMethod, Method, PpoMethod
from hone_api.words.failures import FailureCode


class Problem(NamedTuple):
    """Fields that a run cannot combine."""

    code: FailureCode
    """ConflictingFields, or InvalidValue where one value is wrong by itself."""
    message: str
    """Begins with the path of a field below the spec or the plan."""


class SpecOrPlan(Protocol):
    """What spec and plan have in common. Read-only: a plan may have narrower types."""

    @property
    def method(self) -> Method: ...
    @property
    def training(self) -> Training: ...
    @property
    def adapter(self) -> Adapter: ...
    @property
    def evaluation(self) -> Evaluation: ...
    @property
    def deepspeed(self) -> DeepSpeed | None: ...
    @property
    def grpo(self) -> GrpoMethod | None: ...
    @property
    def ppo(self) -> PpoMethod | None: ...
    @property
    def datasets(self) -> Sequence[DatasetShare]: ...


class DatasetShare(Protocol):
    """A Dataset among those that are trained on."""

    @property
    def share(self) -> str | None: ...


def problems(run: SpecOrPlan, world_size: int) -> list[Problem]:
    """Everything that does not go together in a run, each with the way out. Used by operator and trainer.

    Args:
        run: the spec of a FineTuneJob, or a training plan.
    """
    sharded, grpo = run.deepspeed is not None, run.grpo
    conflicts = [
        *batch_problems(run.training, world_size),
        *_method_problems(run, world_size),
        *_generation_problems(grpo, run.adapter, sharded=sharded),
        *_start_problems(run.training, run.adapter, sharded=sharded),
        *evaluation_problems(run.method, run.evaluation, run.adapter, sharded=sharded, grpo=grpo),
    ]
    shares = [dataset.share for dataset in run.datasets]
    if words := share_problem(shares):
        rest = "" if None in shares else "; an entry without one gets the rest"
        conflicts.append(f"datasets: {words}{rest}")
    broken = rule_problems(run) if isinstance(run, ApiModel) else ()
    return [*broken, *(Problem(FailureCode.CONFLICTING_FIELDS, words) for words in conflicts)]


def rule_problems(model: ApiModel, path: str = "") -> Iterator[Problem]:
    """Rules of the API server that an object breaks: it comes from a laptop, or from before the rule.

    Args:
        path: of the object, e.g. spec; messages begin with it.
    """
    for each in broken_rules(model, path):
        code = FailureCode.INVALID_VALUE if each.rule.one_field else FailureCode.CONFLICTING_FIELDS
        yield Problem(code, str(each))


def dataset_problems(name: str, spec: DatasetSpec) -> list[Problem]:
    """What the API server would refuse in a Dataset that only has values of the right type."""
    names = [
        Problem(FailureCode.INVALID_VALUE, rule.message)
        for rule in DATASET.rules
        if not rule.holds({"metadata": {"name": name}})
    ]
    return [*names, *rule_problems(spec, "spec")]


def _method_problems(run: SpecOrPlan, world_size: int) -> list[str]:
    """What a method cannot be combined with."""
    method, training, adapter, grpo, ppo = run.method, run.training, run.adapter, run.grpo, run.ppo
    out = []
    if training.packing and method != Method.SFT:
        way_out = "DAPT packs by dapt.pack" if method == Method.DAPT else f"{method} looks at whole answers"
        out.append(f"training.packing is for method SFT ({way_out}): remove it")
    if METHODS[Method(method)].compares and float(adapter.dropout or 0):
        out.append(f"adapter.dropout: method {method} trains without dropout, which blurs what it compares: remove it")
    rows = training.fixed_micro_batch or divisors(training.batch_size // world_size)[0]
    if method == Method.KTO and rows < 2:
        out.append(
            "training: KTO compares the answers of a forward pass, at least 2 on each rank: raise microBatchSize, or "
            "choose a batchSize of an even number of rows a rank"
        )
    if method == Method.PPO and ppo is not None:
        out += _room_for_answers("ppo", ppo, training)
    if method == Method.GRPO and grpo is not None:
        out += _grpo_problems(grpo, training) + schema_problems("grpo.rewards", grpo.rewards)
    return out


def _generation_problems(grpo: GrpoMethod | None, adapter: Adapter, *, sharded: bool) -> list[str]:
    """Why vLLM cannot generate the samples of a run, each with the way out."""
    if grpo is None or not grpo.generation.is_vllm:
        return []
    out = []
    if adapter.type == AdapterType.QLORA:
        out.append("grpo.generation.engine VLLM gets weights that are not in 4 bits: use adapter type LoRA")
    if grpo.generation.endpoint and adapter.type in (AdapterType.NONE, AdapterType.DORA):
        what = "whole weights" if adapter.type == AdapterType.NONE else "DoRA"
        out.append(
            f"grpo.generation.endpoint: a server takes adapters of type LoRA, not {what}: use adapter type LoRA, or "
            "remove endpoint, for a vLLM on the GPUs of the job"
        )
    if float(adapter.dropout or 0):
        # TRL computes the probabilities that it compares with vLLM's in training mode.
        out.append("adapter.dropout: vLLM samples without it, training would compare probabilities with it: remove it")
    if sharded:
        out.append("grpo.generation.engine VLLM needs whole weights on each rank: remove deepspeed")
    return out


def expert_problems(adapter: Adapter) -> list[str]:
    """What an adapter of experts does not support, each with the way out.

    The experts of a layer are one parameter, which peft adapts only by its weight (no dropout, no DoRA) and
    bitsandbytes does not load in 4 bits.
    """
    out, way_out = [], "or name the attention layers in adapter.targets"
    if float(adapter.dropout or 0):
        out.append(f"adapter.dropout: adapters of experts have none: remove it, {way_out}")
    if adapter.type == AdapterType.DORA:
        out.append(f"adapter.type DoRA cannot adapt experts: use LoRA, {way_out}")
    if adapter.type == AdapterType.QLORA:
        out.append(f"adapter.type QLoRA does not hold experts in 4 bits: use LoRA, {way_out}")
    return out


def _start_problems(training: Training, adapter: Adapter, *, sharded: bool) -> list[str]:
    """Why weights cannot be pulled to their start, each with the way out."""
    if training.l2_to_start is None:
        return []
    out = []
    if adapter.type != AdapterType.NONE:
        out.append(
            "training.l2ToStart is for adapter None: an adapter's update begins at zero, where training.weightDecay "
            "pulls it: use that"
        )
    if sharded:
        out.append("training.l2ToStart needs whole weights on each rank: remove it, or deepspeed")
    return out


def _grpo_problems(grpo: GrpoMethod, training: Training) -> list[str]:
    out = []
    if training.batch_size % grpo.generations:
        out.append(
            f"training.batchSize {training.batch_size} counts samples: it must be a multiple of "
            f"grpo.generations {grpo.generations}"
        )
    out += _room_for_answers("grpo", grpo, training)
    if twice := twice_in([reward.title for reward in grpo.rewards]):
        out.append(f"grpo.rewards: more than one is named {twice}: give them names")
    return out


def _room_for_answers(block: str, options: PpoMethod | GrpoMethod, training: Training) -> list[str]:
    longest = options.max_completion_length
    if not training.max_length or training.max_length > longest:
        return []
    return [
        f"training.maxLength {training.max_length} counts prompt and answer: it must be above "
        f"{block}.maxCompletionLength {longest}"
    ]
