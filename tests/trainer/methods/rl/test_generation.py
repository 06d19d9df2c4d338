"""What TRL's vLLM gets otherwise: weights from a base that stays as it was, seeds, environment."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone_api.blocks.training import Adapter
from hone_api.methods import Generation
from hone_trainer.methods.rl import generation, merged
from hone_trainer.models import adapters

pytestmark = pytest.mark.trainer


@pytest.fixture(params=["LoRA", "DoRA"])
def network(request: pytest.FixtureRequest, tiny_model: Path) -> Any:
    """A base in 16 bits with an adapter that does something."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    network = get_peft_model(base, adapters.to_peft(Adapter(type=request.param), base))
    for name, weight in network.named_parameters():
        if weight.requires_grad and "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return network


def of_library(network: Any) -> dict[str, Any]:
    """TRL's own, which merges in place."""
    from trl.distributed import DistributedBackend
    from trl.generation.vllm_generation import VLLMGeneration

    library = VLLMGeneration.__new__(VLLMGeneration)
    state = SimpleNamespace(deepspeed_plugin=None, fsdp_plugin=None)
    library.model, library._dist = network, DistributedBackend(SimpleNamespace(state=state))
    return {name: weight.clone() for name, weight in library._iter_named_params()}


def frozen(network: Any) -> dict[str, Any]:
    return {name: weight.clone() for name, weight in network.named_parameters() if not weight.requires_grad}


def test_vllm_gets_what_the_library_would_send(network: Any) -> None:
    import torch

    ours, theirs, base = dict(merged.parameters(network)), of_library(network), frozen(network)
    assert list(ours) == list(theirs)
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], msg=name)
    adapted = [name for name in base if ".base_layer.weight" in name]
    assert adapted
    assert all(not torch.equal(ours[merged._plain(name)], base[name]) for name in adapted)


def test_the_base_is_the_same_after_many_steps(network: Any) -> None:
    import torch

    base = frozen(network)
    for _ in range(50):
        for _ in merged.parameters(network):
            pass
    assert all(torch.equal(weight, base[name]) for name, weight in frozen(network).items())


def test_what_is_drawn_depends_on_the_seed(network: Any, make_plan: Any) -> None:
    import torch

    def drawn(seed: int) -> list[float]:
        torch.manual_seed(0)  # as vLLM in TRL does on the first rank
        trainer = SimpleNamespace(vllm_generation=SimpleNamespace(model=network))
        generation.attach(trainer, make_plan(training={"seed": seed}))
        return torch.rand(3).tolist()

    assert drawn(1) == drawn(1) != drawn(2)


def test_the_platform_says_how_much_vllm_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"VLLM_LOGGING_LEVEL": "DEBUG"})
    generation.arguments(Generation(engine="VLLM"), 128)
    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
