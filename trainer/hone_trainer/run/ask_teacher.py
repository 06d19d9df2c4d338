"""Before training: a plan whose student is tuned on a teacher's answers gets them, from a process of the teacher's own.

`python -m hone_trainer.run.ask_teacher <plan.json> <file of the outcome>` is that process: it checks what
training would refuse, and then asks.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hone_api.plan import DatasetInput, TrainingPlan, parse_plan
from hone_api.report import Outcome
from hone_trainer.encoding import rendering
from hone_trainer.errors import TrainerError, to_outcome
from hone_trainer.signals import Stop
from hone_trainer.teachers import sequence


def prepare(plan: TrainingPlan, stop: Stop, first: bool) -> TrainingPlan:
    """The plan with the teacher's answers in the place of the rows'; other plans as they are.

    Args:
        first: whether this is the first node, whose teacher answers; the others wait for it, however long it takes:
            when it fails, the attempt ends for all.

    Raises:
        TrainerError: what went wrong in the teacher's process; Interrupted.
    """
    if plan.distillation is None or plan.distillation.by_logits:
        return plan
    targets = {source.path: sequence.target(plan, number) for number, source in enumerate(sequence.sources(plan))}
    if first and not all(target.is_file() for target in targets.values()):
        _ask(plan, stop)
    while not all(target.is_file() for target in targets.values()):
        stop.check("while waiting for the teacher")
        time.sleep(1)

    def answered(source: DatasetInput) -> DatasetInput:
        return source.model_copy(update={"path": str(targets[source.path])})

    return plan.model_copy(
        update={
            "datasets": [answered(source) for source in plan.datasets],
            "evaluation_datasets": [answered(source) for source in plan.evaluation_datasets],
        }
    )


def _ask(plan: TrainingPlan, stop: Stop) -> None:
    """Run the teacher's process to its end."""
    with tempfile.TemporaryDirectory(prefix="hone-teacher-") as folder:
        plan_file, outcome = Path(folder) / "plan.json", Path(folder) / "outcome.json"
        plan_file.write_text(plan.model_dump_json(by_alias=True))
        process = subprocess.Popen([sys.executable, "-m", "hone_trainer.run.ask_teacher", str(plan_file), str(outcome)])
        try:
            while process.poll() is None:
                stop.check("while the teacher answered")
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
        if process.returncode == 0:
            return
        failure = Outcome.model_validate_json(outcome.read_text()).failure if outcome.is_file() else None
        if failure is None:
            raise TrainerError("TrainerError", f"the teacher ended with exit code {process.returncode}")
        raise TrainerError(failure.code, failure.message)


def _main(plan_file: Path, outcome: Path) -> int:
    plan = parse_plan(plan_file.read_bytes())
    assert isinstance(plan, TrainingPlan)
    from hone_trainer.run import preflight

    try:
        preflight.before_ranks(plan)  # answers cost, and would be for nothing
        with rendering.on_day(plan.template_date):
            sequence.answer(plan)
    except Exception as error:
        failure_outcome = to_outcome(error)
        outcome.write_text(failure_outcome.model_dump_json(by_alias=True))
        return int(failure_outcome.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2])))
