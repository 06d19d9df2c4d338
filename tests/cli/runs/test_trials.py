"""What a sweep decides, from jobs and versions alone."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from hone_api.base.meta import NUMBER
from hone_api.contract import encoding
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.plan import TrainingPlan
from hone_cli.errors import CommandError
from hone_cli.runs import varied
from hone_cli.runs.sweep import _hours, _line, _Running
from hone_cli.runs.trials import (
    SETTINGS,
    STOPPED,
    TRIAL,
    Difference,
    Sweep,
    SweepStep,
    Trial,
    best_of,
    next_step,
    trial_of,
    verdict,
)

pytestmark = pytest.mark.pure
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
RATE, RANK = "training.learningRate=1e-5..1e-3:log", "adapter.rank=8,16,32"


def made(
    number: int,
    state: str = "Finished",
    value: float | None = None,
    *,
    settings: dict[str, Any] | None = None,
    curve: str = "",
    hours: float = 1.0,
    digest: str = "sha256:a",
    **number_fields: Any,
) -> Trial:
    """A trial as its job and version say it."""
    kinds = {"Finished": ["Finished", "Succeeded"], "Failed": ["Finished", "Failed"]}
    conditions = [{"type": type_, "status": "True"} for type_ in kinds.get(state, [])]
    start = NOW - timedelta(hours=hours)
    times = {"startTime": start.isoformat(), **({"completionTime": NOW.isoformat()} if conditions else {})}
    attempt = {"number": 1, "startTime": start.isoformat(), "startStep": 0, "phaseSeconds": {"training": 60}}
    status: dict[str, Any] = {"conditions": conditions, "attempts": [attempt], **times}
    status |= {"metrics": [{"name": "eval_loss", "curve": curve}], "progress": {"totalSteps": 100}}
    status["resolved"] = {"datasetDigests": {"rows": digest}}
    annotations = {SETTINGS: json.dumps(settings or {})} | ({STOPPED: "worse"} if state == "Stopped" else {})
    meta = {"name": f"s-{number}", "labels": {TRIAL: str(number)}, "annotations": annotations}
    spec = {"resources": {"gpusPerNode": 1}, "budget": {"gpuHours": "2"}}
    numbers = [] if value is None else [{"name": "loss", "tuned": str(value), "rows": 100, **number_fields}]
    version = {"metadata": {"name": f"s-v{number}"}, "spec": {"evaluation": {"numbers": numbers}}}
    return trial_of({"metadata": meta, "spec": spec, "status": status}, version if value is not None else None, "loss")


def test_a_trial_that_somebody_suspended_says_how_it_goes_on() -> None:
    trial = made(3, "Open")
    assert _line(trial, NOW).endswith("runs")
    suspended = trial_of({**trial.job, "spec": {**trial.job["spec"], "suspend": True}}, None, "loss")
    assert _line(suspended, NOW).endswith("is suspended, and goes on with: hone resume s-3")


def test_values_are_typed_by_the_schema() -> None:
    read = {each.path: each.samples for each in varied.read([RATE, RANK, "training.packing=true,false"])}
    assert read["training.learningRate"] == ("1e-05", "0.001")
    assert read["adapter.rank"] == (8, 16, 32)
    assert read["training.packing"] == (True, False)
    body = varied.put({"spec": {"adapter": None}}, {"adapter.rank": 8, "training.learningRate": "1e-4"})
    assert body["spec"] == {"adapter": {"rank": 8}, "training": {"learningRate": "1e-4"}}


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ("training.learningrate=1,2", "spec.training has no learningrate: did you mean learningRate?"),
        ("model.uri=a,b", "all trials share model"),
        ("output.version=1..3", "all trials share output"),
        ("evaluation.maxRows=1..3", "all trials share evaluation"),
        ("training=1,2", "name one of its fields"),
        ("training.batchSize=1.5..3", "whole numbers"),
        ("training.batchSize=a,b", "not a whole number"),
        ("training.packing=yes,no", "neither true nor false"),
        ("training.packing=1..2", "not a number"),
        ("training.learningRate=nan..1", "first end must be below"),
        ("training.learningRate=1..1", "first end must be below"),
        ("training.learningRate=0..1:log", "begins above 0"),
        ("training.learningRate=0..1:lin", "after a range comes :log"),
        ("adapter.rank=8,8", "a value is there twice"),
        ("adapter.rank", "write --vary"),
        ("=1,2", "spec has no "),
    ],
)
def test_what_cannot_be_varied_is_refused_with_the_way_out(vary: str, words: str) -> None:
    with pytest.raises(CommandError) as refused:
        varied.read([vary])
    assert words in str(refused.value)


def leaves(schema: Any, path: str = "") -> Any:
    """Each field of a FineTuneJob that holds no other fields."""
    fields = {key: field for each in varied._alternatives(schema) for key, field in each.get("properties", {}).items()}
    for key, field in fields.items():
        inner = [*leaves(field, f"{path}.{key}" if path else key)]
        yield from inner or [(f"{path}.{key}" if path else key, field)]


def example(field: Any) -> list[Any]:
    """Values that the schema of a field allows."""
    out: list[Any] = []
    for each in varied._alternatives(field):
        kind = each.get("type")
        out += each.get("enum", [])
        out += [True, False] if kind == "boolean" else []
        low = each.get("minimum", 1)
        out += [max(1, low), max(2, low + 1)] if kind == "integer" else []
        out += ["0.25", "1"] if NUMBER in each else ["a"] if kind == "string" and "enum" not in each else []
    return out


def test_every_field_can_be_varied_or_is_refused() -> None:
    tried, allowed, refused = 0, 0, list[str]()
    for path, field in leaves(FineTuneJobSpec.model_json_schema(by_alias=True)):
        values = ",".join(str(value).lower() if isinstance(value, bool) else str(value) for value in example(field))
        tried += 1
        try:
            (read,) = varied.read([f"{path}={values or 'a'}"])
        except CommandError as error:
            refused.append(str(error))
            continue
        allowed += 1
        assert path.partition(".")[0] in varied.BLOCKS
        assert varied.present(varied.put({"spec": {}}, {path: read.choices[0]}), [read]) == {path: read.choices[0]}
    assert not [words for words in refused if "all trials share" not in words and "several values" not in words]
    assert tried > 120
    assert allowed > 60


def test_trials_encode_their_rows_once_unless_the_tokens_differ() -> None:
    """Of all fields of training and adapter, only these change the address of the encoded rows."""
    plan = {
        "kind": "Training",
        "run": "one",
        "method": "SFT",
        "modelPath": "model",
        "modelUri": "hf://owner/model",
        "modelDigest": "sha256:" + "b" * 64,
        "datasets": [{"name": "rows", "path": "rows.jsonl", "digest": "sha256:" + "a" * 64}],
        "output": {"modelName": "tutor"},
        "workPath": "work",
        "outputPath": "out",
    }
    first, changed, tried = encoding.keys(TrainingPlan.model_validate(plan)), set(), set()
    for path, field in leaves(FineTuneJobSpec.model_json_schema(by_alias=True)):
        if path.partition(".")[0] not in ("training", "adapter", "earlyStopping", "sft"):
            continue
        for value in example(field):
            body = varied.put({"spec": plan}, {path: value})["spec"]
            try:
                keys = encoding.keys(TrainingPlan.model_validate(body))
            except ValueError:
                continue
            tried.add(path)
            changed |= {path} if keys != first else set()
    assert len(tried) > 25
    changes = {
        "training.maxLength",
        "training.truncation",
        "training.thinking",
        "training.ropeScaling.factor",
        "sft.trainOn",
    }
    assert changed == changes


LOSS: dict[str, Any] = {
    "training.learningRate": lambda text: abs(float(text) - 3e-4) * 1000,
    "adapter.rank": lambda rank: 1 / rank,
}


class World:
    """A cluster in which trials end some looks after they began; the loop may be killed between any two looks."""

    def __init__(self, sweep: Sweep, fails: set[int], restarts: bool) -> None:
        self.sweep, self.fails, self.restarts = sweep, fails, restarts
        self.jobs: dict[int, dict[str, Any]] = {}
        self.most, self.given = 0, 0.0

    def trials(self) -> list[Trial]:
        out = []
        for number, job in self.jobs.items():
            state = "Open" if job["looks"] < 3 else "Failed" if number in self.fails else "Finished"
            loss = 1.0 + sum(LOSS[path](value) for path, value in job["settings"].items())
            value = loss if state == "Finished" else None
            out.append(made(number, state, value, settings=job["settings"], hours=job["looks"] / 3))
        return out

    def run(self) -> str:
        for _ in range(500):
            step = next_step(self.sweep, self.trials(), (), NOW)
            if step.over:
                return step.over
            if step.number is not None:
                assert step.number not in self.jobs
                self.jobs[step.number] = {"looks": 0, "settings": dict(step.settings)}
                if self.restarts:
                    again = next_step(self.sweep, self.trials(), (), NOW)
                    assert again.number != step.number
            else:
                for job in self.jobs.values():
                    job["looks"] = min(3, job["looks"] + 1)
            self.most = max(self.most, sum(job["looks"] < 3 for job in self.jobs.values()))
        raise AssertionError("it does not end")


@pytest.mark.parametrize(
    ("trials", "parallel", "fails"), [*itertools.product((2, 5), (1, 3), ((), (1,), (2,), (1, 2, 3, 4, 5)))]
)
def test_a_sweep_ends_within_its_bounds_and_the_same_after_a_restart(trials: int, parallel: int, fails: Any) -> None:
    sweep = Sweep(varied.read([RATE, RANK]), {}, trials=trials, parallel=parallel)
    worlds = [World(sweep, set(fails), restarts) for restarts in (False, True)]
    for world in worlds:
        over = world.run()
        assert world.most <= parallel
        assert "failed" in over if set(fails) >= set(world.jobs) else over == f"{trials} trials"
        assert world.jobs[1]["settings"] == {}
    settings = [json.dumps(job["settings"]) for job in worlds[0].jobs.values()]
    assert len(set(settings)) == len(settings)
    assert settings == [json.dumps(job["settings"]) for job in worlds[1].jobs.values()]


def test_where_all_fail_no_more_are_started() -> None:
    sweep = Sweep(varied.read([RATE]), {}, parallel=3)
    failed = [made(number, "Failed") for number in (1, 2, 3)]
    assert next_step(sweep, [*failed, made(4, "Open")], (), NOW) == SweepStep()
    assert next_step(sweep, failed, (), NOW).over == "all of 3 trials have failed"
    assert next_step(sweep, [*failed, made(4, value=1.0)], (), NOW).number == 5


def test_the_others_wait_for_the_first_which_they_are_compared_with() -> None:
    sweep = Sweep(varied.read([RANK]), {}, parallel=5)
    assert next_step(sweep, [made(1, "Open")], (), NOW).number is None
    assert next_step(sweep, [made(1, "Finished", 1.0)], (), NOW).number == 2


def test_a_small_space_is_tried_as_a_whole_and_then_it_is_over() -> None:
    sweep = Sweep(varied.read([RANK, "training.batchSize=1..3"]), {"adapter.rank": 16, "training.batchSize": 2})
    sweep = Sweep(sweep.space, sweep.first, trials=50)
    world = World(sweep, set(), restarts=False)
    LOSS["training.batchSize"] = float
    assert world.run() == "all combinations of settings have been tried"
    tried = {tuple(job["settings"].values()) for number, job in world.jobs.items() if number > 1}
    assert tried == {*itertools.product((8, 16, 32), (1, 2, 3))} - {(16, 2)}
    assert len(world.jobs) == 9


def test_settings_that_the_api_server_refuses_are_not_tried_again() -> None:
    sweep = Sweep(varied.read([RATE]), {}, trials=5)
    step = next_step(sweep, [made(1, value=1.0)], (2, 3), NOW)
    assert step.number == 4
    assert next_step(sweep, [made(1, value=1.0)], (2, 3, 4, 5), NOW).over == "5 trials"


@pytest.mark.parametrize("bound", [0.5, 3.0, 40.0])
def test_what_the_trials_may_use_never_exceeds_the_bound(bound: float) -> None:
    """Also if each uses all that it may: the sum of what is used and may be used keeps the bound."""
    sweep = Sweep(varied.read([RATE]), {}, trials=6, parallel=3, gpu_hours=bound)
    used: list[float] = []
    trials: list[Any] = []
    for number in range(1, 7):
        share = next_step(sweep, trials, (), NOW).hours
        if share is None:
            break
        used.append(share)
        trial = made(number, "Finished", 1.0 + number)
        trials.append(UsedTrial(trial, share))
    assert 0 < sum(used) <= bound
    assert len(used) == 6


class UsedTrial(Trial):
    """A trial that has used so many GPU-hours."""

    def __init__(self, trial: Trial, hours: float) -> None:
        super().__init__(trial.number, {"training.learningRate": "0.0001"}, trial.job, trial.version, trial.metric)
        object.__setattr__(self, "used", hours)

    def hours(self, now: datetime) -> float:
        return float(vars(self)["used"])


def test_without_anything_left_no_trial_starts() -> None:
    sweep = Sweep(varied.read([RATE]), {}, gpu_hours=1.0)
    assert next_step(sweep, [made(1, value=1.0, hours=3)], (), NOW).over == "the budget is used"


GOOD, BAD = "10:3 20:2.5 30:2 40:1.5 50:1", "10:9 20:8 30:7 40:6.5"


@pytest.mark.parametrize(
    ("finished", "number", "curve", "stopped"),
    [
        (3, 9, BAD, True),
        (2, 9, BAD, False),  # a median of two
        (3, 9, "10:9 20:8", False),  # too early
        (3, 1, BAD, False),  # the others are compared with it
        (3, 9, GOOD, False),
        (3, 9, "", False),
        (3, 9, "30:nan", True),
    ],
)
def test_a_trial_is_stopped_by_the_median(finished: int, number: int, curve: str, stopped: bool) -> None:
    done = [made(n, value=1.0, curve=GOOD) for n in range(10, 10 + finished)]
    sweep = Sweep(varied.read([RATE]), {})
    step = next_step(sweep, [made(number, "Open", curve=curve), *done], (), NOW)
    assert [*step.stop] == ([f"s-{number}"] if stopped else [])
    quiet = Sweep(sweep.space, {}, early=False)
    assert not next_step(quiet, [made(number, "Open", curve=curve), *done], (), NOW).stop


def test_of_a_metric_that_should_be_high_the_low_ones_are_stopped() -> None:
    done = [made(n, value=1.0, curve=GOOD) for n in (10, 11, 12)]
    sweep = Sweep(varied.read([RATE]), {}, best="Highest")
    assert not next_step(sweep, [made(9, "Open", curve=BAD), *done], (), NOW).stop
    assert next_step(sweep, [made(9, "Open", curve="30:0.5"), *done], (), NOW).stop


def against(low: float, high: float, value: float = 1.0) -> dict[str, Any]:
    return {"against": str(value), "againstLow": str(low), "againstHigh": str(high)}


FIRST = made(1, value=1.0)


@pytest.mark.parametrize(
    ("second", "best", "chosen", "better", "words"),
    [
        (made(2, value=0.9, **against(-0.12, -0.08)), 2, 2, True, "trial 2 is better"),
        (made(2, value=0.9, **against(-0.25, 0.05)), 2, 1, False, "no difference is shown"),
        (made(2, value=0.9, hours=0.5, **against(-0.25, 0.05)), 2, 2, False, "the cheaper one is trial 2"),
        (made(2, value=0.9), 2, 1, False, "not compared by row"),
        (made(2, value=1.1, **against(0.05, 0.15)), 1, 1, False, "has the best value"),
        (made(2, value=0.5, **against(-0.6, -0.4, 1.5)), 1, 1, False, "has the best value"),  # another ruler
        (made(2, value=0.5, digest="sha256:b", **against(-0.6, -0.4)), 1, 1, False, "has the best value"),
        (made(2, "Failed"), 1, 1, False, "has the best value"),
        (made(2, value=0.5, hours=0.5, **against(0.1, 0.3)), 2, 1, False, "is worse than the manifest as it is"),
    ],
)
def test_a_trial_is_better_only_if_its_interval_says_so(
    second: Trial, best: int, chosen: int, better: bool, words: str
) -> None:
    found = verdict(Sweep(varied.read([RATE]), {}), [FIRST, second], NOW)
    assert found.best
    assert found.chosen
    assert (found.best.number, found.chosen.number, found.better) == (best, chosen, better)
    assert words in found.words


def test_trials_that_measured_something_else_are_named() -> None:
    other = [made(2, value=0.5, **against(-0.6, -0.4, 1.5)), made(3, value=0.5, digest="sha256:b")]
    found = verdict(Sweep(varied.read([RATE]), {}), [FIRST, *other], NOW)
    assert "change what is measured: the model of trial 1 has 1 in trial 1 and 1.5 here" in found.incomparable[2]
    assert "the Dataset has changed" in found.incomparable[3]


def test_the_best_of_many_needs_a_wider_interval() -> None:
    """95 % of one comparison is not 95 % of the best of ten."""
    close = made(2, value=0.9, **against(-0.19, -0.01))
    others = [made(n, value=0.95, **against(-0.1, 0.0)) for n in range(3, 12)]
    assert verdict(Sweep(varied.read([RATE]), {}), [FIRST, close], NOW).better
    assert not verdict(Sweep(varied.read([RATE]), {}), [FIRST, close, *others], NOW).better
    same = Difference(-0.1, -0.19, -0.01).widened(1)
    assert (same.low, same.high) == pytest.approx((-0.19, -0.01))


def test_without_a_first_trial_the_best_is_kept_and_without_any_none() -> None:
    sweep = Sweep(varied.read([RATE]), {})
    found = verdict(sweep, [made(1, "Failed"), made(2, value=2.0), made(3, value=1.0)], NOW)
    assert found.chosen
    assert found.chosen.number == 3
    assert "nothing to compare with" in found.words
    assert verdict(sweep, [made(1, "Failed")], NOW).chosen is None


def test_splits_count_by_their_rows() -> None:
    trial = made(2, value=1.0, **against(-0.2, 0.0, 1.1))
    assert trial.version
    trial.version["spec"]["evaluation"]["numbers"] += [
        {"name": "loss", "tuned": "2", "rows": 300, "against": "2", "againstLow": "-0.1", "againstHigh": "0.1"},
        {"name": "loss", "tuned": "9", "purpose": "Retention"},
        {"name": "token_accuracy", "tuned": "9"},
    ]
    assert trial.value == pytest.approx(1.75)
    found = trial.difference
    assert found
    assert found.value == pytest.approx(-0.025)
    assert (found.low, found.high) == pytest.approx((-0.025 - 0.0790569, -0.025 + 0.0790569))


@pytest.mark.parametrize(
    "change", [{"labels": {}}, {"annotations": {}}, {"annotations": {SETTINGS: "{"}}, {"labels": {TRIAL: "0"}}]
)
def test_a_trial_that_somebody_has_changed_is_named(change: dict[str, Any]) -> None:
    job = {**FIRST.job, "metadata": {**FIRST.job["metadata"], **change}}
    with pytest.raises(CommandError, match="FineTuneJob s-1 has the label"):
        trial_of(job, None, "loss")


@pytest.mark.parametrize("state", ["Failed", "Finished"])
def test_a_trial_without_the_number_has_failed_and_says_what_it_has(state: str) -> None:
    trial = made(1, state)
    assert trial.state == "Failed"
    numbers = [{"name": "reward", "tuned": "1"}]
    other = Trial(1, {}, made(1).job, {"spec": {"evaluation": {"numbers": numbers}}}, "loss")
    assert "has no number loss: it has reward" in other.why


PRICES: Any = SimpleNamespace(currency="EUR", of=lambda product, spot: {"A": 2.0, "B": 4.0}.get(product))


@pytest.mark.parametrize(
    ("budget", "products", "result"),
    [
        ("40gpuh", [], 40.0),
        ("200EUR", ["A"], 100.0),
        ("200EUR", ["A", "B"], 50.0),
        ("200USD", ["A"], "is not in EUR"),
        ("200EUR", ["C"], "have no gpuHour of C"),
        ("200EUR", [], "a GPU that is not named"),
        ("0gpuh", [], "write 40gpuh"),
        ("-1gpuh", [], "write 40gpuh"),
        ("1e3gpuh", [], "write 40gpuh"),
        ("40", [], "write 40gpuh"),
    ],
)
def test_a_bound_is_hours_or_money(budget: str, products: list[str], result: Any) -> None:
    spec = {"resources": {"gpusPerNode": 1, "gpuProducts": products}}
    if isinstance(result, float):
        assert _hours(budget, spec, PRICES) == result
        return
    with pytest.raises(CommandError, match=result):
        _hours(budget, spec, PRICES)
    with pytest.raises(CommandError, match=r"the job has no GPU|write 40gpuh"):
        _hours(budget, {}, None)


@pytest.mark.parametrize(
    ("own", "share"),
    [({}, "2.0000"), ({"gpuHours": "1"}, "1.0000"), ({"money": "3", "gpuHourPrice": "2"}, "1.5000")],
)
def test_a_trial_has_the_smaller_of_its_own_budget_and_its_part(own: dict[str, str], share: str) -> None:
    spec = {"output": {"modelName": "bot"}, **({"budget": own} if own else {})}
    cluster: Any = SimpleNamespace()
    running = _Running(cluster, {"metadata": {"name": "job"}, "spec": spec}, [], "", "")
    running.sweep = Sweep(varied.read([RANK]), {})
    assert running.body(1, {}, 2.0)["spec"]["budget"] == {"gpuHours": share}
    assert running.body(1, {}, None)["spec"].get("budget", {}) == own


@pytest.mark.torch
def test_lower_is_better_of_the_same_metrics_as_in_the_trainer() -> None:
    from hone_trainer.methods import METHODS

    of_trainer = {name: best for method in METHODS.values() for name, best in method.metrics.items()}
    assert {name: best_of(name) for name in of_trainer} == of_trainer
