"""Work on a plan in a process of its own, whose memory is given back when it ends; used before several ranks start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hone_api.contract.plan_reading import parse_plan
from hone_api.contract.termination import TerminationMessage
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.encoding import rendering
from hone_trainer.errors import TrainerError, to_outcome
from hone_trainer.reporting import phases
from hone_trainer.run import libraries
from hone_trainer.signals import Stop, die_with_parent


def run(module: str, plan: TrainingPlan, stop: Stop, what: str, environment: Mapping[str, str] | None = None) -> None:
    """Run `python -m <module> <plan.json> <file of the outcome>` to its end.

    Args:
        module: it calls `main`.
        what: for messages, e.g. "the encoder".
        environment: of the process; default: that of this one.

    Raises:
        TrainerError: the error of the process; Interrupted, after which the process is gone.
    """
    with tempfile.TemporaryDirectory(prefix="hone-apart-") as folder:
        plan_file, outcome = Path(folder) / "plan.json", Path(folder) / "outcome.json"
        plan_file.write_text(plan.model_dump_json(by_alias=True))
        variables = {**(environment or os.environ), phases.ENV: phases.of_process().to_json()}
        process = subprocess.Popen([sys.executable, "-m", module, str(plan_file), str(outcome)], env=variables)
        try:
            while process.poll() is None:
                stop.check(f"while {what} was running")
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
        if process.returncode == 0:
            return
        failure = TerminationMessage.model_validate_json(outcome.read_text()).failure if outcome.is_file() else None
        if failure is None and process.returncode == -signal.SIGKILL:
            raise TrainerError(FailureCode.OUT_OF_MEMORY, f"{what} was killed, as the kernel does when memory is short")
        if failure is None and process.returncode == -signal.SIGPROF:
            raise rendering.endless()
        if failure is None:
            raise TrainerError(FailureCode.TRAINER_ERROR, f"{what} ended with exit code {process.returncode}")
        raise TrainerError(FailureCode(failure.code), failure.message)


def main(work: Callable[[TrainingPlan], object]) -> int:
    """The process: carry out `work`, and leave its error in the file of the outcome. Returns the exit code."""
    die_with_parent()  # a signal before the first step ends the run at once, and with it this process
    plan_file, outcome_file = map(Path, sys.argv[1:3])
    plan = parse_plan(plan_file.read_bytes())
    assert isinstance(plan, TrainingPlan)
    libraries.hide_unused(plan)
    try:
        work(plan)
    except Exception as error:
        outcome = to_outcome(error)
        outcome_file.write_text(outcome.model_dump_json(by_alias=True))
        return int(outcome.exit_code)
    return 0
