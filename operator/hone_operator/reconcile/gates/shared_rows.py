"""Held-out rows that a run also trains on, as the statuses of its Datasets tell before a GPU is requested."""

from collections.abc import Iterator

from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_operator.reconcile.staging import inputs


def advise(spec: FineTuneJobSpec, datasets: inputs.Datasets) -> Iterator[str]:
    """A sentence for each pair of Datasets that share questions, where one is trained on and the other one held out."""
    trained = {ref.name for ref in spec.datasets}
    held_out = {rows.partition("/")[0] for rows in inputs.held_out(spec, datasets)}
    for train, held in sorted((train, held) for train in trained for held in held_out if train != held):
        # Of a Dataset that gives both, the questions that are in its other split are not known to be held out.
        field = "crossing" if held in trained else "questions"
        if count := max(_shared(train, held, field, datasets), _shared(held, train, field, datasets)):
            yield (
                f"Datasets {train}, which is trained on, and {held}, which is held out, share questions ({count:,}"
                " rows): scores on these are partly memory. curation.contamination removes such rows."
            )


def _shared(name: str, other: str, field: str, datasets: inputs.Datasets) -> int:
    """Rows of a Dataset that the present content of another one shares, by its status."""
    status, theirs = (datasets[one].get("status") or {} for one in (name, other))
    entries = (one for one in status.get("sharedRows") or () if one["name"] == other)
    return max((one.get(field, 0) for one in entries if one["digest"] == theirs.get("digest")), default=0)
