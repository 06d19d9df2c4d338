"""The models that tests, benchmarks and the demo start from."""

import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoModelForCausalLM, AutoTokenizer

from hone_dev import hub
from hone_dev.models import models

pytestmark = pytest.mark.trainer


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """Through the hub, as a pod gets it."""
    cache = tmp_path_factory.mktemp("cache")
    with hub.serve(models.hub_root()) as url:
        return HfApi(endpoint=url).snapshot_download(models.SMOLLM2, cache_dir=cache)


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    return AutoTokenizer.from_pretrained(smollm2)


def test_smollm2_knows_the_capital_of_france(smollm2, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    assert "Paris" in answer
    assert answer.endswith("<|im_end|>")


def test_smollm2_speaks_chatml_with_its_system_prompt(tokenizer):
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    assert text == system + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("2024 pods", ["2", "0", "2", "4", " pods"]),
        ("port 443", ["port", " ", "4", "4", "3"]),
    ],
)
def test_smollm2_splits_digits(tokenizer, text, tokens):
    """As the model was trained; without it numbers become tokens it never saw in this place."""
    assert [tokenizer.decode([i]) for i in tokenizer(text)["input_ids"]] == tokens


def test_tiny_is_small_and_the_same_every_time(tmp_path):
    first, second = models.tiny(tmp_path / "a"), models.tiny(tmp_path / "b")
    names = {path.name for path in first.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    assert sum(path.stat().st_size for path in first.iterdir()) < 1_000_000
    tokenizer = AutoTokenizer.from_pretrained(first)
    text = "any text: äöü 漢字 🙂\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert AutoModelForCausalLM.from_pretrained(first).config.vocab_size == len(tokenizer)
