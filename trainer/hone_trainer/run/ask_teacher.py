"""Before training: a plan whose student is tuned on a teacher's answers gets them, from a process of the teacher's own.

`python -m hone_trainer.run.ask_teacher <plan.json> <file of the outcome>` is that process: it checks what
training would refuse, and then asks.
"""

from __future__ import annotations

import sys
import time

from hone_api.contract import encoding
from hone_api.plan import DatasetInput, TrainingPlan
from hone_trainer.encoding import rendering
from hone_trainer.run import apart
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
    if not encoding.is_answered_later(plan):
        return plan
    targets = {source.path: sequence.answers_file(plan, number) for number, source in enumerate(encoding.splits(plan))}
    if first and not all(target.is_file() for target in targets.values()):
        apart.run("hone_trainer.run.ask_teacher", plan, stop, "the teacher")
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


def ask(plan: TrainingPlan) -> None:
    """Check the plan, and write the teacher's answers.

    Raises:
        TrainerError: see `preflight.before_ranks` and `sequence.write_answers`.
    """
    from hone_trainer.run import preflight

    preflight.before_ranks(plan)  # answers cost, and would be for nothing
    with rendering.of_run(plan.template_date, plan.training.thinking):
        sequence.write_answers(plan)


if __name__ == "__main__":
    sys.exit(apart.main(ask))
