"""Models in GGUF for llama.cpp: what is exported is the tuned model, and what cannot be is refused before training."""

import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest

from hone_trainer.errors import ConfigError
from hone_trainer.models import gguf

pytestmark = pytest.mark.trainer

TOKENS = 12
MERGED = {"modelName": "tiny", "formats": ["Safetensors", "GGUF"], "merge": True}


@pytest.fixture(scope="module")
def convertible(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of one layer with the tokenizer of SmolLM2, which llama.cpp knows."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from hone_dev.models import models

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

    with gguf.without_texts():
        reader = GGUFReader(forms["GGUF"] / "tiny.gguf")
    assert reader.fields["general.architecture"].contents() == "llama"
    assert reader.fields["general.name"].contents() == "tiny"
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

    (convertible / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    drift = gguf.write(convertible, tmp_path / "m.gguf", "Q8", "Support bot")
    assert 1e-3 < drift < gguf.TOLERANCE["Q8"]
    with gguf.without_texts():
        reader = GGUFReader(tmp_path / "m.gguf")
    assert {t.tensor_type.name for t in reader.tensors} == {"Q8_0", "F32"}
    assert reader.fields["general.name"].contents() == "Support bot", "not the folder's name"
    assert reader.fields["general.license"].contents() == "apache-2.0", "that of the card"


def answers_of_llama_cpp(file: Path, prompt: str, question: str) -> tuple[str, str]:
    """What llama.cpp continues a prompt with, and answers a question by the chat template in the file; both greedy."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.n_ctx, parameters.n_parallel, parameters.warmup = 256, 1, False
    parameters.cpuparams.n_threads = 1
    server = xllamacpp.Server(parameters)
    options = {"max_tokens": TOKENS, "temperature": 0}
    continued = server.handle_completions({"prompt": prompt, **options})
    answered = server.handle_chat_completions({"messages": [{"role": "user", "content": question}], **options})
    return continued["choices"][0]["text"], answered["choices"][0]["message"]["content"]


@pytest.mark.parametrize("precision", ["Float16", pytest.param("Q8", marks=pytest.mark.long)])
def test_llama_cpp_loads_the_file_and_answers_as_transformers_does(precision: str, tmp_path: Path) -> None:
    """The real SmolLM2, by the real llama.cpp: weights, tokenizer and chat template are those of the folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hone_dev.models import models

    gguf.write(models.smollm2(), tmp_path / "m.gguf", precision, "smollm2")
    prompt, question = "The capital of France is", "What is the capital of Italy?"
    tokenizer = AutoTokenizer.from_pretrained(models.smollm2())
    model = AutoModelForCausalLM.from_pretrained(models.smollm2(), dtype=torch.float32)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    expected = []
    for text in (prompt, chat):
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        made = model.generate(ids, do_sample=False, max_new_tokens=TOKENS)[0, ids.shape[1] :]
        expected.append(tokenizer.decode(made, skip_special_tokens=True))
    continued, answered = answers_of_llama_cpp(tmp_path / "m.gguf", prompt, question)
    assert continued == expected[0]
    assert continued.startswith(" Paris.")
    if precision == "Q8":  # eight bits take another word now and then
        assert answered[:12] == expected[1][:12]
    else:
        assert answered == expected[1]


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


def test_a_file_without_its_texts_is_read_as_far_as_the_rest(tmp_path: Path) -> None:
    """Nothing after the texts is at another place."""
    from gguf import GGUFReader, GGUFWriter

    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_token_list(["a", "", "öä", "d" * 300])
    writer.add_token_scores([0.5, 1.5, 2.5, 3.5])
    writer.add_tensor("weight", numpy.arange(6, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    whole = GGUFReader(tmp_path / "m.gguf")
    with gguf.without_texts():
        rest = GGUFReader(tmp_path / "m.gguf")
    assert GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.tokens"].contents() == ["a", "", "öä", "d" * 300]
    assert rest.fields["tokenizer.ggml.tokens"].contents() == [""] * 4
    assert list(rest.fields) == list(whole.fields)
    for name in rest.fields.keys() - {"tokenizer.ggml.tokens"}:
        assert rest.fields[name].contents() == whole.fields[name].contents(), name
    assert [(t.name, t.data.tolist()) for t in rest.tensors] == [("weight", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])]
