"""Whole runs with all settings of a card, computed by a CPU, and by a kernel that refuses what torch's own refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import method_plans

from hone_trainer import device, ranks
from hone_trainer.training.batches import attention, reference_varlen

pytestmark = [pytest.mark.trainer, pytest.mark.long]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Calls of the kernel."""
    seen = list[int]()
    plain = reference_varlen.varlen_attn

    def strict(query: Any, key: Any, value: Any, *bounds: Any, **options: Any) -> Any:
        if "lengths" in options:
            return plain(query, key, value, *bounds, **options)
        for x in (query, key, value):
            assert x.dtype == torch.bfloat16, x.dtype
            assert x.stride(-1) == 1
            assert x.shape[-1] % 8 == 0
            assert x.dim() == 3
        assert bounds[0] is bounds[1]
        assert bounds[0].dtype == torch.int32
        assert type(bounds[2]) is int
        assert int(bounds[0][-1]) == len(query) == len(key)
        assert set(options) <= {"scale", "window_size", "enable_gqa"}
        seen.append(len(query))
        return plain(query, key, value, *bounds, **options)

    monkeypatch.setattr(device, "here", lambda: device.Device(ranks.world_size(), cuda=True, bf16=True))
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    monkeypatch.setattr("transformers.training_args.is_torch_tf32_available", lambda: True)
    monkeypatch.setattr(attention, "card", lambda bf16: attention.AttentionDevice((9, 0), bf16, True))
    monkeypatch.setattr(reference_varlen, "varlen_attn", strict)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 1 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "cpu")
    return seen


TRAINING = [
    pytest.param({"adapter": {"type": "LoRA"}}, id="LoRA"),
    pytest.param({"adapter": {"type": "None"}}, id="all weights"),
    pytest.param({"adapter": {"type": "QLoRA"}}, id="QLoRA"),
    pytest.param({"training": {"packing": True, "maxLength": 128}}, id="packed"),
    pytest.param({"training": {"activationCheckpointing": "Selective"}}, id="every second layer again"),
    pytest.param({"training": {"activationCheckpointing": "Offloaded"}}, id="inputs on the host"),
]


@pytest.mark.parametrize("changes", TRAINING)
def test_sft(runs: Any, make_plan: Any, passes: list[int], changes: dict[str, Any]) -> None:
    training = {"precision": "Auto", **changes.get("training", {})}
    result = runs.finish(make_plan(**changes | {"training": training}))
    assert result.resolved["attention"].startswith("Varlen")
    assert passes


@pytest.mark.parametrize("variant", method_plans.VARIANTS)
def test_each_method(
    runs: Any, make_plan: Any, passes: list[int], variant: str, tmp_path: Path, tiny_model: Path
) -> None:
    training = {"precision": "Auto", "maxSteps": 3, "activationCheckpointing": "Full"}
    result = runs.finish(method_plans.plan_of(make_plan, variant, tmp_path, tiny_model, training=training))
    assert result.resolved["attention"].startswith("Varlen")
    assert passes
