"""What the materializing pod needs to ask models for rows, and the decisions of reviewers so far."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from hone_api.dataset.dataset import DatasetSpec
from hone_api.dataset.synthesis import REVIEW
from hone_operator.desired.core.hub import secret_mounts
from hone_operator.desired.core.pod import Mount

ENDPOINT_SECRET, JUDGE_SECRET = PurePosixPath("/secrets/endpoint"), PurePosixPath("/secrets/judge")


def review_mark(dataset: Mapping[str, Any]) -> str | None:
    """The mark that reviewers leave; it changes with every decision."""
    return (dataset["metadata"].get("annotations") or {}).get(REVIEW)


def generation(owner: Mapping[str, Any], spec: DatasetSpec) -> tuple[dict[str, Any], tuple[Mount, ...]]:
    """(fields of the plan, mounts) of a Dataset's synthesis and RAFT set; both are empty without them."""
    fields: dict[str, Any] = {"raft": spec.raft}
    if spec.synthesis is None:
        return fields, ()
    judge = spec.synthesis.filters.judge
    secrets, path = secret_mounts(spec.synthesis.secret_name, "endpoint", ENDPOINT_SECRET)
    of_judge, judge_path = secret_mounts(judge.secret_name if judge else None, "judge", JUDGE_SECRET)
    fields |= {"synthesis": spec.synthesis, "review": review_mark(owner)}
    fields |= {"synthesis_secret_path": path, "judge_secret_path": judge_path}
    return fields, (*secrets, *of_judge)
