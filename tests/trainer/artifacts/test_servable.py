"""An exported adapter: the name of its base, and whether PEFT can load it, without a weight."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support.models.families import FAMILIES, build, config

from hone_api.blocks.training import Adapter
from hone_trainer.artifacts import servable
from hone_trainer.errors import TrainerError
from hone_trainer.models import adapters

pytestmark = pytest.mark.trainer


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("hf://org/model@main", "org/model"),
        ("pvc://models/base/llama", "/base/llama"),
        ("pvc://hone-store/models/uid-0/full", "/models/uid-0/full"),
        ("pvc://models", "/"),
    ],
)
def test_the_base_has_a_name_that_a_server_can_have(uri: str, name: str) -> None:
    assert servable.base_name(uri) == name


def saved(folder: Path, family: str, **adapter: Any) -> Path:
    from peft import get_peft_model

    base = build(family)
    get_peft_model(base, adapters.to_peft(Adapter(rank=4, **adapter), base)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_load(family: str, tmp_path: Path) -> None:
    servable.check(saved(tmp_path, family), config(family), "LanguageModel")


@pytest.mark.parametrize("kind", ["LoRA", "DoRA", "QLoRA"])
def test_adapters_of_dense_layers_load(kind: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, "qwen3_moe", type=kind, targets=["q_proj", "o_proj"])
    servable.check(folder, config("qwen3_moe"), "LanguageModel")


def test_a_reward_model_loads(tmp_path: Path) -> None:
    from peft import get_peft_model
    from transformers import AutoModelForSequenceClassification

    sizes = config("mixtral")
    sizes.num_labels = 1
    base = AutoModelForSequenceClassification.from_config(sizes)
    get_peft_model(base, adapters.to_peft(Adapter(rank=4), base, "Reward")).save_pretrained(tmp_path)
    assert "base_model.model.score.weight" in load_file(tmp_path / "adapter_model.safetensors")
    servable.check(tmp_path, config("mixtral"), "Reward")


def test_experts_are_named_as_in_a_checkpoint_and_peft_loads_them(tmp_path: Path) -> None:
    """vLLM would leave out the experts of Mixtral by the names that PEFT writes."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict

    file = saved(tmp_path, "mixtral") / "adapter_model.safetensors"
    trained = {name: torch.randn_like(tensor) for name, tensor in load_file(file).items()}
    stored = servable.as_stored(trained, config("mixtral"))
    assert "base_model.model.model.layers.1.block_sparse_moe.experts.base_layer.lora_A.weight" in stored
    assert not [name for name in stored if ".mlp." in name]
    save_file(stored, file, metadata={"format": "pt"})
    servable.check(tmp_path, config("mixtral"), "LanguageModel")
    loaded = get_peft_model_state_dict(PeftModel.from_pretrained(build("mixtral"), tmp_path))
    torch.testing.assert_close(loaded, trained, rtol=0, atol=0)


def test_tensors_that_peft_leaves_out_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and shape alone they look right."""
    monkeypatch.setitem(servable.STORED, "mixtral", (".mlp.experts.", ".experts_of_another_family."))
    file = saved(tmp_path, "mixtral") / "adapter_model.safetensors"
    save_file(servable.as_stored(load_file(file), config("mixtral")), file, metadata={"format": "pt"})
    with pytest.raises(TrainerError, match=r"another_family.*: not what the file has"):
        servable.check(tmp_path, config("mixtral"), "LanguageModel")


def test_an_export_is_loaded_in_a_fresh_process(tmp_path: Path) -> None:
    """With nothing that this process has changed in the libraries."""
    import torch

    base = build("mixtral")
    base.save_pretrained(tmp_path / "base")
    file = saved(tmp_path / "adapter", "mixtral") / "adapter_model.safetensors"
    trained = {name: torch.randn_like(tensor) for name, tensor in load_file(file).items()}
    save_file(servable.as_stored(trained, config("mixtral")), file, metadata={"format": "pt"})
    save_file(trained, tmp_path / "trained.safetensors")
    subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, check=True, timeout=300)


LOAD = """
import gc, sys

gc.disable()
sys.modules.update(dict.fromkeys(["bitsandbytes", "boto3", "scipy", "sklearn"]))  # of no use here, and half of the time
import peft, torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

loaded = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), "adapter")
state = peft.get_peft_model_state_dict(loaded)
torch.testing.assert_close(state, load_file("trained.safetensors"), rtol=0, atol=0)
"""


def cut(tensors: dict[str, Any], name: str) -> None:
    tensors[name] = tensors[name][:2].clone()


def gone(tensors: dict[str, Any], name: str) -> None:
    del tensors[name]


def renamed(tensors: dict[str, Any], name: str) -> None:
    tensors[name.replace("q_proj", "query")] = tensors.pop(name)


@pytest.mark.parametrize("damage", [cut, gone, renamed])
def test_what_peft_would_not_load_is_refused(damage: Any, tmp_path: Path) -> None:
    file = saved(tmp_path, "mixtral") / "adapter_model.safetensors"
    tensors, name = load_file(file), "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    damage(tensors, name)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(TrainerError, match="PEFT cannot load the exported adapter") as caught:
        servable.check(tmp_path, config("mixtral"), "LanguageModel")
    assert name in caught.value.message


def test_a_config_of_other_layers_is_refused(tmp_path: Path) -> None:
    """PEFT itself ignores tensors for which it has no layer, and says nothing."""
    file = saved(tmp_path, "mixtral") / "adapter_config.json"
    text = json.loads(file.read_text())
    file.write_text(json.dumps({**text, "target_parameters": None}))
    with pytest.raises(TrainerError, match="PEFT expects nothing"):
        servable.check(tmp_path, config("mixtral"), "LanguageModel")
