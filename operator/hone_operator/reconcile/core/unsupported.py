"""What this version does not run: unsupported fields, and fields that contradict each other."""

from collections.abc import Sequence

from hone_api.combinations import Problem, problems
from hone_api.combinations.elastic import elastic_problems
from hone_api.combinations.shares import share_problem
from hone_api.dataset.dataset import DatasetSpec, Format, Splits
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.unsupported import Unsupported
from hone_api.words.failures import FailureCode


def message(fields: Sequence[Unsupported]) -> str:
    """One sentence for all of them."""
    return f"{'; '.join(field.message for field in fields)}."


def contradictions(spec: FineTuneJobSpec, world_size: int) -> list[Problem]:
    """Combinations of fields that are allowed individually but not together; paths begin with spec."""
    conflicts = elastic_problems(spec.resources, spec.training)
    if spec.deepspeed and world_size == 1:
        conflicts.append("deepspeed: nothing to shard on one rank; remove it, or ask for more nodes or GPUs")
    if spec.grpo and spec.grpo.generation.is_colocated and not spec.resources.gpus_per_node:
        conflicts.append(
            "grpo.generation.engine VLLM needs GPUs: set resources.gpusPerNode, generation.endpoint, or engine "
            "Transformers"
        )
    contradicting = [
        *(Problem(FailureCode.CONFLICTING_FIELDS, words) for words in conflicts),
        *problems(spec, world_size),
    ]
    return [Problem(problem.code, f"spec.{problem.message}") for problem in contradicting]


def dataset_contradictions(spec: DatasetSpec) -> list[str]:
    """The same for a Dataset."""
    if not spec.mixture:
        return []
    out = []
    if words := share_problem([part.weight for part in spec.mixture], "weights"):
        out.append(f"spec.mixture: {words}")
    if len({part.name for part in spec.mixture}) < len(spec.mixture):
        out.append("spec.mixture names a Dataset twice")
    if spec.splits.model_copy(update={"seed": 0}) != Splits():
        out.append("spec.splits: a mixture keeps the splits of its parts, set them there")
    if spec.curation or spec.columns or spec.ignore_columns or spec.format != Format.AUTO:
        out.append(
            "spec.curation, columns, ignoreColumns and format: a mixture takes its parts as they are, set them there"
        )
    return out
