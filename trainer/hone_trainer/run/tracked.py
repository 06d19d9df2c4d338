"""What an experiment tracker gets of a run: parameters, metrics by step, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone_api.kinds.modelversion import EvaluationNumber
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.errors import classify

if TYPE_CHECKING:
    from hone_trainer.endpoints.tracker import Tracker
    from hone_trainer.evaluation.baseline import Baseline
    from hone_trainer.reporting.live import Reporters

BLOCKS = ("adapter", "training", "earlyStopping", "deepspeed")


class LogSteps(TrainerCallback):
    """Hands the numbers that the loop logs to the tracker. Comes after what measures the base."""

    def __init__(self, tracker: Tracker, base: Baseline, reporters: Reporters) -> None:
        self._tracker, self._base, self._reporters = tracker, base, reporters

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == 0:
            for entry in self._base.curve():
                self._tracker.measure(0, numbers(entry))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        self._tracker.measure(state.global_step, numbers(logs or {}))
        if self._tracker.run_id != self._reporters.progress.tracking_run:
            self._reporters.note(tracking_run=self._tracker.run_id)


def numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of the log, without the step."""
    return {name: float(v) for name, v in logs.items() if isinstance(v, int | float) and name != "step"}


def params(plan: TrainingPlan, resolved: Mapping[str, Any]) -> dict[str, str]:
    """Hyperparameters by name, e.g. training.learningRate; `resolved` are the values that the trainer chose."""
    body = plan.to_json()
    blocks = {name: body.get(name) for name in (*BLOCKS, plan.method.lower())}
    chosen = {f"resolved.{name}": str(value) for name, value in resolved.items()}
    nodes = {"nodes": str(plan.nodes), "processesPerNode": str(plan.processes_per_node)}
    return {"method": str(plan.method), **dict(_flat(blocks)), **chosen, **nodes}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each plain value; lists and what they contain are in the job's spec alone."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, str | int | float):
            yield f"{prefix}{name}", str(value)


def measured(evaluation: Sequence[EvaluationNumber]) -> dict[str, float]:
    """The final evaluation: base.<metric>.<dataset> and tuned.<metric>.<dataset>."""
    out: dict[str, float] = {}
    for number in evaluation:
        name = ".".join(filter(None, (number.name, number.dataset)))
        out |= {f"{of}.{name}": float(v) for of, v in (("base", number.base), ("tuned", number.tuned)) if v is not None}
    return out


def status_after(error: BaseException | None) -> str:
    """MLflow's status of a run that ended so. An interrupted run goes on in a later attempt."""
    if error is None:
        return "FINISHED"
    return "SCHEDULED" if classify(error).code == FailureCode.INTERRUPTED else "FAILED"
