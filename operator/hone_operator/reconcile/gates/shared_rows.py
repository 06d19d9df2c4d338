"""Held-out rows that a run also trains on, as the statuses of its Datasets tell before a GPU is requested."""

from collections.abc import Iterable, Iterator

from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_operator.reconcile.staging import inputs


def advise(spec: FineTuneJobSpec, datasets: inputs.Datasets) -> Iterator[str]:
    """A sentence for each pair of Datasets that share questions, where one is trained on and the other one held out."""
    trained = _sides(f"{ref.name}/{ref.split}" for ref in spec.datasets)
    held_out = _sides(inputs.held_out(spec, datasets))
    for train, held in sorted((train, held) for train in trained for held in held_out if train != held):
        ours, theirs = trained[train], held_out[held]
        # Questions of the same side are in the splits that are meant if one Dataset has no other side.
        all_sides = [
            _sides(f"{name}/{split}" for split in inputs.splits(datasets[name])).get(name) for name in (train, held)
        ]
        if len(ours | theirs) == 1 and ours not in all_sides:
            continue
        is_crossing = ours != theirs
        if count := max(_shared(train, held, is_crossing, datasets), _shared(held, train, is_crossing, datasets)):
            yield (
                f"Datasets {train}, which is trained on, and {held}, which is held out, share questions ({count:,}"
                " rows): scores on these are partly memory. curation.contamination removes such rows."
            )


def _sides(splits: Iterable[str]) -> dict[str, set[bool]]:
    """Of each Dataset of <Dataset>/<split>: whether these are its training rows, the others, or both."""
    sides = dict[str, set[bool]]()
    for name, _, split in (rows.partition("/") for rows in splits):
        sides.setdefault(name, set()).add(split == "train")
    return sides


def _shared(name: str, other: str, is_crossing: bool, datasets: inputs.Datasets) -> int:
    """Rows of a Dataset that the present content of another one shares, by its status.

    Args:
        is_crossing: whether one has them in train and the other one in another split; else, both on the same side.
    """
    status, theirs = (datasets[one].get("status") or {} for one in (name, other))
    entries = (one for one in status.get("sharedRows") or () if one["name"] == other)
    present = [one for one in entries if one["digest"] == theirs.get("digest")]
    crossing = [one.get("crossing", 0) for one in present]
    same = [one.get("questions", 0) - count for one, count in zip(present, crossing, strict=True)]
    return max(crossing if is_crossing else same, default=0)
