"""training.ropeScaling on several ranks: the same losses and the same exported positions as on one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.models import every_family
from support.runs import curves, method_plans

pytestmark = [pytest.mark.trainer, pytest.mark.long]
CONTEXT = 16
TRAINING = {"maxSteps": 4, "batchSize": 6, "microBatchSize": 3, "ropeScaling": {"factor": "8"}}
CASES: dict[str, dict[str, Any]] = {
    "data parallel": {},
    "ZeRO 2": {"deepspeed": {"zeroStage": 2}},
    "ZeRO 3": {"deepspeed": {"zeroStage": 3}},
    "shared rows": {"training": {**TRAINING, "sequenceParallel": 2}},
}


@pytest.mark.parametrize("case", CASES)
def test_positions_are_scaled_alike_on_several_ranks(runs: Any, make_plan: Any, tmp_path: Path, case: str) -> None:
    model = every_family.save(
        every_family.build(every_family.config("llama", max_position_embeddings=CONTEXT)), tmp_path / "model"
    )
    fields = {"modelPath": str(model), "adapter": {"type": "None"}, "training": TRAINING, "held_out": True}
    alone, several = (
        method_plans.plan_of(make_plan, "SFT", tmp_path, model, name, **{**fields, **own})
        for name, own in {"alone": {}, "several": {"processesPerNode": 2, **CASES[case]}}.items()
    )
    one = runs.finish(alone)
    two = runs.wait(several, runs.start(runs.encoded(several))).result
    assert two.resolved["ropeScaling"] == one.resolved["ropeScaling"] == "YaRN 8: 16 to 128 tokens"
    curves.assert_alike(alone, several, 4, ("epoch", "useful_tokens"), rel=1e-4)
    folders = [Path(plan.output_path) / "full" for plan in (alone, several)]
    (theirs, config), (ours, of_several) = (
        (load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text()))
        for folder in folders
    )
    assert of_several == config
    assert all(weight.allclose(theirs[name], atol=1e-5) for name, weight in ours.items())
    (base, other) = (next(number for number in result.numbers if number.name == "loss") for result in (one, two))
    assert float(other.base) == pytest.approx(float(base.base), rel=1e-4)
    assert float(other.tuned) == pytest.approx(float(base.tuned), rel=1e-4)
