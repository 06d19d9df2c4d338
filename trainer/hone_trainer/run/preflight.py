"""What must hold before the first step. Each check answers with the sentences that are wrong, so all come at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from importlib.util import find_spec

from hone_api.combinations import evaluation_problems, generation_problems, problems, start_problems
from hone_api.estimate.shape import expert_count
from hone_api.methods import DistillationMethod
from hone_api.plan import TrainingPlan
from hone_trainer import ranks
from hone_trainer.device import Device
from hone_trainer.encoding.split_file import Encoded
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.models import adapters, gguf
from hone_trainer.models.base_model import Base
from hone_trainer.training import selfcheck

STOP_SHARE = 0.99
"""Share of rows that should teach the end mark; below it the model may not learn to stop."""


def plan(plan: TrainingPlan, device: Device, *, methods: Collection[str]) -> None:
    """What needs neither model nor data.

    Raises:
        TrainerError: InvalidConfiguration or NotSupportedYet, with every wrong field.
    """
    missing = list(_not_supported(plan, methods))
    if missing:
        raise TrainerError("NotSupportedYet", "; ".join(missing))
    _refuse(
        [
            *_plan(plan, device),
            *problems(plan.method, plan.training, plan.adapter, device.world_size, plan.grpo, plan.ppo),
            *generation_problems(plan.grpo, plan.adapter, sharded=plan.deepspeed is not None),
            *start_problems(plan.training, plan.adapter, sharded=plan.deepspeed is not None),
            *_evaluation(plan),
        ]
    )


def base(plan: TrainingPlan, base: Base) -> None:
    """What needs the model's config.

    Raises:
        TrainerError: InvalidConfiguration, with every wrong field; what the method's own check raises.
    """
    _refuse(list(_base(plan, base)))
    METHODS[plan.method].check(plan, base)
    if "GGUF" in plan.output.formats and ranks.is_first():
        gguf.check(base.path)


def rows(encoded: Encoded, base: Base, where: str) -> list[str]:
    """What must hold for encoded rows; `where` names their split.

    Returns:
        Warnings for people.

    Raises:
        TrainerError: InvalidRow.
    """
    for row in encoded.rows:
        if (largest := max(map(max, row.sequences))) >= base.vocabulary:
            raise TrainerError(
                "InvalidRow",
                f"{where}, line {row.number}: token id {largest} is outside the model's vocabulary of "
                f"{base.vocabulary}: tokenizer and model do not fit together",
            )
        if not row.trained:
            raise TrainerError("InvalidRow", f"{where}, line {row.number}: no token counts in the loss")
    counts, warnings = encoded.counts, []
    if counts.rows_with_end_mark < STOP_SHARE * counts.rows:
        warnings.append(
            f"{where}: only {counts.rows_with_end_mark} of {counts.rows} rows train their end-of-turn token; "
            "the model may not learn to stop"
        )
    return warnings


def _not_supported(plan: TrainingPlan, methods: Collection[str]) -> Iterator[str]:
    if plan.method not in methods:
        yield f"method {plan.method} (this version has {', '.join(methods)})"
    if plan.grpo and plan.grpo.generation.is_colocated and find_spec("vllm") is None:
        yield "grpo.generation.engine VLLM (this image has no vLLM: use trainer-vllm, or engine Transformers)"
    if plan.output.push is not None:
        yield "output.push"
    if plan.method == "PPO" and plan.deepspeed:
        yield "deepspeed with method PPO (GRPO can shard, with a reward of type RewardModel)"
    if plan.adapter.type == "QLoRA" and plan.deepspeed and plan.deepspeed.zero_stage == 3:
        yield "adapter.type QLoRA with deepspeed.zeroStage 3 (4-bit weights cannot be sharded: use zeroStage 2)"
    if plan.distillation and plan.distillation.by_logits and plan.deepspeed and plan.deepspeed.zero_stage == 3:
        yield "distillation.level Logits with deepspeed.zeroStage 3 (use zeroStage 2, or level Sequence)"


def _plan(plan: TrainingPlan, device: Device) -> Iterator[str]:
    training, world_size = plan.training, device.world_size
    per_rank, rest = divmod(training.batch_size, world_size)
    if rest:
        yield f"training.batchSize {training.batch_size} is not a multiple of the {world_size} ranks"
    elif training.micro_batch_size and per_rank % training.micro_batch_size:
        yield (
            f"training.batchSize {training.batch_size} over {world_size} ranks is {per_rank} rows a rank, "
            f"not a multiple of training.microBatchSize {training.micro_batch_size}"
        )
    if training.precision == "BFloat16" and not device.bf16:
        yield "training.precision BFloat16 needs a GPU or CPU that multiplies in it: use Auto or Float32"
    if float(training.warmup_ratio) > 1:
        yield f"training.warmupRatio {training.warmup_ratio} is above 1"
    if float(plan.adapter.dropout or 0) >= 1:
        yield f"adapter.dropout {plan.adapter.dropout} must be below 1"
    if "GGUF" in plan.output.formats and plan.adapter.type != "None" and not plan.output.merge:
        yield "output.formats GGUF holds a whole model: set output.merge"
    if plan.early_stopping and not plan.evaluation_datasets:
        yield "earlyStopping needs held-out rows: name evaluationDatasets, or a Dataset with a validation split"
    if plan.grpo and plan.grpo.generation.endpoint and plan.model_adapter:
        yield (
            "grpo.generation.endpoint: the base is an adapter that is merged for this run alone, which no server has: "
            "set output.merge in the job that trains it"
        )
    if plan.distillation:
        yield from _distillation(plan.distillation)
    retention = plan.evaluation.retention
    if retention and retention.interpolate and not plan.evaluation_datasets:
        yield "evaluation.retention.interpolate needs held-out rows: name evaluationDatasets"
    if plan.evaluation.harness and not plan.harness_tasks:
        yield "evaluation.harness needs harnessTasks: stage them by `python -m hone_trainer tasks`"
    if plan.evaluation.rewards and not plan.evaluation_datasets:
        yield "evaluation.rewards needs held-out rows: name evaluationDatasets, or a Dataset with a validation split"


def _evaluation(plan: TrainingPlan) -> list[str]:
    sharded = plan.deepspeed is not None
    return evaluation_problems(plan.method, plan.evaluation, plan.adapter, sharded=sharded, grpo=plan.grpo)


def _distillation(options: DistillationMethod) -> Iterator[str]:
    if (options.teacher_model_version is None) == (options.teacher_endpoint is None):
        yield "distillation: set exactly one of teacherModelVersion and teacherEndpoint"
    elif options.teacher_endpoint and options.by_logits:
        yield "distillation.teacherEndpoint shows no whole distribution: use level Sequence, or teacherModelVersion"


def _base(plan: TrainingPlan, base: Base) -> Iterator[str]:
    yield from selfcheck.problems(base)
    length = plan.training.max_length
    if length and length > base.context:
        yield f"training.maxLength {length} is over the model's context of {base.context} tokens"
    options = plan.evaluation.harness
    if options and options.apply_chat_template and not base.tokenizer.chat_template:
        yield "evaluation.harness.applyChatTemplate: the model's tokenizer has no chat template: remove it"
    if adapters.is_adapter(plan.adapter) and (plan.adapter.targets or expert_count(base.config.to_dict())):
        yield from adapters.problems(plan.adapter, adapters.without_weights(base.config))


def _refuse(problems: list[str]) -> None:
    if problems:
        raise TrainerError("InvalidConfiguration", "; ".join(problems))
