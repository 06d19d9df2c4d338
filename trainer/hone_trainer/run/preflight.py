"""What must hold before the first step. Each check answers with the sentences that are wrong, so all come at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from importlib.util import find_spec

from hone_api.blocks.shape import expert_count
from hone_api.combinations import Problem, problems
from hone_api.combinations.elastic import METHODS_ON_ANY_RANKS
from hone_api.combinations.probing import PROBING_RULES
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer import device, ranks
from hone_trainer.device import Device
from hone_trainer.encoding import rendering
from hone_trainer.encoding.split_file import Counts, Encoded, problem
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.models import adapters, gguf, rope_scaling
from hone_trainer.models.base_model import Base, check_weights, open_base
from hone_trainer.training import selfcheck

STOP_SHARE = 0.99
"""Share of rows that should train the end-of-turn token; below it the model may not learn to stop."""


def check_plan(plan: TrainingPlan, device: Device, *, methods: Collection[str]) -> None:
    """What needs neither model nor data.

    Raises:
        TrainerError: NotSupportedYet, or the code of the first problem; the message has every wrong field.
    """
    missing = list(_not_supported(plan, methods))
    if missing:
        raise TrainerError(FailureCode.NOT_SUPPORTED_YET, "; ".join(missing))
    _refuse([*problems(plan, device.world_size), *_plan(plan), *_hardware(plan, device), *_held_out(plan)])


def check_base(plan: TrainingPlan, base: Base) -> None:
    """What needs the model's config and the headers of its files.

    Raises:
        TrainerError: UnsupportedModel or UnsafeModel, if the files are not the weights of the model; ModelUnsuitable,
            with every wrong field; what the method's own check raises.
    """
    if ranks.is_first():
        if "GGUF" in plan.output.formats:
            gguf.check(base.path)
        check_weights(base, METHODS[plan.method].head)
    _refuse([Problem(FailureCode.MODEL_UNSUITABLE, words) for words in _base(plan, base)])
    METHODS[plan.method].check(plan, base)


def before_ranks(run: TrainingPlan) -> Base:
    """The base, once plan and base were checked, in a process that works for the ranks.

    Raises:
        TrainerError: see `plan` and `base`.
    """
    check_plan(run, replace(device.here(), world_size=run.nodes * run.processes_per_node), methods=METHODS)
    base = open_base(run.model_path, training=run.training)
    check_base(run, base)
    return base


def check_rows(encoded: Encoded, base: Base, where: str) -> list[str]:
    """What must hold for encoded rows; `where` names their split.

    Returns:
        Warnings for people.

    Raises:
        TrainerError: InvalidRow.
    """
    for row in encoded.rows:
        if bad := problem(row, base.vocabulary):
            raise TrainerError(FailureCode.INVALID_ROW, f"{where}, {bad}")
    return untrained_ends(encoded.counts, where)


def untrained_ends(counts: Counts, where: str) -> list[str]:
    """A warning when many rows do not teach the model to stop; `where` names their split."""
    if counts.rows_with_end_of_turn >= STOP_SHARE * counts.rows:
        return []
    return [
        f"{where}: only {counts.rows_with_end_of_turn} of {counts.rows} rows train their end-of-turn token; "
        "the model may not learn to stop"
    ]


def _not_supported(plan: TrainingPlan, methods: Collection[str]) -> Iterator[str]:
    if plan.method not in methods:
        yield f"method {plan.method} (this version has {', '.join(methods)})"
    if plan.grpo and plan.grpo.generation.is_colocated and find_spec("vllm") is None:
        yield "grpo.generation.engine VLLM (this image has no vLLM: use trainer-vllm, or engine Transformers)"
    if plan.output.push:
        yield "output.push (deliver the result by `python -m hone_trainer deliver`)"
    if plan.deepspeed and plan.deepspeed.offload == "NVMe":
        yield "deepspeed.offload NVMe (its optimizer is not restored from checkpoints: use OptimizerAndParameters)"


def _plan(plan: TrainingPlan) -> Iterator[Problem]:
    """What only a plan has: the objects that a spec refers to are resolved in it."""
    if plan.grpo and plan.grpo.generation.endpoint and plan.model_adapter:
        yield _conflict(
            "grpo.generation.endpoint: the base is an adapter that is merged for this run alone, which no server has: "
            "set output.merge in the job that trains it"
        )
    if plan.processes_per_node % plan.training.ranks_of_row:
        yield _conflict(
            f"training.sequenceParallel {plan.training.sequence_parallel} must divide the {plan.processes_per_node} "
            "ranks of a node: change one of them"
        )
    if plan.evaluation.against and plan.compared_model is None and plan.compared_with != "":
        yield _conflict("evaluation.against needs comparedWith and comparedModel: name and folder of that model")
    if plan.max_nodes and plan.method not in METHODS_ON_ANY_RANKS:
        yield _conflict(f"maxNodes is for the methods {', '.join(METHODS_ON_ANY_RANKS)}: remove it")
    yield from (_conflict(rule.message) for rule in PROBING_RULES if not rule.holds(plan.to_json()))
    if plan.evaluation.harness and not plan.harness_tasks:
        yield _conflict("evaluation.harness needs harnessTasks: stage them by `python -m hone_trainer tasks`")


def _hardware(plan: TrainingPlan, device: Device) -> Iterator[Problem]:
    if plan.training.precision == "BFloat16" and not device.bf16:
        words = "training.precision BFloat16 needs a GPU or CPU that multiplies in it: use Auto or Float32"
        yield Problem(FailureCode.HARDWARE_UNSUITABLE, words)
    elif plan.training.precision == "BFloat16" and plan.deepspeed and not device.cuda:
        words = "training.precision BFloat16 with deepspeed needs a GPU: on CPUs use Auto or Float32, or no deepspeed"
        yield Problem(FailureCode.HARDWARE_UNSUITABLE, words)


def _held_out(plan: TrainingPlan) -> Iterator[Problem]:
    """Fields that need held-out rows, where the plan has none."""
    if plan.evaluation_datasets:
        return
    retention = plan.evaluation.retention
    asking = {
        "earlyStopping": plan.early_stopping is not None,
        "evaluation.retention.interpolate": retention is not None and retention.interpolate,
        "evaluation.rewards": bool(plan.evaluation.rewards),
    }
    for field in (field for field, asks in asking.items() if asks):
        words = "needs held-out rows: name evaluationDatasets, or a Dataset with a validation split"
        yield Problem(FailureCode.HELD_OUT_ROWS_MISSING, f"{field} {words}")


def _conflict(words: str) -> Problem:
    return Problem(FailureCode.CONFLICTING_FIELDS, words)


def _base(plan: TrainingPlan, base: Base) -> Iterator[str]:
    yield from selfcheck.problems(base)
    saved = getattr(base.config, "quantization_config", None) or {}
    if saved.get("quant_method") == "bitsandbytes" and not adapters.is_adapter(plan.adapter):
        yield "adapter.type None: the base was saved in 4 or 8 bits, which cannot be trained: use LoRA or QLoRA"
    if plan.training.rope_scaling:
        yield from rope_scaling.problems(base.config, adapters.without_weights(base.config))
    length = plan.training.max_length
    if length and length > base.context:
        yield f"training.maxLength {length} is over the model's context of {base.context} tokens"
    if plan.training.thinking != "Auto" and not rendering.switched(base.tokenizer, plan.training.thinking):
        yield (
            f"training.thinking {plan.training.thinking}: the model's chat template has no switch for it "
            "(enable_thinking or thinking): remove it"
        )
    options = plan.evaluation.harness
    if options and options.apply_chat_template and not base.tokenizer.chat_template:
        yield "evaluation.harness.applyChatTemplate: the model's tokenizer has no chat template: remove it"
    if adapters.is_adapter(plan.adapter) and (plan.adapter.targets or expert_count(base.config.to_dict())):
        yield from adapters.problems(plan.adapter, adapters.without_weights(base.config))


def _refuse(problems: list[Problem]) -> None:
    """All at once; the code is that of the first."""
    if problems:
        raise TrainerError(problems[0].code, "; ".join(problem.message for problem in problems))
