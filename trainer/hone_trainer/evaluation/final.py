"""The final evaluation: the trained model is measured like the base before the first step, and judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hone_api.kinds.modelversion import AnsweredPrompt, EvaluationNumber
from hone_trainer.evaluation import interpolation, loss_spikes, reward_scores
from hone_trainer.evaluation.baseline import Baseline
from hone_trainer.evaluation.interpolation import InterpolatedModel
from hone_trainer.evaluation.other_version import OtherVersion
from hone_trainer.harness import measuring
from hone_trainer.scoring import paired, probe_suite, scores
from hone_trainer.scoring.scores import Score
from hone_trainer.signals import interrupted
from hone_trainer.training.loop import Loop, Run, StopRequested


@dataclass
class FinalEvaluation:
    """Numbers and answers of base and tuned model, and the verdict."""

    numbers: list[EvaluationNumber]
    samples: list[AnsweredPrompt]
    rejected: str = ""
    """Why the model fails the gate of evaluation.retention or evaluation.harness."""
    advice: list[str] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    """Points between base and tuned weights."""
    resolved: dict[str, int | str] = field(default_factory=dict)


def run_final_evaluation(trainer: Loop, base: Baseline, other: OtherVersion, step: int) -> FinalEvaluation:
    """Measure the model in its current state, which is that of `step`. A collective.

    Raises:
        TrainerError: Interrupted.
    """
    run: Run = trainer.run
    if run.is_measured:
        run.begin_evaluation("Evaluating", is_scored=step in run.scores)
    try:
        tuned = run.scores[step] if step in run.scores else trainer.scores()
        probed = probe_suite.measure(trainer, run.probes, trainer.poll)
        graded = reward_scores.measure(trainer, trainer.poll)
        recorded = base.recorded or reward_scores.recorded(trainer, trainer.poll)
        compared = other.scores(trainer)
        points = interpolation.measure(trainer) if _interpolates(run) and base.scores else []
        samples, warnings = base.samples(trainer)
        benchmark_scores = measuring.measure(trainer, trainer.poll, "Benchmarking")
    except StopRequested:
        raise interrupted("while evaluating the trained model") from None
    names = [split.name for split in run.held_out]
    gates = (
        probe_suite.verdict(run.probes, base.probes, probed, run.plan),
        measuring.verdict(run.benchmarks, base.harness, benchmark_scores, run.plan),
    )
    final = FinalEvaluation(
        numbers=[
            *scores.numbers(names, run.method.metrics, base.scores, tuned, other=compared),
            *probe_suite.numbers(run.probes, base.probes, probed),
            *paired.numbers(asked := [split.name for split in run.prompts], base.graded, graded),
            *paired.parity(asked, recorded, graded),
            *measuring.numbers(run.benchmarks, base.harness, benchmark_scores),
        ],
        samples=samples,
        rejected=" ".join(filter(None, gates)),
        advice=[*warnings, *([f"evaluation.against: {other.advice}"] if other.advice else [])],
    )
    if run.method.goal.metric == "loss":
        final.advice += loss_spikes.sentences(trainer.state.log_history)
    if points and base.probes:
        _advise_interpolation(final, run, base.probes, [*points, InterpolatedModel(1.0, tuned, probed)])
    return final


def _interpolates(run: Run) -> bool:
    retention = run.plan.evaluation.retention
    return retention is not None and retention.interpolate


def _advise_interpolation(final: FinalEvaluation, run: Run, base: list[Score], points: list[InterpolatedModel]) -> None:
    best = interpolation.best(points, base, run)
    words = interpolation.sentence(best, points[-1], base, run)
    final.advice += [words] if words else []
    final.resolved |= {"interpolation": f"{best.weight:g}"} if best else {}
    final.curve = [point.to_json(run) for point in points]
