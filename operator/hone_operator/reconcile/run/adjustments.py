"""What the next attempt does differently because of how earlier ones failed: fewer rows in a pass, a lower rate.

Such a failure does not count as one of the restarts, has no pause after it, and happens a few times at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hone_api.blocks.placement import MAX_RATE_HALVINGS, Restarts
from hone_api.contract.status_json import AttemptJson
from hone_api.words.failures import FailureCode
from hone_api.words.states import AttemptOutcome

MAX_HALVINGS = 6
"""How often a micro batch is halved after the memory ran out; 64 rows become 1."""


@dataclass(frozen=True)
class Adjustments:
    """Differences of an attempt from the spec."""

    micro_batch_limit: int | None = None
    """Most rows of a forward pass; None: any number."""
    learning_rate_halvings: int | None = None
    """How often the learning rate is halved; None: a loss that diverges ends the run."""


def after(records: Sequence[AttemptJson], budget: Restarts) -> Adjustments:
    """The adjustments of the attempt that follows these."""
    halvings = _rate_halvings(records)
    return Adjustments(_limit(records), halvings if halvings or _lowers_rate(budget) else None)


def record_limits(record: AttemptJson, before: Sequence[AttemptJson]) -> None:
    """Write into an attempt's record how it differs from the spec, because of the attempts before it."""
    if limit := _limit(before):
        record["microBatchLimit"] = limit
    if halvings := _rate_halvings(before):
        record["learningRateHalvings"] = halvings


def is_cause(record: AttemptJson) -> bool:
    """Whether the attempt failed in a way that the next one avoids, and not by chance."""
    return "microBatchSize" in record or _diverged(record)


def continues(records: Sequence[AttemptJson], budget: Restarts) -> bool:
    """Whether an adjusted attempt follows the last of these, which has failed."""
    if not records:
        return False
    if _diverged(records[-1]):
        return _lowers_rate(budget) and _rate_halvings(records) <= MAX_RATE_HALVINGS
    halvings = sum(1 for r in records if "microBatchSize" in r)
    wanted = budget.on_out_of_memory == "HalveMicroBatch" and halvings <= MAX_HALVINGS
    return wanted and records[-1].get("microBatchSize", 0) > 1


def in_words(records: Sequence[AttemptJson], budget: Restarts) -> str:
    """What the next attempt does differently, for the end of a message; empty if it is the same again."""
    if not continues(records, budget):
        return ""
    if _diverged(records[-1]):
        share = 2 ** _rate_halvings(records)
        return (
            f". The next attempt continues from the last checkpoint with 1/{share} of the learning rate: lower "
            "training.learningRate to begin with that"
        )
    return (
        f". The next attempt has at most {_limit(records)} rows in a forward pass, and the "
        "same batch: set training.microBatchSize to begin with that"
    )


def _limit(records: Sequence[AttemptJson]) -> int | None:
    """Most rows of a forward pass after these attempts. The first may bring a limit from attempts before it."""
    limits = [records[0]["microBatchLimit"]] if records and "microBatchLimit" in records[0] else []
    return min([*limits, *(r["microBatchSize"] // 2 for r in records if r.get("microBatchSize", 0) > 1)], default=None)


def _rate_halvings(records: Sequence[AttemptJson]) -> int:
    """How often the rate is halved after these attempts. The first may bring halvings from attempts before it."""
    return (records[0].get("learningRateHalvings", 0) if records else 0) + sum(map(_diverged, records))


def _diverged(record: AttemptJson) -> bool:
    return record["outcome"] == AttemptOutcome.FAILED and record.get("reason") == FailureCode.DIVERGED


def _lowers_rate(budget: Restarts) -> bool:
    return budget.on_divergence == "HalveLearningRate"
