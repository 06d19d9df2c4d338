"""Which server loads which export, and what to do where none does."""

from __future__ import annotations

from typing import Any

import pytest

from hone_api.kinds.modelversion import ModelVersionSpec
from hone_api.verdicts.servable import verdicts

pytestmark = pytest.mark.pure
MERGE = "train with output.merge to serve the merged model"
NO_GGUF = "llama.cpp: no, there is no GGUF file; train with output.formats [Safetensors, GGUF]"
ON_BASE = "vLLM: yes, the adapter on its base, with --enable-lora"


def sentences(
    *forms: str,
    method: str = "SFT",
    experts: int = 0,
    uri: str = "hf://owner/base",
    shape: dict[str, int] | None = None,
    **hyper_parameters: Any,
) -> list[str]:
    sizes = {"parameters": 10, "layers": 2, "hidden": 8, "query": 8, "keyValue": 8, "vocabulary": 10, "intermediate": 8}
    mixture = shape or ({"experts": experts} if experts else None)
    spec = {
        "modelName": "bot",
        "version": 1,
        "artifacts": [
            {
                "format": form,
                "uri": f"pvc://store/models/u/{form.lower()}",
                "digest": "sha256:" + "0" * 64,
                "sizeBytes": 1,
            }
            for form in forms
        ],
        "lineage": {
            "baseModel": {"uri": uri, "shape": {**sizes, **mixture} if mixture else None},
            "datasets": [],
            "job": {"name": "run", "uid": "u"},
            "method": method,
            "hyperParameters": hyper_parameters,
            "seed": 0,
        },
    }
    return [str(verdict) for verdict in verdicts(ModelVersionSpec.model_validate(spec))]


@pytest.mark.parametrize(
    ("adapter", "vllm"),
    [
        ({"type": "LoRA", "rank": 16}, ON_BASE),
        ({"type": "LoRA"}, ON_BASE),
        ({"type": "QLoRA", "rank": 24}, f"{ON_BASE} and --max-lora-rank 32"),
        ({"type": "LoRA", "rank": 64}, f"{ON_BASE} and --max-lora-rank 64"),
        ({"type": "LoRA", "rank": 1024}, f"vLLM: no, an adapter of rank 1024, above 512; {MERGE}"),
        ({"type": "DoRA", "rank": 16}, f"vLLM: no, a DoRA adapter; {MERGE}"),
        (
            {"type": "LoRA", "rank": 8, "targets": ["lm_head", "q_proj"]},
            f"vLLM: no, an adapter on lm_head, which was not compared with PEFT; {MERGE}",
        ),
        ("of another release", ON_BASE),
        ({"rank": {"of": "another release"}}, ON_BASE),
    ],
)
def test_an_adapter(adapter, vllm):
    assert sentences("Adapter", adapter=adapter) == [
        vllm,
        NO_GGUF,
        "transformers: yes, the adapter on its base, with PEFT",
    ]


def test_the_rank_that_the_trainer_chose_counts():
    assert sentences("Adapter", adapter={"type": "LoRA"}, resolved={"adapterRank": 100})[0].endswith(
        "--max-lora-rank 128"
    )


def test_a_reward_model():
    assert sentences("Adapter", method="Reward")[0] == f"vLLM: no, an adapter with its own reward head; {MERGE}"
    assert sentences("Adapter", "Merged", method="Reward")[0] == "vLLM: yes, the merged model, with --runner pooling"


def test_a_whole_model_is_served_whatever_the_adapter_was():
    assert sentences("Adapter", "Merged", adapter={"type": "DoRA"})[0] == "vLLM: yes, the merged model, with its path"
    assert sentences("Full")[0] == "vLLM: yes, the full model, with its path"


def test_a_gguf_file():
    assert sentences("Adapter", "Merged", "GGUF")[1] == "llama.cpp: yes, the GGUF file"
    assert sentences("GGUF") == [
        "vLLM: no, there is neither an adapter nor a merged model",
        "llama.cpp: yes, the GGUF file",
        "transformers: no, there is only a GGUF file",
    ]


FUSED = " and --enable-mixed-moe-lora-format, loaded with is_3d_lora_weight"


def test_experts_need_settings_of_their_own():
    assert sentences("Adapter", experts=8)[0] == ON_BASE + FUSED
    assert sentences("Adapter", experts=8, adapter={"targets": ["q_proj", "experts"]})[0] == ON_BASE + FUSED
    assert sentences("Adapter", experts=8, adapter={"targets": ["q_proj", "shared_experts.up_proj"]})[0] == ON_BASE
    assert sentences("Adapter", experts=8, adapter={"targets": "nonsense"})[0] == ON_BASE + FUSED
    assert sentences("Adapter", "Merged", experts=8)[0] == "vLLM: yes, the merged model, with its path"


@pytest.mark.parametrize(
    ("targets", "loads"),
    [
        (["experts.down_proj"], False),
        (["q_proj", "gate_proj", "up_proj"], False),
        (["w1", "w3"], False),
        (["w1", "w3", "w2"], True),
        (["experts"], True),
        (["experts.gate_up_proj", "down_proj"], True),
    ],
)
def test_both_parameters_of_the_experts_have_an_adapter_or_none(targets, loads):
    half = f"vLLM: no, an adapter on only one of gate_up_proj and down_proj of the experts; {MERGE}"
    expected = ON_BASE + FUSED if loads else half
    assert sentences("Adapter", experts=8, adapter={"targets": targets})[0] == expected


@pytest.mark.parametrize(
    ("uri", "width", "model_type", "needs_settings"),
    [
        ("pvc://models/mine", 4, "gpt_oss", False),
        ("hf://owner/not-gpt-oss-20b", 8, "mixtral", True),
        ("hf://openai/gpt-oss-20b", 1, None, False),
        ("pvc://models/GPT_OSS-120b", 1, None, False),
        ("pvc://models/mine", 8, None, False),
        ("pvc://models/mine", 4, None, True),
        ("hf://owner/base", 0, None, True),
    ],
)
def test_gpt_oss_is_served_without_the_settings_that_make_it_answer_wrongly(uri, width, model_type, needs_settings):
    shape = {"experts": 8, "expertWidth": width, "modelType": model_type}
    assert sentences("Adapter", uri=uri, shape=shape)[0] == (ON_BASE + FUSED if needs_settings else ON_BASE)
