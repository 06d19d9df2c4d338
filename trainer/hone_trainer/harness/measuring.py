"""Measures the tasks of evaluation.harness on the model in training, before the first step and after the last.

lm-eval makes the prompts, parses, and counts; its values for each row become means with intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hone_api.kinds.modelversion import EvaluationNumber
from hone_api.plan import TrainingPlan
from hone_trainer import harness
from hone_trainer.errors import ConfigError
from hone_trainer.harness import tasks
from hone_trainer.harness.tasks import Benchmark, Loaded
from hone_trainer.models.base_model import Base
from hone_trainer.reporting.live import Reporters
from hone_trainer.scoring import probe_suite, scores
from hone_trainer.scoring.in_training import MeasuredRun, MeasuredTrainer
from hone_trainer.scoring.row_measure import Poll
from hone_trainer.scoring.scores import Score


def load(plan: TrainingPlan, base: Base) -> Loaded:
    """The plan's staged tasks; empty without evaluation.harness.

    Raises:
        ConfigError: InvalidConfiguration, for tasks that the model cannot answer.
        StoreError: ManifestMismatch.
    """
    options, staged = plan.evaluation.harness, plan.harness_tasks
    if options is None or staged is None:
        return Loaded()
    tasks.check(Path(staged.path), staged.digest)
    loaded = tasks.load(Path(staged.path), options)
    if wrong := [words for name, task in loaded.tasks.items() if (words := _too_long(name, task, base))]:
        raise ConfigError(f"{harness.FIELD}.tasks: {'; '.join(wrong[:5])}")
    return loaded


def _too_long(name: str, task: Any, base: Base) -> str | None:
    from hone_trainer.harness.language_model import answer_limits

    if task.OUTPUT_TYPE != "generate_until":
        return None
    _, longest = answer_limits(task.config.generation_kwargs)
    if longest < base.context:
        return None
    return f"{name} has answers of up to {longest} tokens, the model reads {base.context}: remove it"


class BenchmarkedRun(MeasuredRun, Protocol):
    """A run with tasks of lm-evaluation-harness."""

    @property
    def benchmarks(self) -> Sequence[Benchmark]: ...
    @property
    def reporters(self) -> Reporters: ...


class BenchmarkedTrainer(MeasuredTrainer, Protocol):
    """Its trainer."""

    @property
    def run(self) -> BenchmarkedRun: ...


def measure(trainer: BenchmarkedTrainer, poll: Poll, stage: str) -> list[Score]:
    """One score for each benchmark of `run.benchmarks`, of the model in its current state. A collective.

    Args:
        stage: what is reported meanwhile.
    """
    run = trainer.run
    benchmarks, options = run.benchmarks, run.plan.evaluation.harness
    if not benchmarks or options is None:
        return []
    run.reporters.begin_rows(stage)
    from lm_eval.evaluator import evaluate

    from hone_trainer.harness.language_model import TunedModel

    tasks_by_name = Loaded(tuple(benchmarks)).tasks
    with harness.seeded():
        for task in tasks_by_name.values():
            task.set_fewshot_seed(harness.SEEDS["examples"])
        results = evaluate(
            lm=TunedModel(trainer, poll),
            task_dict={"tasks": tasks_by_name},
            limit=options.limit,
            bootstrap_iters=0,
            apply_chat_template=options.apply_chat_template,
            fewshot_as_multiturn=options.apply_chat_template,
        )
    logged: Mapping[str, Sequence[Mapping[str, Any]]] = results["samples"]
    return [_score(benchmark, logged) for benchmark in benchmarks]


def _score(benchmark: Benchmark, logged: Mapping[str, Sequence[Mapping[str, Any]]]) -> Score:
    """For a group, the rows of all its tasks."""
    means = {}
    for metric in benchmark.metrics:
        rows = [row for task in benchmark.tasks for row in logged[task] if row["filter"] == metric.filter]
        means[metric.measured] = metric.mean(rows)
    return Score(means, tokens=0)


def numbers(
    benchmarks: Sequence[Benchmark], base: Sequence[Score] | None, tuned: Sequence[Score]
) -> list[EvaluationNumber]:
    """Each metric of each task, before and after, with intervals."""
    out = []
    for index, benchmark in enumerate(benchmarks):
        before = [base[index]] if base else None
        for metric in benchmark.metrics:
            (number,) = scores.numbers([benchmark.name], [metric.name], before, [tuned[index]], "Harness")
            counted = sum(weight > 0 for weight in tuned[index].means[metric.measured].weights)
            out.append(number.model_copy(update={"rows": counted, "tokens": None}))
    return out


def lowest(benchmarks: Sequence[Benchmark]) -> list[str]:
    """Metrics for which lower is better, as <metric> on <task>."""
    pairs = [(b, metric) for b in benchmarks for metric in b.metrics if metric.best == "Lowest"]
    return [probe_suite.title(metric.name, b.name) for b, metric in pairs]


def verdict(
    benchmarks: Sequence[Benchmark], base: Sequence[Score] | None, tuned: Sequence[Score], plan: TrainingPlan
) -> str:
    """Why the model fails the gate evaluation.harness.maxRegression; empty if it passes or there is no gate."""
    options = plan.evaluation.harness
    allowed = probe_suite.share(options.max_regression) if options else None
    changes = None if base is None else regressions(benchmarks, base, tuned)
    return probe_suite.gate(harness.FIELD, changes, allowed)


def regressions(benchmarks: Sequence[Benchmark], base: Sequence[Score], tuned: Sequence[Score]) -> dict[str, float]:
    """How much worse each metric became, relative to the base's; negative means better."""
    out = {}
    for benchmark, before, after in zip(benchmarks, base, tuned, strict=True):
        for metric in benchmark.metrics:
            worse = probe_suite.regression(metric.best, before.value(metric.name), after.value(metric.name))
            if worse is not None:
                out[probe_suite.title(metric.name, benchmark.name)] = worse
    return out
