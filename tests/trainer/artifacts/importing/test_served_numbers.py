"""An imported adapter answers on a server as in PEFT: for each field of PEFT's LoraConfig."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hone_api.blocks.training import Adapter
from hone_api.plan import ImportPlan
from hone_trainer.artifacts.importing import importing
from hone_trainer.artifacts.importing.adapter import FOLDED, REFUSED, SERVED, ForeignAdapter, unserved
from hone_trainer.errors import TrainerError
from hone_trainer.models import adapters

pytestmark = pytest.mark.trainer
TARGETS = ["q_proj", "v_proj", "down_proj"]
PATTERNS = {
    "rank_pattern": {"layers.0.self_attn.q_proj": 8, "down_proj": 2},
    "alpha_pattern": {"layers.1.self_attn.q_proj": 64},
}
NEITHER = frozenset({"auto_mapping", "runtime_config", "use_dora"})
"""Fields of LoraConfig that are neither of an answer nor refused: DoRA is imported and not servable as an adapter."""
TRAINED: dict[str, dict[str, Any]] = {
    "rank_pattern": {"rank_pattern": PATTERNS["rank_pattern"]},
    "alpha_pattern": {"alpha_pattern": PATTERNS["alpha_pattern"]},
    "use_rslora": {"use_rslora": True},
    "both patterns with use_rslora": {**PATTERNS, "use_rslora": True},
    "every layer has a lower rank": {"rank_pattern": {"q_proj": 2, "v_proj": 2, "down_proj": 1}},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "lora_dropout": {"lora_dropout": 0.5},
    "layers_to_transform": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "exclude_modules": {"exclude_modules": ["layers.0.self_attn.q_proj"]},
    "target_modules": {"target_modules": r".*\.(q|v)_proj"},
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "lora_alpha": {"lora_alpha": 5},
    "r": {"r": 3},
    "embed_tokens": {"target_modules": ["q_proj", "embed_tokens"]},
    "lm_head": {"target_modules": ["q_proj", "lm_head"]},
}
"""Settings of PEFT with which an adapter is trained, and then imported."""
IDS = torch.tensor([[5, 9, 2, 7, 11, 3]])


def _trained(base: Path, folder: Path, **settings: Any) -> torch.Tensor:
    """An adapter of `base` in `folder`; returns PEFT's logits."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(**{"r": 4, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **settings})
    network = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    for name, weight in network.named_parameters():
        if "lora_" in name:
            weight.data.normal_(std=0.1)
    network.peft_config["default"].base_model_name_or_path = str(base)
    network.save_pretrained(folder)
    return _logits(network)


