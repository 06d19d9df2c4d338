"""The share of a GPU's peak that training reaches, by the sizes of a real model and the name of a card."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone_trainer.training import callbacks

pytestmark = pytest.mark.trainer


@pytest.fixture
def run(tiny_model: Path) -> Any:
    plan = SimpleNamespace(method="SFT", distillation=None, adapter=SimpleNamespace(type="None"))
    rows = [SimpleNamespace(sequences=[[0] * length]) for length in (10, 30)]
    return SimpleNamespace(
        settings=SimpleNamespace(cpu=False), plan=plan, base=SimpleNamespace(path=tiny_model), rows=rows
    )


def weights_and_attention(folder: Path) -> tuple[int, float]:
    """Number of weights, and operations of attention on a token of rows of 20."""
    import torch
    from transformers import AutoModelForCausalLM

    config = json.loads((folder / "config.json").read_text())
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return sum(p.numel() for p in model.parameters()), 12 * config["num_hidden_layers"] * config["hidden_size"] * 20


@pytest.mark.parametrize(("adapter", "per_weight"), [("None", 6), ("LoRA", 4)])
def test_one_token_a_second_is_its_operations_by_the_cards_peak(
    run: Any, monkeypatch: pytest.MonkeyPatch, adapter: str, per_weight: int
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    run.plan.adapter.type = adapter
    weights, attention = weights_and_attention(run.base.path)
    assert callbacks._of_peak(run) == pytest.approx((per_weight * weights + attention) / 989e12, rel=1e-6)


def test_a_card_that_is_not_in_the_table_has_none(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Some Card 9000")
    assert callbacks._of_peak(run) is None


def test_a_cpu_and_a_method_of_several_passes_have_none(run: Any) -> None:
    run.plan.method = "PPO"
    assert callbacks._of_peak(run) is None
    run.plan.method, run.settings.cpu = "SFT", True
    assert callbacks._of_peak(run) is None
