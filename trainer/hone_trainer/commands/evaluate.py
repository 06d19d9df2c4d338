"""`python -m hone_trainer evaluate`: the numbers of a finished run again, from its artifact alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hone_api.failures import FailureCode
from hone_api.modelversion import EvaluationNumber
from hone_trainer.commands.exported import Exported
from hone_trainer.encoding import rendering
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.models.network import Generating
from hone_trainer.models.scoring_model import read_the_same
from hone_trainer.run import encode, preflight
from hone_trainer.scoring import heldout, scores
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.scores import Score


def main(options: argparse.Namespace) -> None:
    """Print the numbers as JSON lines, in the form of a ModelVersion's `spec.evaluation.numbers`."""
    for number in recompute(options.artifact, options.data, options.base, options.against):
        print(json.dumps(number.to_json()))


def recompute(
    artifact: Path, data: Path, base: Path | None = None, against: Path | None = None, most: int | None = None
) -> list[EvaluationNumber]:
    """Score an artifact on the rows of `data`, by the run's own procedure; the base too where its folder is there.

    Args:
        artifact: folder with report.json, as exported.
        base: folder of the base model; needed for an adapter unless it is where the run had it.
        against: another exported model, whose numbers stand in place of the base's: the champion, for example.
        most: rows to score; default: as many as the run did.

    Raises:
        TrainerError: FileNotFound when `artifact` is none, or an adapter's base is not there; InvalidConfiguration,
            also if the two models do not see the same tokens.
    """
    exported = Exported.read(artifact, base)
    other = Exported.read(against, base) if against else None
    if other and not read_the_same(exported.opened, other.opened):
        words = f"{against} has another tokenizer or chat template than {artifact}: their losses cannot be compared"
        raise TrainerError(FailureCode.INVALID_CONFIGURATION, words)
    plan, opened, method = exported.plan, exported.opened, METHODS[exported.plan.method]
    if method.score is not heldout.score_language_model:
        raise TrainerError(
            FailureCode.INVALID_CONFIGURATION, f"the numbers of method {plan.method} need the run's own reference"
        )
    with rendering.on_day(plan.template_date):
        encoded = encode.in_memory(plan, opened, str(data))
    for warning in preflight.check_rows(encoded, opened, str(data)):
        print(warning)
    held_out = HeldOut(str(data), encoded.rows[: most or plan.evaluation.max_rows], data)

    def score(network: Generating) -> Score:
        pad = opened.tokenizer.pad_token_id
        return heldout.score(network, held_out.rows, pad_id=pad, bf16=exported.bf16, poll=lambda: None)

    if other:
        before, tuned = score(other.load()), score(exported.load())
    elif exported.is_adapter:
        network = exported.load_alone()
        before, tuned = score(network), score(exported.with_adapter(network))
    elif (exported.base / "config.json").is_file():
        tuned, before = score(exported.load_alone()), score(exported.load_base())
    else:
        return scores.numbers([held_out.name], method.metrics, None, [score(exported.load_alone())])
    return scores.numbers([held_out.name], method.metrics, [before], [tuned])
