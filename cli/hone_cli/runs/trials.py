"""The trials of a sweep as their jobs and versions say, and what to do next. Pure: the jobs are the only state.

A loop that ends and begins again reads the same jobs, and goes on with the same decisions.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from hone_api.base.times import read_time
from hone_api.estimate.gpu_time import seconds_held
from hone_cli.errors import CommandError
from hone_cli.runs.varied import Setting, VariedSetting
from hone_cli.runs.view import curves, has_failed, is_over

if TYPE_CHECKING:
    import optuna

SWEEP, TRIAL = "hone.dev/sweep", "hone.dev/sweep-trial"
"""Labels of a trial: the name of its sweep, and its number."""
SETTINGS, DEFINITION, STOPPED = "hone.dev/sweep-settings", "hone.dev/sweep-definition", "hone.dev/sweep-stopped"
"""Annotations of a trial: what it varies, the digest of what all trials of the sweep share, why it was stopped."""
Best = Literal["Lowest", "Highest"]
TrialState = Literal["Open", "Finished", "Failed", "Stopped"]
_LOWEST = frozenset({"loss", "perplexity", "kl"})
_STARTED_BY_CHANCE = (3, 10)
"""Fewest and most trials with settings drawn at random, before TPE learns from them; otherwise a third of all."""
_MEDIAN_OF, _WARM_UP = 3, 30
"""Finished trials that a median needs; percent of the steps before which no trial is stopped."""
_ANOTHER_RULER = 0.01
"""Relative difference between two measurements of one model, from which they are of different things; a tenth of it
counts for values about 0."""
_FEWEST_FAILURES = 3
_TRIES = 20


@dataclass(frozen=True)
class Difference:
    """A trial minus the first one on the same rows, with its 95 % interval."""

    value: float
    low: float
    high: float

    def widened(self, comparisons: int) -> Difference:
        """The interval that holds for the best of so many comparisons (Bonferroni)."""
        normal = NormalDist()
        factor = normal.inv_cdf(1 - 0.025 / max(1, comparisons)) / normal.inv_cdf(0.975)
        low, high = (self.value + (end - self.value) * factor for end in (self.low, self.high))
        return Difference(self.value, low, high)


@dataclass(frozen=True)
class Trial:
    """One job of a sweep."""

    number: int
    settings: Mapping[str, Setting]
    """What it varies; empty for the first, which is the manifest as it is."""
    job: Mapping[str, Any]
    version: Mapping[str, Any] | None
    metric: str

    @property
    def name(self) -> str:
        """Of the FineTuneJob."""
        return str(self.job["metadata"]["name"])

    @property
    def state(self) -> TrialState:
        """Stopped: by the rule of the sweep."""
        if is_over(self.job):
            return "Failed" if has_failed(self.job) or self.value is None else "Finished"
        return "Stopped" if STOPPED in (self.job["metadata"].get("annotations") or {}) else "Open"

    @property
    def is_suspended(self) -> bool:
        """By spec.suspend: a queue of Kueue lets it wait by its own means."""
        return bool(self.job["spec"].get("suspend"))

    @property
    def why(self) -> str:
        """Why it has no number."""
        status = self.job.get("status") or {}
        if self.state == "Failed":
            if code := (status.get("failure") or {}).get("code"):
                return f"{code}: hone explain {code}"
            if has_failed(self.job):
                return str(status.get("reason") or "it cannot run")
            names = sorted({str(each.get("name")) for each in _numbers(self.version)})
            has = f"it has {', '.join(names)}" if names else "it has none"
            return f"ModelVersion {status.get('modelVersionName')} has no number {self.metric}: {has}"
        return str((self.job["metadata"].get("annotations") or {}).get(STOPPED, ""))

    @cached_property
    def numbers(self) -> list[Mapping[str, Any]]:
        """The metric on each held-out split."""
        return [each for each in _numbers(self.version) if each.get("name") == self.metric and _is_held_out(each)]

    @property
    def value(self) -> float | None:
        """The metric over all held-out splits."""
        return _mean(self.numbers, "tuned")

    @property
    def first_again(self) -> float | None:
        """The metric of the first trial's model, as this trial measured it."""
        return _mean(self.numbers, "against")

    @property
    def difference(self) -> Difference | None:
        """From the first trial, paired by row; None: not compared."""
        value, again, weights = self.value, self.first_again, _weights(self.numbers)
        low, high = _mean(self.numbers, "againstLow"), _mean(self.numbers, "againstHigh")
        if value is None or again is None or low is None or high is None:
            return None
        if len(weights) > 1:  # rows of different splits are independent
            widths = [float(each["againstHigh"]) - float(each["againstLow"]) for each in self.numbers]
            half = sum((w * width / 2) ** 2 for w, width in zip(weights, widths, strict=True)) ** 0.5 / sum(weights)
            low, high = value - again - half, value - again + half
        return Difference(value - again, low, high)

    def hours(self, now: datetime) -> float:
        """GPU-hours used; without GPUs the hours from its start to its end."""
        if self.gpus:
            return seconds_held(self.job, now) / 3600
        status = self.job.get("status") or {}
        start, end = read_time(status.get("startTime")), read_time(status.get("completionTime")) or now
        return max(0.0, (end - start).total_seconds()) / 3600 if start else 0.0

    @property
    def gpus(self) -> int:
        """Of one pod."""
        return int((self.job["spec"].get("resources") or {}).get("gpusPerNode") or 0)

    @property
    def may_use(self) -> float:
        """GPU-hours of its budget."""
        return float((self.job["spec"].get("budget") or {}).get("gpuHours") or 0.0)

    @cached_property
    def curve(self) -> dict[int, float]:
        """The held-out metric by percent of the steps, in tenths: evaluations of trials are at the same ones."""
        points = curves(self.job).get(f"eval_{self.metric}") or []
        progress = (self.job.get("status") or {}).get("progress") or {}
        total = progress.get("totalSteps") or max((step for step, _ in points), default=0)
        worst = math.inf if best_of(self.metric) == "Lowest" else -math.inf  # diverged
        return {
            10 * round(10 * step / total): value if math.isfinite(value) else worst
            for step, value in points
            if 0 < step <= total
        }


