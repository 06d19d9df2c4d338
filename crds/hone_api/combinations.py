"""Combinations of settings that are valid individually but not together. Used by operator and trainer."""

from __future__ import annotations

from hone_api import json_schemas
from hone_api.dataset import Format
from hone_api.methods import METHODS, GrpoMethod, Method, PpoMethod
from hone_api.rewards import VERIFIERS, Reward
from hone_api.training import Adapter, AdapterType, Evaluation, EvaluationMetric, Training

LARGEST_MICRO_BATCH = 8
"""Maximum rows of a micro batch by default: more rarely help, and memory grows with them."""
_PAIRS_METRICS = {"accuracy", "margin"}
"""Methods on pairs have their own metrics reward_accuracy and reward_margin."""


def divisors(rows: int) -> list[int]:
    """Numbers of rows that a micro batch can have so that a rank's `rows` divide equally, largest first; always has
    1."""
    return [d for d in range(min(rows, LARGEST_MICRO_BATCH), 1, -1) if rows % d == 0] + [1]


def problems(
    method: Method | str,
    training: Training,
    adapter: Adapter,
    world_size: int,
    grpo: GrpoMethod | None = None,
    ppo: PpoMethod | None = None,
) -> list[str]:
    """What a method cannot be combined with, each with the way out. Used by operator and trainer."""
    out = []
    if training.packing and method != Method.SFT:
        way_out = "DAPT packs by dapt.pack" if method == Method.DAPT else f"{method} looks at whole answers"
        out.append(f"training.packing is for method SFT ({way_out}): remove it")
    if METHODS[Method(method)].compares and float(adapter.dropout or 0):
        out.append(f"adapter.dropout: method {method} trains without dropout, which blurs what it compares: remove it")
    rows = training.micro_batch_size or divisors(training.batch_size // world_size)[0]
    if method == Method.KTO and rows < 2:
        out.append(
            "training: KTO compares the answers of a forward pass, at least 2 on each rank: raise microBatchSize, or "
            "choose a batchSize of an even number of rows a rank"
        )
    if method == Method.PPO and ppo is not None:
        out += _room_for_answers("ppo", ppo, training)
    if method == Method.GRPO and grpo is not None:
        out += _grpo_problems(grpo, training) + _schema_problems("grpo.rewards", grpo.rewards)
    return out


def generation_problems(grpo: GrpoMethod | None, adapter: Adapter, *, sharded: bool) -> list[str]:
    """Why vLLM cannot generate the samples of a run, each with the way out. Used by operator and trainer."""
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
    bitsandbytes
    does not load in 4 bits.
    """
    out, way_out = [], "or name the attention layers in adapter.targets"
    if float(adapter.dropout or 0):
        out.append(f"adapter.dropout: adapters of experts have none: remove it, {way_out}")
    if adapter.type == AdapterType.DORA:
        out.append(f"adapter.type DoRA cannot adapt experts: use LoRA, {way_out}")
    if adapter.type == AdapterType.QLORA:
        out.append(f"adapter.type QLoRA does not hold experts in 4 bits: use LoRA, {way_out}")
    return out


def start_problems(training: Training, adapter: Adapter, *, sharded: bool) -> list[str]:
    """Why weights cannot be pulled to their start, each with the way out. Used by operator and trainer."""
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


def evaluation_problems(
    method: Method | str,
    evaluation: Evaluation,
    adapter: Adapter,
    *,
    sharded: bool,
    grpo: GrpoMethod | None = None,
) -> list[str]:
    """Parts of `evaluation` that a run cannot measure, each with the way out. Used by operator and trainer."""
    out, retention = [], evaluation.retention
    if method == Method.REWARD and (evaluation.metrics or evaluation.rewards or retention or evaluation.harness):
        out.append(
            "evaluation.metrics, rewards, retention and harness: a reward model generates no answers: remove them"
        )
    elif evaluation.metrics and method in (Method.PPO, Method.GRPO):
        out.append(f"evaluation.metrics: {method} has only prompts: measure answers with evaluation.rewards")
    elif (
        EvaluationMetric.MULTIPLE_CHOICE in evaluation.metrics
        and Format.PREFERENCE not in METHODS[Method(method)].formats
    ):
        out.append(
            f"evaluation.metrics MultipleChoice needs chosen and rejected answers, which rows of {method} do not have: "
            "measure it by evaluation.retention"
        )
    if retention and retention.interpolate and adapter.type == AdapterType.DORA:
        out.append("evaluation.retention.interpolate: DoRA's update has no factor to scale: use adapter type LoRA")
    if retention and retention.interpolate and adapter.type == AdapterType.NONE and sharded:
        out.append("evaluation.retention.interpolate needs whole weights on each rank: remove it, or deepspeed")
    if evaluation.harness and (twice := _twice(evaluation.harness.tasks)):
        out.append(f"evaluation.harness.tasks names {twice} twice: remove one")
    out += _schema_problems("evaluation.rewards", evaluation.rewards)
    return [*out, *_scoring_problems(method, evaluation.rewards, grpo), *_pass_at_problems(evaluation)]


def _pass_at_problems(evaluation: Evaluation) -> list[str]:
    """Problems that the API server also refuses; a plan without a cluster never reaches it."""
    options, out = evaluation.pass_at, []
    if options and not any(reward.type in VERIFIERS for reward in evaluation.rewards):
        out.append(f"evaluation.passAt needs a reward of type {', '.join(VERIFIERS)} in evaluation.rewards")
    if options and max(options.k) > options.generations:
        out.append(f"evaluation.passAt.k: {max(options.k)} is more than generations {options.generations}")
    return out


def _scoring_problems(method: Method | str, rewards: list[Reward], grpo: GrpoMethod | None) -> list[str]:
    out = []
    if rewards and method == Method.DAPT:
        out.append("evaluation.rewards: the rows of DAPT are texts without a prompt to answer: remove them")
    titles = [reward.title for reward in rewards]
    if twice := _twice(titles):
        out.append(f"evaluation.rewards: more than one is named {twice}: give them names")
    if reserved := sorted(_PAIRS_METRICS.intersection(titles)):
        out.append(f"evaluation.rewards: {', '.join(reserved)}: methods have metrics of this name: give it another")
    if weighted := [reward.title for reward in rewards if float(reward.weight) != 1]:
        out.append(f"evaluation.rewards: each is reported separately: remove the weight of {', '.join(weighted)}")
    trained = {reward.title: reward for reward in grpo.rewards} if grpo else {}
    other = [r.title for r in rewards if r.title in trained and not _alike(r, trained[r.title])]
    if other:
        out.append(f"evaluation.rewards: grpo.rewards has a different reward named {', '.join(other)}: give it a name")
    return out


def _schema_problems(field: str, rewards: list[Reward]) -> list[str]:
    problems_by_title = (
        (one.title, json_schemas.problem(one.json_schema.schema_)) for one in rewards if one.json_schema
    )
    return [f"{field}: the jsonSchema.schema of {title} {problem}" for title, problem in problems_by_title if problem]


def _alike(one: Reward, other: Reward) -> bool:
    """Whether both are equal except for the weight."""
    return one == other.model_copy(update={"weight": one.weight})


def _twice(names: list[str]) -> str:
    return ", ".join(sorted({name for name in names if names.count(name) > 1}))


def _grpo_problems(grpo: GrpoMethod, training: Training) -> list[str]:
    out = []
    if training.batch_size % grpo.generations:
        out.append(
            f"training.batchSize {training.batch_size} counts samples: it must be a multiple of "
            f"grpo.generations {grpo.generations}"
        )
    out += _room_for_answers("grpo", grpo, training)
    if twice := _twice([reward.title for reward in grpo.rewards]):
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
