"""Adapters of mixtures of experts: the same layers in every family, never the router, exported and merged right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.models.families import MIXTURES, build, config

from hone_api.blocks.shape import shape_of
from hone_api.blocks.training import Adapter
from hone_api.estimate.memory import Setup, estimate
from hone_trainer.models import adapters, targets

pytestmark = pytest.mark.trainer

ATTENTION = {"q_proj": 2, "k_proj": 2, "v_proj": 2, "o_proj": 2}
LATENT = {"q_a_proj": 2, "q_b_proj": 2, "kv_a_proj_with_mqa": 2, "kv_b_proj": 2, "o_proj": 2}
EXPERTS = {"experts.gate_up_proj": 2, "experts.down_proj": 2}
ONE_LAYER = {"experts.gate_up_proj": 1, "experts.down_proj": 1}
DENSE = {"gate_proj": 1, "up_proj": 1, "down_proj": 1}
DENSE_AND_SHARED = {"gate_proj": 2, "up_proj": 2, "down_proj": 2}
ADAPTED: dict[str, dict[str, int]] = {
    "qwen2_moe": ATTENTION | ONE_LAYER | DENSE_AND_SHARED,
    "qwen3_moe": ATTENTION | ONE_LAYER | DENSE,
    "mixtral": ATTENTION | EXPERTS,
    "olmoe": ATTENTION | EXPERTS,
    "deepseek_v3": LATENT | ONE_LAYER | DENSE_AND_SHARED,
    "glm4_moe": ATTENTION | ONE_LAYER | DENSE_AND_SHARED,
    "gpt_oss": ATTENTION | EXPERTS,
}
"""Of two layers: the first is dense where the family has dense layers."""

LORA: dict[str, Any] = {
    "method": "SFT",
    "adapter": "LoRA",
    "dropout": False,
    "bf16": False,
    "gpu": False,
    "max_length": 64,
    "micro_batch": 1,
    "checkpointing": False,
    "zero_stage": 0,
    "offload": "None",
    "ranks": 1,
}


def adapted(family: str, adapter: Adapter | None = None, sizes: Any = None) -> Any:
    """A model with an adapter that does something; of other sizes than the family's where they are given."""
    import torch
    from peft import get_peft_model

    base = build(family, sizes)
    network = get_peft_model(base, adapters.to_peft(adapter or Adapter(type="LoRA", rank=4), base))
    for name, weight in network.named_parameters():
        if weight.requires_grad and "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return network.eval()


def logits(network: Any) -> Any:
    import torch

    with torch.no_grad():
        return network(input_ids=torch.arange(2, 42).reshape(2, 20)).logits


@pytest.mark.parametrize("family", MIXTURES)
def test_all_but_the_router_is_adapted(family: str) -> None:
    network = adapted(family)
    assert dict(targets.count_adapted(network)) == ADAPTED[family]
    assert not [n for n, w in network.named_parameters() if w.requires_grad and "lora_" not in n]
    told = targets.describe(network)
    assert told["adaptedModules"] == sum(ADAPTED[family].values())
    assert "experts.gate_up_proj" in str(told["adaptedLayers"])


@pytest.mark.parametrize("family", MIXTURES)
def test_merged_is_base_with_adapter(family: str, tmp_path: Path) -> None:
    """Loaded from its folder by PEFT, and merged."""
    import torch
    from peft import PeftModel

    network = adapted(family)
    expected = logits(network)
    network.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build(family), tmp_path).eval()
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=0)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=0)
    assert (expected - logits(build(family))).abs().max() > 1e-3


@pytest.mark.parametrize("family", MIXTURES)
def test_every_adapted_weight_learns(family: str) -> None:
    import torch

    network = adapted(family).train()
    ids = torch.arange(2, 42).reshape(2, 20)
    network(input_ids=ids, labels=ids).loss.backward()
    still = [n for n, w in network.named_parameters() if w.requires_grad and not w.grad.abs().sum()]
    assert still == []


@pytest.mark.parametrize(
    ("family", "wanted", "expected"),
    [
        ("qwen3_moe", ["q_proj", "v_proj"], {"q_proj": 2, "v_proj": 2}),
        ("qwen3_moe", ["gate_proj", "up_proj"], {"gate_proj": 1, "up_proj": 1, "experts.gate_up_proj": 1}),
        ("qwen3_moe", ["experts"], {"experts.gate_up_proj": 1, "experts.down_proj": 1}),
        ("glm4_moe", ["shared_experts.down_proj"], {"down_proj": 1}),
        ("glm4_moe", ["layers.0.self_attn.q_proj"], {"q_proj": 1}),
        ("mixtral", ["w1", "w3"], {"experts.gate_up_proj": 2}),
        ("gpt_oss", ["gate_up_proj"], {"experts.gate_up_proj": 2}),
    ],
)
def test_named_targets_are_what_they_say(family: str, wanted: list[str], expected: dict[str, int]) -> None:
    adapter = Adapter(type="LoRA", rank=4, targets=wanted)
    assert adapters.problems(adapter, build(family)) == []
    assert dict(targets.count_adapted(adapted(family, adapter))) == expected


