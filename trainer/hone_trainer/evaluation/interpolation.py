"""Weight interpolation between base and tuned model (Wortsman et al. 2022, WiSE-FT, arXiv 2109.01903): w = base +
weight
(tuned - base). Often an interpolated model keeps more of the base's abilities and gives up little of the new ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hone_trainer.models import adapters, base_model
from hone_trainer.models.network import Generating
from hone_trainer.scoring import probe_suite
from hone_trainer.scoring.early_stopping import Goal
from hone_trainer.scoring.probe_suite import Probe
from hone_trainer.scoring.scores import Score
from hone_trainer.training.loop import Loop, Run

WEIGHTS = (0.2, 0.4, 0.6, 0.8)
"""Weights that are measured in addition to base and tuned model."""


@dataclass(frozen=True)
class InterpolatedModel:
    """A model on the line from the base, 0, to the tuned model, 1."""

    weight: float
    held_out: Sequence[Score]
    probes: Sequence[Score]

    def value(self, goal: Goal) -> float:
        """The method's own metric over all held-out rows."""
        return sum(self.held_out[1:], self.held_out[0]).value(goal.metric)

    def cost(self, goal: Goal) -> float:
        """`value` as a cost, where lower is better."""
        return goal.cost(self.value(goal))

    def to_json(self, run: Run) -> dict[str, Any]:
        """Weight and metrics, keyed by metric and rows."""
        metrics = {
            f"{name} on {split.name}": score.value(name)
            for split, score in zip(run.held_out, self.held_out, strict=True)
            for name in run.method.metrics
        }
        metrics |= {
            f"{name} on {probe.name}": score.value(name)
            for probe, score in zip(run.probes, self.probes, strict=True)
            for name in probe.names
        }
        return {"weight": self.weight, "metrics": metrics}


def measure(trainer: Loop) -> list[InterpolatedModel]:
    """The points between base and tuned model. A collective; the model's weights are restored afterwards."""
    points = []
    for weight in WEIGHTS:
        with between(trainer, weight):
            probes = probe_suite.measure(trainer, trainer.run.probes, trainer.poll)
            points.append(InterpolatedModel(weight, trainer.scores(), probes))
    return points


@contextmanager
def between(trainer: Loop, weight: float) -> Iterator[None]:
    """Set the trainer's model to this point of the line while the context is open."""
    run = trainer.run
    if adapters.is_adapter(run.plan.adapter):
        with _scaled(trainer.model, weight):
            yield
    else:
        with _mixed(trainer.model, _base(run), weight):
            yield


@contextmanager
def _scaled(network: Generating, weight: float) -> Iterator[None]:
    """The update of a LoRA layer is a factor times B A: multiply that factor by the weight."""
    layers = list(lora_layers(network))
    before = [dict(layer.scaling) for layer in layers]
    for layer in layers:
        layer.scaling = {name: factor * weight for name, factor in layer.scaling.items()}
    try:
        yield
    finally:
        for layer, factors in zip(layers, before, strict=True):
            layer.scaling = factors


def lora_layers(network: Generating) -> Iterator[Any]:
    """PEFT's layers with a low-rank update."""
    from peft.tuners.lora import LoraLayer

    return (module for module in network.modules() if isinstance(module, LoraLayer))


@contextmanager
def _mixed(network: Generating, base: dict[str, Any], weight: float) -> Iterator[None]:
    import torch

    tuned = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in base:  # no base has PPO's value head
                parameter.lerp_(base[name].to(parameter), 1 - weight)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(tuned[name])


def _base(run: Run) -> dict[str, Any]:
    network = base_model.load(run.base, bf16=False, cpu=True, quantize=False, frozen=False, head=run.method.head)
    return dict(network.named_parameters())


def best(points: Sequence[InterpolatedModel], base: Sequence[Score], run: Run) -> InterpolatedModel | None:
    """The point with the best held-out value among those within the retention limit; None if there is none."""
    limit = probe_suite.most_regression(run.plan)
    kept = [p for p in points if not probe_suite.beyond(probe_suite.regressions(run.probes, base, p.probes), limit)]
    return min(kept, key=lambda p: p.cost(run.method.goal), default=None)


def sentence(choice: InterpolatedModel | None, tuned: InterpolatedModel, base: Sequence[Score], run: Run) -> str | None:
    """What the curve shows in addition to the tuned model; None if the tuned model is the best point."""
    if choice is None:
        return (
            "evaluation.retention.interpolate: no weights between base and tuned keep every number of "
            "evaluation.retention within its limit."
        )
    if choice.weight == tuned.weight:
        return None
    goal, probes = run.method.goal, _regressions_in_words(run.probes, base, choice.probes)
    return (
        f"evaluation.retention.interpolate: {choice.weight:g} of the way from base to tuned weights, {goal.metric} on "
        f"held-out rows is {choice.value(goal):.4f} (tuned {tuned.value(goal):.4f}), {probes}; "
        f"`python -m hone_trainer export --weight {choice.weight:g}` makes that model of a checkpoint."
    )


def _regressions_in_words(probes: Sequence[Probe], base: Sequence[Score], scores: Sequence[Score]) -> str:
    worse = probe_suite.regressions(probes, base, scores)
    return ", ".join(f"{name} {_than_base(share)}" for name, share in worse.items())


def _than_base(worse: float) -> str:
    return f"{worse:+.1%} worse than the base's" if math.isfinite(worse) else "worse than the base's 0"
