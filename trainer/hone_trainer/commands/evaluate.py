"""`python -m hone_trainer evaluate`: the numbers of a finished run again, from its artifact alone."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from hone_api.kinds.modelversion import EvaluationNumber
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.commands.exported import Exported
from hone_trainer.commands.rescoring import Rescorer
from hone_trainer.encoding import rendering
from hone_trainer.errors import TrainerError
from hone_trainer.evaluation.other_version import KINDS, longest
from hone_trainer.evaluation.scoring_model import read_the_same
from hone_trainer.methods import METHODS
from hone_trainer.run import encode, preflight
from hone_trainer.scoring import scores
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.row_measure import Values
from hone_trainer.scoring.scores import Score


def main(options: argparse.Namespace) -> None:
    """Print the numbers as JSON lines, in the form of a ModelVersion's `spec.evaluation.numbers`."""
    rewards = dict(options.reward)
    for number in recompute(options.artifact, options.data, options.base, options.against, rewards=rewards):
        print(json.dumps(number.to_json()))


def recompute(
    artifact: Path,
    data: Path,
    base: Path | None = None,
    against: Path | None = None,
    most: int | None = None,
    rewards: Mapping[str, Path] | None = None,
) -> list[EvaluationNumber]:
    """Score an artifact on the rows of `data`, by the run's own procedure; the base too where its folder is there.

    Args:
        artifact: folder with report.json, as exported.
        base: folder of the base model; needed for an adapter, and for DPO and KTO, unless it is where the run had it.
        against: another exported model, whose numbers stand in place of the base's: the champion, for example.
        most: rows to score; default: as many as the run did.
        rewards: paths of what the run's rewards read, by name; default: where the run had them.

    Raises:
        TrainerError: FileNotFound when `artifact` is none, or something that the method needs is not there;
            InvalidConfiguration, also if the two models cannot be compared.
    """
    exported = Exported.read(artifact, base)
    other = Exported.read(against, base) if against else None
    held_out = _held_out(exported, other, data, most)
    rescorer = Rescorer(exported, held_out, rewards or {})
    values = list(_values(exported, other, rescorer))
    *before, tuned = [rescorer.score(of_rows, folder) for folder, of_rows in values]
    return numbers_of(exported, held_out, before[0] if before else None, tuned, is_base=other is None)


def measure(exported: Exported, other: Exported | None, data: Path, most: int) -> list[EvaluationNumber]:
    """The numbers of base and tuned model, and of another version next to them, as a run measures them.

    Raises:
        TrainerError: as `recompute`.
    """
    held_out = _held_out(exported, other, data, most)
    rescorer = Rescorer(exported, held_out, {})
    theirs = [rescorer.score(rescorer.values(other.load()), other.folder)] if other else None
    *before, tuned = [rescorer.score(of_rows, folder) for folder, of_rows in _values(exported, None, rescorer)]
    return scores.numbers([held_out.name], _names(exported, tuned), before or None, [tuned], other=theirs)


def _held_out(exported: Exported, other: Exported | None, data: Path, most: int | None) -> HeldOut:
    """The first rows, encoded as for the run of `exported`; both models can read them."""
    if other:
        refuse_incomparable(exported, other)
    plan, opened = exported.plan, exported.opened
    with rendering.of_run(plan.template_date, plan.training.thinking):
        encoded = encode.in_memory(plan, opened, str(data))
    for warning in preflight.check_rows(encoded, opened, str(data)):
        print(warning, file=sys.stderr)
    held_out = HeldOut(str(data), encoded.rows[: most or plan.evaluation.max_rows], data)
    if other:
        refuse_short(other, plan, held_out)
    return held_out


def _names(exported: Exported, tuned: Score) -> list[str]:
    """Metrics of the method that were measured."""
    metrics = METHODS[exported.plan.method].metrics
    return [name for name in metrics if scores.DERIVED.get(name, (name,))[0] in tuned.means]


def refuse_incomparable(exported: Exported, other: Exported) -> None:
    """Raises:
    TrainerError: InvalidConfiguration, with the reason why two models cannot be compared.
    """
    words = ""
    if exported.head != other.head:
        words = f"{other.folder} is a {KINDS[other.head]}, and {exported.folder} is a {KINDS[exported.head]}"
    elif not read_the_same(exported.opened, other.opened):
        words = f"{other.folder} has another tokenizer or chat template than {exported.folder}"
    if words:
        raise TrainerError(FailureCode.INVALID_CONFIGURATION, f"{words}: they cannot be compared")


def refuse_short(other: Exported, plan: TrainingPlan, split: HeldOut) -> None:
    """Raises:
    TrainerError: InvalidConfiguration, if a row of the split, or its answer, is longer than the model's context.
    """
    if (length := longest(plan, [split])) > other.opened.context:
        words = f"{other.folder} reads {other.opened.context} tokens, and a row of {split.name} takes {length}"
        raise TrainerError(FailureCode.INVALID_CONFIGURATION, f"{words}: the models cannot be compared on it")


def _values(exported: Exported, other: Exported | None, rescorer: Rescorer) -> Iterator[tuple[Path, Values]]:
    """Folder and values of the other model or the base, if it is there, and then of the exported one. One of them is in
    memory at a time."""
    if other:
        yield other.folder, rescorer.values(other.load())
        yield exported.folder, rescorer.values(exported.load())
    elif exported.is_adapter:
        network = exported.load_alone()
        yield exported.base, rescorer.values(network)
        yield exported.folder, rescorer.values(exported.with_adapter(network))
    else:
        if exported.has_start:
            yield exported.base, rescorer.values(exported.load_start())
        yield exported.folder, rescorer.values(exported.load_alone())


def numbers_of(
    exported: Exported, split: HeldOut, before: Score | None, tuned: Score, *, is_base: bool
) -> list[EvaluationNumber]:
    """The numbers, with `base` and its change; both are of the model that is compared with.

    Args:
        is_base: whether `before` is of the base. Another version is compared as by `evaluation.against`: an answer
            without a reward counts for neither.
    """
    names = _names(exported, tuned)
    if before is None or is_base:
        return scores.numbers([split.name], names, [before] if before else None, [tuned])
    return [
        number.model_copy(
            update={
                **{"base": number.against, "change_low": number.against_low, "change_high": number.against_high},
                **{"against": None, "against_low": None, "against_high": None},
            }
        )
        for number in scores.numbers([split.name], names, None, [tuned], other=[before])
    ]