def best_of(metric: str) -> Best:
    """Whether lower or higher is better."""
    return "Lowest" if metric in _LOWEST else "Highest"


def trial_of(job: Mapping[str, Any], version: Mapping[str, Any] | None, metric: str) -> Trial:
    """The trial that a job is.

    Raises:
        CommandError: somebody has changed its label or annotation.
    """
    meta = job["metadata"]
    try:
        number = int(meta["labels"][TRIAL])
        settings = json.loads(meta["annotations"][SETTINGS])
        if number < 1 or not isinstance(settings, dict):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        words = f"has the label {SWEEP}, and no readable label {TRIAL} or annotation {SETTINGS}"
        raise CommandError(f"FineTuneJob {meta['name']} {words}: delete it, or name another sweep by --name") from None
    return Trial(number, settings, job, version, metric)


@dataclass(frozen=True)
class Sweep:
    """What was asked for."""

    space: Sequence[VariedSetting]
    first: Mapping[str, Setting]
    """The varied settings that the manifest has."""
    best: Best = "Lowest"
    trials: int = 12
    parallel: int = 2
    gpu_hours: float | None = None
    """The bound over all trials; None: there is none."""
    seed: int = 0
    early: bool = True
    """Stop trials by the rule of the median."""


@dataclass(frozen=True)
class SweepStep:
    """What to do now."""

    stop: dict[str, str] = field(default_factory=dict)
    """Jobs to suspend, and why."""
    number: int | None = None
    """Of the trial to start."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    hours: float | None = None
    """GPU-hours that it may use."""
    over: str = ""
    """Why no further trial starts, once none is open."""


def next_step(sweep: Sweep, trials: Sequence[Trial], refused: Iterable[int], now: datetime) -> SweepStep:
    """What to do now.

    Args:
        trials: those that there are, by number.
        refused: numbers of trials whose settings the API server did not accept.
    """
    stop = _to_stop(sweep, trials) if sweep.early else {}
    running = [trial for trial in trials if trial.state == "Open" and trial.name not in stop]
    number = max([0, *refused, *(trial.number for trial in trials)]) + 1
    waits = SweepStep(stop)
    if len(running) >= (1 if any(trial.number == 1 for trial in running) else sweep.parallel):
        return waits  # the others are compared with the first, and read the rows that it has encoded
    failed = [trial for trial in trials if trial.state == "Failed"]
    enough = min(sweep.trials, max(_FEWEST_FAILURES, sweep.parallel))
    hours = _share(sweep, trials, sweep.trials - number + 1, now)
    settings = _suggest(sweep, trials, number) if number > 1 else {}
    if len(failed) >= enough and all(trial.state in ("Failed", "Open") for trial in trials):
        return waits if running else SweepStep(stop, over=f"all of {len(failed)} trials have failed")
    if number > sweep.trials:
        over = f"{sweep.trials} trials"
    elif hours is not None and hours <= 0:
        over = "the budget is used"
    elif settings is None:
        over = "all combinations of settings have been tried"
    else:
        return SweepStep(stop, number, settings, hours)
    return waits if running else SweepStep(stop, over=over)


def _share(sweep: Sweep, trials: Sequence[Trial], left: int, now: datetime) -> float | None:
    """GPU-hours for the next trial: an equal part of what the others have left, so that the sum keeps the bound."""
    if sweep.gpu_hours is None:
        return None
    held = sum(max(t.hours(now), t.may_use) if t.state == "Open" else t.hours(now) for t in trials)
    return int(10_000 * (sweep.gpu_hours - held) / max(1, left)) / 10_000


def _suggest(sweep: Sweep, trials: Sequence[Trial], number: int) -> dict[str, Setting] | None:
    """New settings, chosen by TPE from the trials so far; None: all combinations have been tried."""
    import optuna

    taken = [sweep.first, *(trial.settings for trial in trials)]
    for attempt in range(_TRIES):
        chance = min(_STARTED_BY_CHANCE[1], max(_STARTED_BY_CHANCE[0], sweep.trials // 3))
        seed = (sweep.seed * 1_000_003 + number) * _TRIES + attempt
        sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=chance)
        trial = _study(sweep, trials, sampler).ask(_distributions(sweep.space))
        drawn = {each.path: _setting(each, trial.params[each.path]) for each in sweep.space}
        if drawn not in taken:
            return drawn
    values = [each.choices or tuple(range(int(each.low), int(each.high) + 1)) for each in sweep.space]
    if not all(each.choices or each.integer for each in sweep.space):
        return None
    paths = [each.path for each in sweep.space]
    rest = (dict(zip(paths, chosen, strict=True)) for chosen in itertools.product(*values))
    return next((settings for settings in rest if settings not in taken), None)


def _to_stop(sweep: Sweep, trials: Sequence[Trial]) -> dict[str, str]:
    """Open trials whose best value so far is worse than the median of the finished ones at the same step."""
    import optuna

    pruner = optuna.pruners.MedianPruner(n_startup_trials=_MEDIAN_OF, n_warmup_steps=_WARM_UP)
    study = _study(sweep, trials, None)
    candidates = [trial for trial in trials if trial.number > 1 and trial.state == "Open" and trial.curve]
    return {
        trial.name: f"worse than the median of the finished trials at {max(trial.curve)} % of the steps"
        for trial in candidates
        if pruner.prune(study, _frozen(sweep, trial))
    }


def _study(sweep: Sweep, trials: Iterable[Trial], sampler: optuna.samplers.BaseSampler | None) -> optuna.study.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = optuna.study.StudyDirection
    direction = directions.MINIMIZE if sweep.best == "Lowest" else directions.MAXIMIZE
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.add_trials([_frozen(sweep, trial) for trial in trials])
    return study


def _frozen(sweep: Sweep, trial: Trial) -> optuna.trial.FrozenTrial:
    """The trial as optuna knows it. The first has only the settings that the manifest names."""
    import optuna

    states = {"Open": "RUNNING", "Finished": "COMPLETE", "Failed": "FAIL", "Stopped": "PRUNED"}
    settings = {**sweep.first, **trial.settings}
    known = {each.path: _number(each, settings[each.path]) for each in sweep.space if each.path in settings}
    distributions = _distributions(sweep.space)
    known = {path: value for path, value in known.items() if value is not None}
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[states[trial.state]],
        value=trial.value if trial.state == "Finished" else None,
        params=known,
        distributions={path: distributions[path] for path in known},
        intermediate_values=trial.curve,
    )


def _distributions(space: Iterable[VariedSetting]) -> dict[str, optuna.distributions.BaseDistribution]:
    import optuna

    kinds = optuna.distributions
    out: dict[str, optuna.distributions.BaseDistribution] = {}
    for each in space:
        if each.choices:
            out[each.path] = kinds.CategoricalDistribution(each.choices)
        elif each.integer:
            out[each.path] = kinds.IntDistribution(int(each.low), int(each.high), log=each.log)
        else:
            out[each.path] = kinds.FloatDistribution(each.low, each.high, log=each.log)
    return out


def _setting(varied: VariedSetting, drawn: Any) -> Setting:
    setting: Setting = drawn if varied.choices else varied.setting(drawn)
    return setting


def _number(varied: VariedSetting, setting: Setting) -> Any:
    """A setting as optuna counts it; None: it is outside of what is varied."""
    if varied.choices:
        return setting if setting in varied.choices else None
    number = _float(setting)
    if number is None or not varied.low <= number <= varied.high:
        return None
    return int(number) if varied.integer else number


@dataclass(frozen=True)
class SweepVerdict:
    """What a sweep has shown."""

    best: Trial | None
    """With the best value of those that can be compared; None: all failed."""
    chosen: Trial | None
    """The one to go on with."""
    better: bool
    """Whether the best is shown to be better than the manifest as it is."""
    words: str
    incomparable: dict[int, str] = field(default_factory=dict)
    """Trials that measured something else, and why."""


def verdict(sweep: Sweep, trials: Sequence[Trial], now: datetime) -> SweepVerdict:
    """Which trial to go on with: the best one if an interval says so, otherwise the cheaper one."""
    finished = [trial for trial in trials if trial.state == "Finished"]
    first = next((trial for trial in finished if trial.number == 1), None)
    other = dict(_incomparable(first, finished))
    sign = 1 if sweep.best == "Lowest" else -1
    compared = [trial for trial in finished if trial.number not in other]
    best = min(compared, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)
    if best is None:
        return SweepVerdict(None, None, False, "no trial has finished", other)
    if first is None:
        return SweepVerdict(
            best, best, False, "the manifest as it is failed, so there is nothing to compare with", other
        )
    if best is first:
        return SweepVerdict(best, first, False, "the manifest as it is has the best value: keep it", other)
    found = best.difference.widened(len(compared) - 1) if best.difference else None
    interval = f"[{found.low:.4g}, {found.high:.4g}]" if found else ""
    if found and (found.high < 0 if sweep.best == "Lowest" else found.low > 0):
        words = f"trial {best.number} is better than the manifest as it is: {found.value:+.4g} {interval}"
        return SweepVerdict(best, best, True, words, other)
    if found and (found.low > 0 if sweep.best == "Lowest" else found.high < 0):
        words = (
            f"trial {best.number} is worse than the manifest as it is by the same rows: {found.value:+.4g} {interval}"
        )
        return SweepVerdict(best, first, False, words, other)
    cheaper = best if best.hours(now) < first.hours(now) else first
    why = f"{found.value:+.4g} {interval} has 0 in it" if found else "they were not compared by row"
    keep = f"the cheaper one is trial {cheaper.number}{' (the manifest as it is)' if cheaper is first else ''}"
    return SweepVerdict(best, cheaper, False, f"no difference is shown (trial {best.number}: {why}); {keep}", other)


def _incomparable(first: Trial | None, finished: Iterable[Trial]) -> Iterator[tuple[int, str]]:
    """Trials that had other rows, or whose settings change what the metric means."""
    if first is None or first.value is None:
        return
    for trial in finished:
        again = trial.first_again
        if _digests(trial) != _digests(first):
            yield trial.number, "its rows are not those of trial 1: the Dataset has changed"
        elif again is not None and abs(again - first.value) > _ANOTHER_RULER * (abs(first.value) + 0.1):
            yield (
                trial.number,
                f"its settings change what is measured: the model of trial 1 has {first.value:.4g} in trial 1 and "
                f"{again:.4g} here",
            )


def _digests(trial: Trial) -> Any:
    return ((trial.job.get("status") or {}).get("resolved") or {}).get("datasetDigests")


def _numbers(version: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    return list((((version or {}).get("spec") or {}).get("evaluation") or {}).get("numbers") or ())


def _is_held_out(number: Mapping[str, Any]) -> bool:
    return str(number.get("purpose", "HeldOut")) == "HeldOut"


def _weights(numbers: Iterable[Mapping[str, Any]]) -> list[float]:
    return [float(each.get("rows") or 1) for each in numbers]


def _mean(numbers: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Over all splits, by rows; None: one has no such number."""
    values = [_float(each.get(key)) for each in numbers]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    weights = _weights(numbers)
    return sum(value * weight for value, weight in zip(known, weights, strict=True)) / sum(weights)


def _float(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
