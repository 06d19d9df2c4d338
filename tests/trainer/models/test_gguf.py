"""Models in GGUF for llama.cpp: what is exported is the tuned model, and what cannot be is refused before training."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.errors import ConfigError
from hone_trainer.models import gguf

pytestmark = pytest.mark.trainer

MERGED = {"modelName": "tiny", "formats": ["Safetensors", "GGUF"], "merge": True}


@pytest.fixture(scope="module", autouse=True)
def files_in_memory() -> Iterator[None]:
    """gguf reads each of 100,000 texts of a vocabulary by itself: from a mapped file it takes several times as long."""
    import numpy
    from gguf import gguf_reader

    class Numpy:
        def __getattr__(self, name: str) -> Any:
            return getattr(numpy, name)

        def memmap(self, path: str, mode: str) -> Any:
            assert mode == "r"
            return numpy.fromfile(path, numpy.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_reader, "np", Numpy())
        yield


@pytest.fixture(scope="module")
def convertible(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of one layer with the tokenizer of SmolLM2, which llama.cpp knows."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from hone_dev import models

    tokenizer = AutoTokenizer.from_pretrained(models.smollm2())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder = tmp_path_factory.mktemp("convertible")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_file_holds_the_tuned_model_and_its_tokenizer(runs: Any, make_plan: Any, convertible: Path) -> None:
    from gguf import GGUFReader, dequantize
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    plan = make_plan(modelPath=str(convertible), output=MERGED, training={"maxSteps": 2}, held_out=False)
    result = runs.finish(plan)
    forms = {a.format: Path(plan.output_path) / a.uri for a in result.artifacts}
    assert list(forms) == ["Adapter", "Merged", "GGUF"]
    assert {p.name for p in forms["GGUF"].iterdir()} >= {"tiny.gguf", "README.md", "report.json", "manifest.json"}
    card = (forms["GGUF"] / "README.md").read_text()
    assert "\nlibrary_name: gguf\n" in card
    assert "Model in GGUF for llama.cpp made from `hf://tests/tiny@main`" in card
    assert "echo 'FROM ./tiny.gguf' > Modelfile && ollama create tiny -f Modelfile && ollama run tiny" in card

    reader = GGUFReader(forms["GGUF"] / "tiny.gguf")
    assert reader.fields["general.architecture"].contents() == "llama"
    assert {t.tensor_type.name for t in reader.tensors} == {"F16", "F32"}
    tokenizer = AutoTokenizer.from_pretrained(convertible)
    assert reader.fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert reader.fields["tokenizer.ggml.pre"].contents() == "smollm"
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_token_id

    (written,) = (dequantize(t.data, t.tensor_type) for t in reader.tensors if t.name == "blk.0.ffn_down.weight")
    name = "model.layers.0.mlp.down_proj.weight"
    files = (folder / "model.safetensors" for folder in (convertible, forms["Merged"]))
    before, trained = (load_file(file)[name].float() for file in files)
    off = abs(trained.numpy() - written).max()
    assert off < 0.1 * float((trained - before).abs().max())


def test_eight_bits_are_as_close_as_eight_bits_can_be(convertible: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    drift = gguf.write(convertible, tmp_path / "m.gguf", "Q8")
    assert 1e-3 < drift < gguf.TOLERANCE["Q8"]
    assert {t.tensor_type.name for t in GGUFReader(tmp_path / "m.gguf").tensors} == {"Q8_0", "F32"}


def test_what_llama_cpp_cannot_convert_is_refused_before_training(runs: Any, make_plan: Any) -> None:
    plan = make_plan(output=MERGED)  # its tokenizer is one that llama.cpp has never seen
    with pytest.raises(ConfigError, match=r"output\.formats GGUF: .*; leave GGUF out of output\.formats") as caught:
        runs.finish(plan)
    assert caught.value.code == "UnsupportedModel"
    assert not Path(plan.output_path).exists()


def test_an_architecture_that_llama_cpp_lacks_is_refused(
    runs: Any, make_plan: Any, convertible: Path, tmp_path: Path
) -> None:
    from transformers import GPTNeoConfig

    folder = tmp_path / "neo"
    shutil.copytree(convertible, folder)
    GPTNeoConfig(architectures=["GPTNeoForCausalLM"]).save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"output\.formats GGUF: .*GPTNeoForCausalLM") as caught:
        runs.finish(make_plan(modelPath=str(folder), output=MERGED))
    assert caught.value.code == "UnsupportedModel"
