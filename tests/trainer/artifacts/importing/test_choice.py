"""Which files make a model, and what an adapter_config.json may say: decided without a file."""

from __future__ import annotations

from typing import Any

import pytest

from hone_trainer.artifacts.importing.adapter import ForeignAdapter, base_problem
from hone_trainer.artifacts.importing.choice import choose, shown
from hone_trainer.errors import SourceError

pytestmark = pytest.mark.pure
LORA: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "acme/base",
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj"],
    "bias": "none",
    "init_lora_weights": True,
    "megatron_core": "megatron.core",
    "loftq_config": {},
}


def test_an_adapter_is_taken_without_what_training_left_next_to_it() -> None:
    files = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "README.md",
        "config.json",
        "training_args.bin",
        "manifest.json",
        "checkpoint-5/adapter_model.safetensors",
        "checkpoint-5/optimizer.pt",
    ]
    choice = choose(files, "hf://acme/tutor")
    assert choice.form == "Adapter"
    assert choice.names == ("README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json")
    assert choice.weights == ["adapter_model.safetensors"]
    assert shown(choice.left_out) == ["checkpoint-5/", "config.json", "training_args.bin"]


def test_a_whole_model_is_taken_without_its_pickles_and_other_forms() -> None:
    files = ["config.json", "model.safetensors", "consolidated.safetensors", "pytorch_model.bin", "modeling.py"]
    choice = choose(files, "hf://acme/model")
    assert (choice.form, choice.names) == ("Full", ("config.json", "model.safetensors"))
    assert choice.left_out == ("consolidated.safetensors", "modeling.py", "pytorch_model.bin")


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        (["adapter_config.json", "adapter_model.bin"], "UnsafeModel", "pickles (adapter_model.bin)"),
        (["config.json", "pytorch_model.bin"], "UnsafeModel", "pickles (pytorch_model.bin)"),
        (["model.pt"], "UnsafeModel", "pickles (model.pt)"),
        (["config.json", "model.gguf"], "UnsupportedModel", "there is no *.safetensors; the folder has config.json"),
        (["sub/config.json", "sub/model.safetensors"], "UnsupportedModel", "the folder has nothing"),
        (["model.safetensors"], "UnsupportedModel", "neither adapter_config.json nor config.json"),
        (["adapter_config.json", "adapter_model.safetensors", "model.safetensors"], "UnsupportedModel", "keep one"),
    ],
)
def test_a_folder_that_is_not_a_model_is_refused_with_what_it_has(files: list[str], code: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        choose(files, "pvc://files/model")
    assert (caught.value.code, words in caught.value.message) == (code, True), caught.value.message
    assert caught.value.message.startswith("pvc://files/model: ")


def test_names_of_files_that_were_left_out_fit_the_report() -> None:
    assert [len(name) for name in shown([f"{number:090}" for number in range(40)])] == [64] * 16


def test_a_lora_config_is_read() -> None:
    assert ForeignAdapter.of(LORA, "x") == ForeignAdapter("LoRA", "acme/base")
    dora = {**LORA, "use_dora": True, "rank_pattern": {"q_proj": 32}}
    assert ForeignAdapter.of(dora, "x") == ForeignAdapter("DoRA", "acme/base")
    assert ForeignAdapter.of({**LORA, "base_model_name_or_path": None}, "x").base == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is IA3"),
        ({"task_type": "SEQ_CLS"}, "task_type is SEQ_CLS"),
        ({"modules_to_save": ["lm_head"]}, "trained whole layers too"),
        ({"bias": "all"}, "trained biases too"),
        ({"init_lora_weights": "pissa"}, "changed the weights of the base"),
        ({"something_new": 1}, "something_new is 1: Hone does not know what it does"),
        ({"r": "8"}, "r is 8, not a rank"),
        ({"r": True}, "not a rank"),
        ({"rank_pattern": {"q_proj": 0}}, "not a rank"),
    ],
)
def test_what_servers_and_later_stages_could_not_load_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        ForeignAdapter.of({**LORA, **change}, "hf://acme/tutor")
    assert caught.value.code == "UnsupportedModel"


@pytest.mark.parametrize(
    ("named", "base", "differs"),
    [
        ("acme/base", "hf://acme/base@main", False),
        ("Acme/Base", "hf://acme/base", False),
        ("acme/other", "hf://acme/base", True),
        ("/home/me/base", "hf://acme/base", False),
        ("", "hf://acme/base", False),
        ("acme/other", "pvc://models/base", False),
    ],
)
def test_the_base_is_compared_by_name_where_both_have_one(named: str, base: str, differs: bool) -> None:
    assert (base_problem(named, base) is not None) is differs


@pytest.mark.parametrize("named", ["meta-llama/Meta-Llama-3.1-8B", "unsloth/meta-llama-3.1-8b-bnb-4bit"])
def test_a_base_may_have_other_names(named: str) -> None:
    base, others = (
        "hf://meta-llama/Llama-3.1-8B",
        ["meta-llama/Meta-Llama-3.1-8B", "unsloth/Meta-Llama-3.1-8B-bnb-4bit"],
    )
    assert base_problem(named, base, others) is None
    assert f"add {named} to base.names" in (base_problem(named, base) or "")
