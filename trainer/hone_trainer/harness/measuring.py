"""The tasks of evaluation.harness by the model in training, before the first step and after the last one.

lm-eval makes prompts from the same examples, parses, and counts; its values by row become means with intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hone_api.modelversion import EvaluationNumber
from hone_api.plan import TrainingPlan
from hone_api.training import Harness
from hone_trainer import harness
from hone_trainer.errors import ConfigError
from hone_trainer.harness import tasks
from hone_trainer.harness.tasks import Benchmark, Loaded
from hone_trainer.models.base_model import Base
from hone_trainer.scoring import probe_suite, scores
from hone_trainer.scoring.scores import Score


def load(plan: TrainingPlan, base: Base) -> Loaded:
    """The plan's tasks, from where they were staged; none where it has no evaluation.harness.

    Raises:
        ConfigError: InvalidConfiguration, for tasks that the model cannot answer.
        StoreError: ManifestMismatch.
    """
    options, staged = plan.evaluation.harness, plan.harness_tasks
    if options is None or staged is None:
        return Loaded()
    tasks.check(Path(staged.path), staged.digest)
    found = tasks.load(Path(staged.path), options)
    if wrong := [words for name, task in found.tasks.items() if (words := _too_long(name, task, base))]:
        raise ConfigError(f"{harness.FIELD}.tasks: {'; '.join(wrong[:5])}")
    return found


def _too_long(name: str, task: Any, base: Base) -> str | None:
    from hone_trainer.harness.language_model import answer_limits

    if task.OUTPUT_TYPE != "generate_until":
        return None
    _, longest = answer_limits(task.config.generation_kwargs)
    if longest < base.context:
        return None
    return f"{name} has answers of up to {longest} tokens, the model reads {base.context}: remove it"


def measure(trainer: Any, poll: Callable[[], None]) -> list[Score]:
    """One score a benchmark of `run.benchmarks`, of the model as it is. A collective."""
    run = trainer.run
    benchmarks: Sequence[Benchmark] = run.benchmarks
    options: Harness | None = run.plan.evaluation.harness
    if not benchmarks or options is None:
        return []
    from lm_eval.evaluator import evaluate

    from hone_trainer.harness.language_model import TunedModel

    wanted = Loaded(tuple(benchmarks)).tasks
    with harness.seeded():
        for task in wanted.values():
            task.set_fewshot_seed(harness.SEEDS["examples"])
        found = evaluate(
            lm=TunedModel(trainer, poll),
            task_dict={"tasks": wanted},
            limit=options.limit,
            bootstrap_iters=0,
            apply_chat_template=options.apply_chat_template,
            fewshot_as_multiturn=options.apply_chat_template,
        )
    logged: Mapping[str, Sequence[Mapping[str, Any]]] = found["samples"]
    return [_score(benchmark, logged) for benchmark in benchmarks]


def _score(benchmark: Benchmark, logged: Mapping[str, Sequence[Mapping[str, Any]]]) -> Score:
    """Of a group the rows of all its tasks."""
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
    """Metrics of which less is better, as <metric> on <task>."""
    found = [(b, metric) for b in benchmarks for metric in b.metrics if metric.best == "Lowest"]
    return [probe_suite.title(metric.name, b.name) for b, metric in found]


def verdict(
    benchmarks: Sequence[Benchmark], base: Sequence[Score] | None, tuned: Sequence[Score], plan: TrainingPlan
) -> str:
    """Why the gate evaluation.harness.maxRegression does not open; empty when it does, or there is none."""
    options = plan.evaluation.harness
    allowed = probe_suite.share(options.max_regression) if options else None
    found = None if base is None else regressions(benchmarks, base, tuned)
    return probe_suite.gate(harness.FIELD, found, allowed)


def regressions(benchmarks: Sequence[Benchmark], base: Sequence[Score], tuned: Sequence[Score]) -> dict[str, float]:
    """How much worse each metric became, relative to the base's; below 0: better."""
    out = {}
    for benchmark, before, after in zip(benchmarks, base, tuned, strict=True):
        for metric in benchmark.metrics:
            worse = probe_suite.regression(metric.best, before.value(metric.name), after.value(metric.name))
            if worse is not None:
                out[probe_suite.title(metric.name, benchmark.name)] = worse
    return out
