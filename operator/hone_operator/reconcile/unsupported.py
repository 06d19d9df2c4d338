"""What the API describes and this version does not do yet: refused by name, never ignored."""

from collections.abc import Callable, Sequence
from decimal import Decimal

from hone_api.combinations import evaluation_problems, generation_problems, problems, start_problems
from hone_api.dataset import DatasetSpec, Format, Splits
from hone_api.finetunejob import FineTuneJobSpec
from hone_api.methods import Method

JobRule = tuple[str, Callable[[FineTuneJobSpec], object]]
TOLERANCE = Decimal("0.02")
"""Three times 33.33% is meant as all."""

JOB: tuple[JobRule, ...] = (
    (
        "spec.deepspeed with method PPO (GRPO can shard, with a reward of type RewardModel)",
        lambda s: s.deepspeed and s.method == Method.PPO,
    ),
    (
        "spec.model.uri other than hf:// and pvc://",
        lambda s: s.model.uri and not s.model.uri.startswith(("hf://", "pvc://")),
    ),
    ("spec.deepspeed.offload other than None", lambda s: s.deepspeed and s.deepspeed.offload != "None"),
    ("spec.scheduling.queueName", lambda s: s.scheduling.queue_name),
    ("spec.scheduling.topology", lambda s: s.scheduling.topology),
    ("spec.output.version", lambda s: s.output.version is not None),
    ("spec.output.push", lambda s: s.output.push),
    ("spec.tracking", lambda s: s.tracking),
)


def job_fields(spec: FineTuneJobSpec) -> list[str]:
    """Every field set in this spec that is not supported yet."""
    return [name for name, is_set in JOB if is_set(spec)]


def message(fields: list[str]) -> str:
    """One sentence for all of them."""
    return f"Not supported yet: {'; '.join(fields)}. Remove them, or use a later version of Hone."


def contradictions(spec: FineTuneJobSpec, world_size: int) -> list[str]:
    """What each field allows and the fields together do not."""
    out = []
    training = spec.training
    if spec.deepspeed and world_size == 1:
        out.append("spec.deepspeed: nothing to shard on one rank; remove it, or ask for more nodes or GPUs")
    micro = training.micro_batch_size or 1
    if training.batch_size % (micro * world_size):
        out.append(
            f"spec.training.batchSize {training.batch_size} must be a multiple of "
            f"{world_size} ranks x microBatchSize {micro}"
        )
    out += [f"spec.{words}" for words in problems(spec.method, training, spec.adapter, world_size, spec.grpo, spec.ppo)]
    if spec.grpo and spec.grpo.generation.is_colocated and not spec.resources.gpus_per_node:
        out.append(
            "spec.grpo.generation.engine VLLM needs GPUs: set resources.gpusPerNode, generation.endpoint, or engine "
            "Transformers"
        )
    sharded = spec.deepspeed is not None
    out += [f"spec.{words}" for words in generation_problems(spec.grpo, spec.adapter, sharded=sharded)]
    out += [f"spec.{words}" for words in start_problems(training, spec.adapter, sharded=sharded)]
    out += [
        f"spec.{words}"
        for words in evaluation_problems(spec.method, spec.evaluation, spec.adapter, sharded=sharded, grpo=spec.grpo)
    ]
    if words := _shares(spec):
        out.append(words)
    return out


def dataset_contradictions(spec: DatasetSpec) -> list[str]:
    """The same of a Dataset."""
    if not spec.mixture:
        return []
    out = []
    weights = _sum([part.weight for part in spec.mixture])
    if abs(weights - 100) > TOLERANCE:
        out.append(f"spec.mixture: the weights are {weights}% together, not 100%")
    if len({part.name for part in spec.mixture}) < len(spec.mixture):
        out.append("spec.mixture names a Dataset twice")
    if spec.splits.model_copy(update={"seed": 0}) != Splits():
        out.append("spec.splits: a mixture keeps the splits of its parts, set them there")
    if spec.curation or spec.columns or spec.ignore_columns or spec.format != Format.AUTO:
        out.append(
            "spec.curation, columns, ignoreColumns and format: a mixture takes its parts as they are, set them there"
        )
    return out


def _sum(shares: Sequence[str | None]) -> Decimal:
    return sum((Decimal(share.removesuffix("%")) for share in shares if share), Decimal(0))


def _shares(spec: FineTuneJobSpec) -> str | None:
    """CEL could not add up shares within its cost."""
    shares = [d.share for d in spec.datasets]
    stated = _sum(shares)
    if None in shares and stated >= 100:
        return f"spec.datasets: the shares are {stated}% together, nothing is left for the entries that have none"
    if None not in shares and abs(stated - 100) > TOLERANCE:
        return f"spec.datasets: the shares are {stated}% together, not 100%; an entry without one gets the rest"
    return None