@pytest.mark.parametrize(
    ("family", "adapter", "words"),
    [
        ("mixtral", {"type": "LoRA", "dropout": "0.1"}, "adapter.dropout"),
        ("gpt_oss", {"type": "DoRA"}, "use LoRA, or name the attention layers"),
        ("olmoe", {"type": "QLoRA"}, "does not hold experts in 4 bits"),
        ("qwen3_moe", {"type": "LoRA", "targets": ["gate"]}, "match no layer"),
        ("gpt_oss", {"type": "LoRA", "targets": ["router"]}, "match no layer"),
        ("qwen2_moe", {"type": "LoRA", "targets": ["shared_expert_gate"]}, "match no layer"),
        ("mixtral", {"type": "LoRA", "targets": ["w1"]}, "name both"),
        ("deepseek_v3", {"type": "LoRA", "targets": ["gate_proj"]}, "name both"),
    ],
)
def test_what_experts_cannot_have_is_refused(family: str, adapter: dict[str, Any], words: str) -> None:
    [problem] = adapters.problems(Adapter.model_validate(adapter), adapters.without_weights(config(family)))
    assert words in problem


@pytest.mark.parametrize("kind", ["DoRA", "QLoRA"])
def test_attention_alone_may_have_it(kind: str) -> None:
    adapter = Adapter(type=kind, dropout="0.1", targets=["q_proj", "o_proj"])
    assert adapters.problems(adapter, build("qwen3_moe")) == []


@pytest.mark.parametrize("targets_", [None, ["q_proj", "o_proj"]])
@pytest.mark.parametrize("family", MIXTURES)
def test_the_estimate_counts_what_is_trained(family: str, targets_: list[str] | None) -> None:
    """All experts of all layers, shared and dense ones, and the matrices of deepseek_v3's latent attention."""
    _check_count(family, config(family), targets_)


def test_the_estimate_counts_latent_attention_with_whole_queries() -> None:
    """DeepSeek-V2-Lite does not compress them."""
    sizes = config("deepseek_v3")
    sizes.q_lora_rank = None
    _check_count("deepseek_v3", sizes, None)
    _check_count("deepseek_v3", sizes, ["q_proj", "kv_b_proj"])


def _check_count(family: str, sizes: Any, targets_: list[str] | None) -> None:
    network = adapted(family, Adapter(type="LoRA", rank=4, targets=targets_), sizes)
    shape = shape_of(sizes.to_dict(), 1)
    assert shape is not None
    setup = Setup(shape=shape, rank=4, targets=frozenset(targets_) if targets_ else None, **LORA)
    assert setup.trained == sum(w.numel() for w in network.parameters() if w.requires_grad)


@pytest.mark.parametrize("family", MIXTURES)
def test_the_estimate_counts_experts_and_the_copies_that_autograd_keeps(family: str) -> None:
    import torch

    network = adapted(family).train()
    sizes = {n: w.numel() for n, w in network.named_parameters() if w.dim() == 3}
    shape = shape_of(config(family).to_dict(), 1)
    assert shape is not None
    assert shape.expert_parameters == sum(sizes.values())
    assert shape.model_type == config(family).model_type
    own = {w.untyped_storage().data_ptr() for w in network.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        base = tensor if tensor._base is None else tensor._base
        if storage.data_ptr() not in own and base.dim() == 3 and base.shape[0] == shape.experts:
            kept[storage.data_ptr()] = base
        return tensor

    ids = torch.arange(2, 42).reshape(2, 20)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(input_ids=ids, labels=ids)
    copies = sum(t.numel() for t in kept.values() if t.numel() in sizes.values())
    assert copies >= shape.expert_parameters
    layers = shape.layers - shape.dense_layers
    setup = Setup(shape=shape, rank=4, targets=None, **LORA)
    assert estimate(setup).terms["experts"] == 4 * shape.expert_parameters * (layers + 1) // layers


def test_dense_models_are_as_before(tiny_model: Path) -> None:
    from transformers import AutoConfig

    network = adapters.without_weights(AutoConfig.from_pretrained(tiny_model))
    assert targets.choose(network, None) == targets.Targets(targets.ALL_LINEAR, [])
    assert targets.choose(network, ["q_proj"]) == targets.Targets(["q_proj"], [])


def test_a_run_goes_on_with_the_layers_of_its_checkpoint(tmp_path: Path) -> None:
    """A checkpoint of a version that also adapted the router."""
    from peft import LoraConfig, get_peft_model

    get_peft_model(build("mixtral"), LoraConfig(r=4, target_modules="all-linear")).save_pretrained(tmp_path)
    base = build("mixtral")
    again = get_peft_model(base, adapters.to_peft(Adapter(type="LoRA", rank=4), base, checkpoint=tmp_path))
    assert again.load_adapter(tmp_path, "default", is_trainable=True).unexpected_keys == []
    assert targets.count_adapted(again)["gate"] == 2


@pytest.mark.parametrize("family", MIXTURES)
def test_tensors_are_named_as_servers_expect(family: str) -> None:
    """Linear layers by their names in the checkpoint; experts of a layer together, gate and up projection innermost."""
    from peft import get_peft_model_state_dict

    names = set(get_peft_model_state_dict(adapted(family)))
    stem = "base_model.model.model.layers.1"
    assert {f"{stem}.self_attn.o_proj.lora_A.weight", f"{stem}.self_attn.o_proj.lora_B.weight"} <= names
    experts = {name for name in names if name.startswith(f"{stem}.mlp.experts.")}
    assert experts == {
        f"{stem}.mlp.experts.{end}.weight" for end in ("base_layer.lora_A", "base_layer.lora_B", "lora_A", "lora_B")
    }
    assert not [name for name in names if "router" in name or ".gate." in name or "shared_expert_gate" in name]
