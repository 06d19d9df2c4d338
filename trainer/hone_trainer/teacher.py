"""Distillation at the level of sequences (Kim and Rush 2016, arXiv 1606.07947): before training the teacher answers
every prompt, and the student is tuned on these answers instead of the rows' own.

The answers are greedy, the teacher's most likely ones. They are written in parts, so that a run which is resumed asks
for the missing ones alone. The teacher has a process of its own: its memory is free again when the student is loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hone_api.methods import DistillationMethod
from hone_api.plan import DatasetInput, TrainingPlan, parse_plan
from hone_api.report import Outcome
from hone_trainer import encode
from hone_trainer.errors import DataError, TrainerError, to_outcome
from hone_trainer.manifest import write_atomically
from hone_trainer.stop import Stop

PART = 64
"""Rows of a part."""
LONGEST_ANSWER = 256
"""Tokens of an answer when the plan names none."""


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
    inputs = [*plan.datasets, *plan.evaluation_datasets]
    targets = {i: _target(plan, number) for number, i in enumerate(_paths(inputs))}
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


def _paths(inputs: Sequence[DatasetInput]) -> list[str]:
    return list(dict.fromkeys(source.path for source in inputs))


def _target(plan: TrainingPlan, number: int) -> Path:
    return Path(plan.work_path) / "teacher" / f"{number}.jsonl"


def _ask(plan: TrainingPlan, stop: Stop) -> None:
    """Run the teacher's process to its end."""
    with tempfile.TemporaryDirectory(prefix="hone-teacher-") as folder:
        plan_file, outcome = Path(folder) / "plan.json", Path(folder) / "outcome.json"
        plan_file.write_text(plan.model_dump_json(by_alias=True))
        process = subprocess.Popen([sys.executable, "-m", "hone_trainer.teacher", str(plan_file), str(outcome)])
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


class Teacher(Protocol):
    """Answers prompts."""

    @property
    def left_out(self) -> Counter[str]:
        """Rows without an answer, by the reason; grows."""

    def rows(self, records: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The records with the teacher's answers; without those that it cannot read, or did not finish."""


def row(checked: Mapping[str, Any], answer: str) -> dict[str, Any]:
    """An answered prompt, with what the row itself says of a right answer: evaluation.rewards compare with that.

    Args:
        checked: see `encode_prompts.checked_record`.
    """
    own = {key: value for key, value in checked.items() if key != "prompt"}
    prompt = checked["prompt"]
    if isinstance(prompt, list):
        return {"messages": [*prompt, {"role": "assistant", "content": answer}], **own}
    return {"prompt": prompt, "completion": answer, **own}


def options_of(plan: TrainingPlan) -> DistillationMethod:
    """The plan's block, which the API makes sure of."""
    assert plan.distillation is not None
    return plan.distillation


def longest_answer(plan: TrainingPlan) -> int:
    """Most tokens of an answer."""
    return options_of(plan).max_completion_length or LONGEST_ANSWER


def load(plan: TrainingPlan) -> Teacher:
    """The plan's teacher.

    Raises:
        SourceError: of an endpoint and its key; see `teacher_endpoint.connect`.
    """
    if options_of(plan).teacher_endpoint:
        from hone_trainer import teacher_endpoint

        return teacher_endpoint.connect(plan)
    from hone_trainer import teacher_model

    return teacher_model.load(plan)


def answer(plan: TrainingPlan) -> None:
    """Write the teacher's answers to all splits of the plan.

    Raises:
        DataError: NoTrainableRows, when it finished no answer of a split.
    """
    teacher = load(plan)
    for number, path in enumerate(_paths([*plan.datasets, *plan.evaluation_datasets])):
        target = _target(plan, number)
        if target.is_file():
            continue
        records = [record for _, record in encode.records(Path(path))]
        found = [_part(teacher, target, records, start) for start in range(0, len(records), PART)]
        content = b"".join(part.read_bytes() for part in found)
        reasons = "".join(f"; {count} left out: {reason}" for reason, count in teacher.left_out.most_common())
        teacher.left_out.clear()
        if not content:
            raise DataError(
                "NoTrainableRows", f"{path}: the teacher finished no answer to {len(records)} rows{reasons}"
            )
        kept = content.count(b"\n")
        print(f"{path}: the teacher answered {kept} of {len(records)} rows{reasons}", file=sys.stderr, flush=True)
        write_atomically(target, content)
        for part in found:
            part.unlink()


def _part(teacher: Teacher, target: Path, records: Sequence[dict[str, Any]], start: int) -> Path:
    file = target.with_name(f"{target.stem}-{start:08d}.part")
    if not file.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = teacher.rows(records[start : start + PART])
        write_atomically(file, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return file


def _main(plan_file: Path, outcome: Path) -> int:
    plan = parse_plan(plan_file.read_bytes())
    assert isinstance(plan, TrainingPlan)
    try:
        answer(plan)
    except Exception as error:
        found = to_outcome(error)
        outcome.write_text(found.model_dump_json(by_alias=True))
        return int(found.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2])))
