"""Builds staged tasks once, in a process without hub access: `python -m hone_trainer.harness.rehearsal <folder>
<JSON>`.

The last line that it prints is a JSON object with the outcome and sentences for people.
"""

from __future__ import annotations

import json
import sys
import traceback
from contextlib import redirect_stdout
from pathlib import Path

from hone_api.blocks.evaluation import Harness
from hone_api.contract.termination import TerminationMessage
from hone_api.words.failures import FailureCode
from hone_trainer.errors import to_outcome
from hone_trainer.models.imports import uncollected


def main(folder: str, options: str) -> int:
    """Exit code 1 if a task cannot be built."""
    outcome, sentences = TerminationMessage(), list[str]()
    try:
        with redirect_stdout(sys.stderr):  # tasks may print
            with uncollected():
                from hone_trainer.harness import tasks

            loaded = tasks.load(Path(folder), Harness.model_validate_json(options))
            tasks.ask_once(loaded)
            sentences = list(loaded.sentences)
    except Exception as error:
        outcome = to_outcome(error)
        if outcome.failure and outcome.failure.code == FailureCode.TRAINER_ERROR:
            traceback.print_exc()
    print(json.dumps({"outcome": outcome.to_json(), "sentences": sentences}))
    return 1 if outcome.failure else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
