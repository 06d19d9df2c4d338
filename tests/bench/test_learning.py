"""What `bench/learning.py` says about QLoRA next to LoRA, and that the path it forces is the one that runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from hone_dev.models import repacking

pytestmark = pytest.mark.trainer
BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("learning")


def result(base: str, tuned: str) -> dict[str, Any]:
    """Of a run, as far as it is read."""
    perplexity = {"name": "perplexity", "base": "80", "tuned": "30"}
    return {"numbers": [perplexity, {"name": "loss", "base": base, "tuned": tuned}]}


@pytest.mark.parametrize(
    ("qlora", "holds"),
    [
        (("4.4", "3.1"), True),  # a worse start, and all of it is won back
        (("4.4", "3.2"), False),  # 6.7 % above LoRA's at the end
        (("4.0", "3.1"), False),  # only 90 % as far, from the same start
        (("4.4", "4.3"), False),
    ],
)
def test_qlora_must_end_near_lora_and_have_learned_as_much(bench: Any, qlora: tuple[str, str], holds: bool) -> None:
    assert bench.Comparison.of(result(*qlora), result("4.0", "3.0")).holds is holds


def test_changes_are_made_in_their_order_and_leave_the_plan_alone(bench: Any) -> None:
    plan = {"training": {"maxSteps": 6, "seed": 0}}
    changes = ["training.seed=1", "training.maxSteps=4", "adapter.type=LoRA", "training.seed=2"]
    assert bench.changed(plan, changes) == {"training": {"maxSteps": 4, "seed": 2}, "adapter": {"type": "LoRA"}}
    assert plan == {"training": {"maxSteps": 6, "seed": 0}}


@pytest.mark.parametrize(("force", "repacks"), [(repacking.simulate, True), (repacking.prevent, False)])
def test_a_layer_in_evaluation_is_repacked_on_that_path_alone(
    monkeypatch: pytest.MonkeyPatch, force: Any, repacks: bool
) -> None:
    import torch
    from bitsandbytes.nn import Linear4bit

    force(monkeypatch.setattr)
    layer = Linear4bit(64, 64, bias=False, quant_type="nf4").to("cpu").eval()
    layer(torch.randn(2, 64))
    assert bool(getattr(layer.weight.quant_state, "packing_format_for_cpu", False)) is repacks