def _logits(network: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = network.eval()(IDS).logits
        return logits


def _imported(base: Path, root: Path) -> Path:
    plan = {
        "name": "tutor",
        "source": {"uri": "pvc://files/model", "base": {"uri": f"pvc://bases/{base.name}"}},
        "sourceVolume": str(root / "volume"),
        "baseVolume": str(base.parent),
        "store": str(root / "store"),
        "folder": "import-1/files",
        "limits": {"allowPrivateAddresses": True},
    }
    result = importing.run(ImportPlan.model_validate(plan))
    folder = root / "store" / "models" / "import-1" / "files" / "adapter"
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == result.adapter_rank
    return folder


def _served_logits(base: Path, folder: Path) -> torch.Tensor:
    """By the rule of a server that reads r, lora_alpha and use_rslora, and skips every other field."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = json.loads((folder / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config["use_rslora"] else config["r"])
    tensors = load_file(folder / "adapter_model.safetensors")
    assert {min(tensor.shape) for tensor in tensors.values()} == {config["r"]}, "one rank"
    for name, down in tensors.items():
        if name.endswith("lora_A.weight"):
            layer = network.get_submodule(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
            layer.weight.data += scale * tensors[name.replace("lora_A", "lora_B")].float() @ down.float()
    return _logits(network)


def _peft_logits(base: Path, folder: Path) -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return _logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder))


@pytest.mark.parametrize("name", TRAINED)
def test_a_server_that_has_one_scale_answers_as_peft_does(tiny_model: Path, tmp_path: Path, name: str) -> None:
    before = _trained(tiny_model, tmp_path / "volume" / "model", **TRAINED[name])
    folder = _imported(tiny_model, tmp_path)
    assert torch.allclose(_peft_logits(tiny_model, folder), before, atol=1e-4), "as before the import"
    assert unserved(json.loads((folder / "adapter_config.json").read_text())) is None
    if name not in ("embed_tokens", "lm_head"):  # PEFT is compared alone: a ModelVersion with these is not Servable
        assert torch.allclose(_served_logits(tiny_model, folder), before, atol=1e-4)


def test_weights_in_half_precision_lose_nothing_when_they_are_scaled(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = tmp_path / "volume" / "model"
    _trained(tiny_model, source, use_rslora=True, **PATTERNS)
    file = source / "adapter_model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    before = _peft_logits(tiny_model, source)
    assert torch.allclose(_served_logits(tiny_model, _imported(tiny_model, tmp_path)), before, atol=1e-4)


def test_a_rank_that_the_weights_do_not_have_is_not_padded(tiny_model: Path, tmp_path: Path) -> None:
    source = tmp_path / "volume" / "model"
    _trained(tiny_model, source)
    config = json.loads((source / "adapter_config.json").read_text())
    (source / "adapter_config.json").write_text(json.dumps({**config, "rank_pattern": {"q_proj": 8}}))
    with pytest.raises(TrainerError, match="PEFT expects") as caught:
        _imported(tiny_model, tmp_path)
    assert caught.value.code == "BaseMismatch"


def test_an_embedding_that_was_trained_in_full_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = tmp_path / "volume" / "model"
    _trained(tiny_model, source, target_modules=["q_proj", "embed_tokens"])
    file = source / "adapter_model.safetensors"
    tensors = load_file(file)
    [name] = [name for name in tensors if "embed_tokens.base_layer" in name]
    save_file({**tensors, name: tensors[name] + 1}, file, metadata={"format": "pt"})
    with pytest.raises(TrainerError, match="embed_tokens"):
        _imported(tiny_model, tmp_path)


@pytest.mark.parametrize(
    "adapter",
    [Adapter(type=kind, rank_stabilized=stable) for kind in ("LoRA", "QLoRA") for stable in (False, True)],
    ids=str,
)
def test_an_adapter_that_hone_trains_is_served_as_it_was_trained(adapter: Adapter, tiny_model: Path) -> None:
    from transformers import AutoConfig

    network = adapters.without_weights(AutoConfig.from_pretrained(tiny_model))
    config = adapters.to_peft(adapter, network).to_dict()
    assert (
        unserved({name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}) is None
    )


@pytest.mark.outside
@pytest.mark.long
def test_each_field_of_peft_is_one_that_servers_compute_or_one_that_is_refused() -> None:
    """A field that a later PEFT adds fails here, and is refused at run time."""
    from peft import LoraConfig

    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    classes = [SERVED, FOLDED, REFUSED, NEITHER]
    assert fields == {name for names in classes for name in names}
    assert sum(map(len, classes)) == len(fields), "each is in one class"
    plain = {"peft_type": "LORA", "r": 8, "lora_alpha": 8}
    for name in REFUSED:
        with pytest.raises(TrainerError, match=name):
            ForeignAdapter.of({**plain, name: "something"}, "hf://a/b")
    for name in (*REFUSED, *FOLDED, "use_dora", "a_field_of_tomorrow"):
        assert name in (unserved({**plain, name: {"layer": 4}}) or ""), name
    page = (Path(__file__).parents[4] / "docs" / "outside.md").read_text()
    assert f"| Fields of PEFT's `LoraConfig` | {len(fields)} | {len(fields)} |" in page
