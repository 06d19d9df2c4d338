"""Models to import, in a volume."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.models.import_place import CARD, Place


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What PEFT and its Trainer leave in a folder: an adapter of acme/base, without a tokenizer, and more."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", base_model_name_or_path="acme/base"
    )
    network = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config)
    for name, weight in network.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.02)
    network.peft_config["default"].base_model_name_or_path = "acme/base"
    network.save_pretrained(folder, save_embedding_layers=False)  # or PEFT looks for the base on the hub
    (folder / "README.md").write_text(CARD)
    (folder / "training_args.bin").write_bytes(b"pickle")
    return folder


@pytest.fixture
def place(tmp_path: Path, adapter: Path, tiny_model: Path) -> Place:
    base = tmp_path / "bases" / "base"
    shutil.copytree(tiny_model, base)
    return Place(tmp_path, adapter, base)


@pytest.fixture
def whole(tmp_path: Path, tiny_model: Path) -> Place:
    return Place(tmp_path, tiny_model, tiny_model)
