"""From plan to numbers, without a model."""

from __future__ import annotations

from typing import Any

import pytest

from hone_api.methods import METHODS, Method
from hone_api.plan import TrainingPlan
from hone_trainer.device import Device
from hone_trainer.errors import TrainerError
from hone_trainer.run import preflight
from hone_trainer.scoring import early_stopping
from hone_trainer.training import settings
from hone_trainer.training.settings import RunSettings

pytestmark = pytest.mark.pure

DIGEST = "sha256:" + "0" * 64


def plan(**fields: Any) -> TrainingPlan:
    body = {
        "run": "r",
        "modelPath": "m",
        "modelUri": "hf://a/b",
        "datasets": [{"name": "d", "path": "d.jsonl", "digest": DIGEST}],
        "output": {"modelName": "m"},
        "workPath": "w",
        "outputPath": "o",
    }
    return TrainingPlan.model_validate({**body, **fields})


def resolve(plan: TrainingPlan, ranks: int = 1, cuda: bool = False, bf16: bool = False, **facts: Any) -> RunSettings:
    device = Device(ranks, cuda=cuda, bf16=bf16)
    facts = {"sequences": 100, "max_length": 64, "micro_batch_size": 4, **facts}
    return settings.resolve(plan, rates=METHODS[Method.SFT].rates, device=device, **facts)


def test_defaults() -> None:
    found = resolve(plan())
    assert (found.micro_batch_size, found.accumulation) == (4, 2)
    assert found.total_steps == 13  # ceil(100 rows / 8)
    assert (found.evaluation_every, found.checkpoint_every, found.warmup_steps) == (2, 2, 0)
    assert (found.learning_rate, found.bf16, found.cpu) == (2e-4, False, True)
    assert resolve(plan(adapter={"type": "None"})).learning_rate == 2e-5


@pytest.mark.parametrize(
    ("steps", "ratio", "expected"),
    [(4, "0.03", 0), (33, "0.03", 0), (34, "0.03", 1), (100, "0.03", 3), (20, "0.05", 1)],
)
def test_a_run_of_few_steps_spares_none_for_the_rate_0(steps: int, ratio: str, expected: int) -> None:
    assert resolve(plan(training={"maxSteps": steps, "warmupRatio": ratio})).warmup_steps == expected


@pytest.mark.parametrize(
    ("save", "step", "failures", "steps"),
    [
        (5.0, 1.0, None, 930),  # sqrt(2 x 5 s x a day)
        (5.0, 1.0, 7200, 268),
        (5.0, 30.0, 7200, 9),
        (0.001, 1.0, 7200, 60),  # a minute at least
        (600.0, 1.0, None, 6000),  # an hour at most, unless a tenth of the time would be saving
        (60.0, 1.0, None, 3220),
        (120.0, 1.0, None, 3600),
        (60.0, 1.0, 600, 600),
        (1.0, 900.0, 600, 1),
    ],
)
def test_the_interval_of_young_and_daly_within_bounds(
    save: float, step: float, failures: int | None, steps: int
) -> None:
    assert settings.checkpoint_interval(save, step, failures) == steps


def test_cadence_auto_begins_with_a_checkpoint_that_is_measured() -> None:
    auto = {"cadence": "Auto"}
    assert resolve(plan(checkpoints=auto)).checkpoint_every == 2
    long = resolve(plan(checkpoints=auto, training={"maxSteps": 5000}))
    assert (long.checkpoint_every, long.checkpoint_auto) == (20, True)
    assert not resolve(plan()).checkpoint_auto
    refused = plan(checkpoints={**auto, "everySteps": 5})
    with pytest.raises(TrainerError, match="cadence Auto chooses the interval"):
        preflight.check_plan(refused, Device(1, cuda=False, bf16=False), methods=METHODS)


def test_bfloat16_only_where_the_device_has_it() -> None:
    assert resolve(plan(), cuda=True, bf16=True).bf16
    assert not resolve(plan(), bf16=True).bf16, "a CPU is asked for it by name"
    assert resolve(plan(training={"precision": "BFloat16"}), bf16=True).bf16
    assert not resolve(plan(), cuda=True, bf16=False).bf16
    assert not resolve(plan(training={"precision": "Float32"}), cuda=True, bf16=True).bf16


def test_parts_of_an_epoch_and_long_curves() -> None:
    assert resolve(plan(training={"epochs": "0.5"})).total_steps == 7
    long = resolve(plan(training={"maxSteps": 100_000}))
    assert long.total_steps / long.logging_every <= settings.CURVE_POINTS


def test_all_wrong_fields_are_reported_at_once() -> None:
    wrong = plan(
        training={"batchSize": 9, "precision": "BFloat16", "warmupRatio": "2"},
        adapter={"type": "LoRA", "dropout": "1.5"},
        earlyStopping={},
    )
    with pytest.raises(TrainerError) as caught:
        preflight.check_plan(wrong, Device(2, cuda=False, bf16=False), methods=["SFT"])
    assert (caught.value.code, caught.value.exit_code) == ("InvalidValue", 78)
    for part in ("batchSize 9", "2 ranks", "BFloat16", "warmupRatio must be", "dropout must be", "earlyStopping"):
        assert part in caught.value.message


def test_what_is_not_built_is_refused_by_name() -> None:
    output = {"modelName": "m", "push": [{"uri": "oci://a/b"}]}
    wrong = plan(method="DPO", output=output, deepspeed={"zeroStage": 3, "offload": "NVMe"})
    with pytest.raises(TrainerError) as caught:
        preflight.check_plan(wrong, Device(1, cuda=False, bf16=False), methods=["SFT"])
    assert caught.value.code == "NotSupportedYet"
    for part in ("DPO", "output.push", "deepspeed.offload NVMe"):
        assert part in caught.value.message


def test_micro_batch_must_divide_the_rows_of_a_rank() -> None:
    with pytest.raises(TrainerError, match="batchSize 8 must be a multiple of 2 ranks x microBatchSize 3"):
        preflight.check_plan(
            plan(training={"batchSize": 8, "microBatchSize": 3}), Device(2, cuda=False, bf16=False), methods=["SFT"]
        )


def history(*losses: float) -> list[dict[str, Any]]:
    return [{"step": 10 * n, "eval_loss": loss} for n, loss in enumerate(losses, 1)] + [{"step": 99, "loss": 0.0}]


@pytest.mark.parametrize(
    ("losses", "min_delta", "best", "stop"),
    [
        ([], 0, None, False),
        ([3, 2, 1], 0, 30, False),
        ([3, 2, 2], 0, 20, False),  # equal is no improvement
        ([3, 1, 2, 2], 0, 20, True),
        ([3, 2.95, 2.9, 2.85], 0.2, 10, True),  # each less than the delta
        ([3, 2.95, 2.7, 2.75], 0.2, 30, False),
    ],
)
def test_early_stopping_with_patience_2(losses: list[float], min_delta: float, best: int | None, stop: bool) -> None:
    assert early_stopping.best_step(history(*losses), min_delta) == best
    assert early_stopping.should_stop(history(*losses), 2, min_delta) is stop
