"""What this version does not run: unsupported fields, and fields that contradict each other."""

from collections.abc import Sequence
from decimal import Decimal

from hone_api.combinations import evaluation_problems, generation_problems, problems, start_problems
from hone_api.dataset import DatasetSpec, Format, Splits
from hone_api.finetunejob import FineTuneJobSpec
from hone_api.unsupported import Unsupported

TOLERANCE = Decimal("0.02")
"""Three times 33.33% counts as all."""


def message(fields: Sequence[Unsupported]) -> str:
    """One sentence for all of them."""
    return f"{'; '.join(field.message for field in fields)}. Or use a later version of Hone."


def contradictions(spec: FineTuneJobSpec, world_size: int) -> list[str]:
    """Combinations of fields that are allowed individually but not together."""
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
    """The same for a Dataset."""
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
    """CEL cannot add up shares within its cost limit."""
    shares = [d.share for d in spec.datasets]
    stated = _sum(shares)
    if None in shares and stated >= 100:
        return f"spec.datasets: the shares are {stated}% together, nothing is left for the entries that have none"
    if None not in shares and abs(stated - 100) > TOLERANCE:
        return f"spec.datasets: the shares are {stated}% together, not 100%; an entry without one gets the rest"
    return None
