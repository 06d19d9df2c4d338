"""A model whose files are not its weights is refused: nothing is filled in at random, and nothing is dropped."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support.models import every_family

from hone_api.plan import TrainingPlan
from hone_trainer.errors import TrainerError
from hone_trainer.models import base_model, weights
from hone_trainer.run import preflight

pytestmark = pytest.mark.trainer
FILE = "model.safetensors"
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def copy(tmp_path: Path, tiny_model: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    tensors = load_file(folder / FILE)
    edit(tensors)
    save_file(tensors, folder / FILE, metadata={"format": "pt"})


def configure(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def refusal(action: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(TrainerError) as caught:
        action()
    assert caught.value.retry == "Never"
    return caught.value.code, caught.value.message


def load(folder: Path, **options: Any) -> Any:
    named = {"bf16": False, "cpu": True, "quantize": False, "frozen": False, **options}
    return base_model.load(base_model.open_base(folder), **named)


def gone(tensors: dict[str, Any]) -> None:
    del tensors[UP]


def embedding_gone(tensors: dict[str, Any]) -> None:
    del tensors["model.embed_tokens.weight"]


def added(tensors: dict[str, Any]) -> None:
    tensors["model.layers.1.mlp.side_proj.weight"] = tensors[UP].clone()


def cut(tensors: dict[str, Any]) -> None:
    tensors[UP] = tensors[UP][:-1].clone()


WRONG = {gone: f"{UP} is missing", embedding_gone: "model.embed_tokens.weight is missing"} | {
    added: "model.layers.1.mlp.side_proj.weight is not a weight of the model",
    cut: f"{UP} has the size (127, 64), not (128, 64)",
}


@pytest.mark.parametrize(("edit", "words"), WRONG.items(), ids=[edit.__name__ for edit in WRONG])
@pytest.mark.parametrize("quantize", [False, True], ids=["plain", "QLoRA"])
def test_other_weights_are_refused_by_headers_and_when_they_are_loaded(
    copy: Path, edit: Any, words: str, quantize: bool
) -> None:
    change(copy, edit)
    for action in (
        lambda: base_model.check_weights(base_model.open_base(copy)),
        lambda: load(copy, quantize=quantize, frozen=quantize),
    ):
        code, message = refusal(action)
        assert code == "UnsupportedModel"
        assert words in message


@pytest.mark.parametrize(
    ("layers", "words", "more"),
    [(4, "2.input_layernorm.weight is missing, ", 13), (1, "is not a weight of the model", 4)],
)
def test_another_number_of_layers_names_the_first_five_weights(copy: Path, layers: int, words: str, more: int) -> None:
    configure(copy, num_hidden_layers=layers)
    code, message = refusal(lambda: base_model.check_weights(base_model.open_base(copy)))
    assert code == "UnsupportedModel"
    assert words in message
    assert f"and {more} more" in message


@pytest.mark.parametrize("names", [("score.weight",), ("v_head.summary.weight", "v_head.summary.bias")])
def test_a_head_that_training_left_is_removed_as_the_message_says(copy: Path, names: tuple[str, ...]) -> None:
    import torch
    import transformers

    change(copy, lambda tensors: tensors.update({name: torch.ones(1, 64) for name in names}))
    code, message = refusal(lambda: base_model.check_weights(base_model.open_base(copy)))
    assert (code, [name for name in names if name not in message]) == ("UnsupportedModel", [])
    (kind,) = re.findall(r"`(\w+)\.from_pretrained\(folder\)\.save_pretrained\(folder\)`", message)
    getattr(transformers, kind).from_pretrained(copy).save_pretrained(copy)
    base_model.check_weights(base_model.open_base(copy))


def test_a_run_ends_before_it_reads_a_row(make_plan: Any, runs: Any, copy: Path) -> None:
    change(copy, gone)
    code, message = refusal(lambda: runs.finish(make_plan(modelPath=str(copy), adapter={"type": "None"})))
    assert (code, UP in message) == ("UnsupportedModel", True)


def test_a_reward_head_may_be_new_but_no_other_weight(copy: Path, make_plan: Any) -> None:
    opened = base_model.open_base(copy)
    assert load(copy, head="Reward").score.weight.shape == (1, 64)
    base_model.check_weights(opened, "Reward")
    change(copy, gone)
    assert UP in refusal(lambda: load(copy, head="Reward"))[1]
    plan: TrainingPlan = make_plan(modelPath=str(copy), method="Reward")
    assert UP in refusal(lambda: preflight.check_base(plan, opened))[1]


def test_a_reward_model_has_its_head(copy: Path, tmp_path: Path) -> None:
    trained = tmp_path / "reward"
    load(copy, head="Reward").save_pretrained(trained)
    base_model.open_base(copy).tokenizer.save_pretrained(trained)
    named = {"bf16": False, "cpu": True, "quantize": False, "frozen": True}
    base_model.load(base_model.open_base(trained, "Reward"), **named, head="Reward")
    change(trained, lambda tensors: tensors.pop("score.weight"))
    opened = base_model.open_base(trained, "Reward")
    for action in (
        lambda: base_model.load(opened, **named, head="Reward"),
        lambda: base_model.check_weights(opened, "Reward"),
    ):
        assert "score.weight is missing" in refusal(action)[1]


def in_shards(folder: Path, keep: int = 2) -> dict[str, Any]:
    """The model in two files with an index; the first `keep` files stay."""
    tensors = sorted(load_file(folder / FILE).items())
    (folder / FILE).unlink()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, part in zip(names, (tensors[:9], tensors[9:]), strict=True):
        save_file(dict(part), folder / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: names[at >= 9] for at, (key, _) in enumerate(tensors)}}
    (folder / f"{FILE}.index.json").write_text(json.dumps(index))
    for name in names[keep:]:
        (folder / name).unlink()
    return index


def write(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


def twice(folder: Path) -> None:
    """A header with a name twice, which the Rust library reads without a word."""
    content = (folder / FILE).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].rstrip()
    entry = json.dumps(json.loads(header)[UP])
    longer = header[:-1] + f', "{UP}": {entry}'.encode() + b"}"
    longer += b" " * (-len(longer) % 8)
    (folder / FILE).write_bytes(len(longer).to_bytes(8, "little") + longer + content[8 + size :])


DAMAGED: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda folder: (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-100]),
    "empty": write(FILE, b""),
    "garbage": write(FILE, bytes(range(256)) * 9),
    "without a shard": lambda folder: in_shards(folder, keep=1),
    "with a broken index": lambda folder: (in_shards(folder), write(f"{FILE}.index.json", b"{")(folder)),
    "index without a key": lambda folder: (in_shards(folder), write(f"{FILE}.index.json", b"{}")(folder)),
    "name twice": twice,
    "heads 0": lambda folder: configure(folder, num_attention_heads=0),
    "vocabulary 10^12": lambda folder: configure(folder, vocab_size=10**12),
    "layers -1": lambda folder: configure(folder, num_hidden_layers=-1),
    "layers 10^9": lambda folder: configure(folder, num_hidden_layers=10**9),
    "layers a text": lambda folder: configure(folder, num_hidden_layers="two"),
    "epsilon NaN": lambda folder: configure(folder, rms_norm_eps=float("nan")),
    "hidden size a list": lambda folder: configure(folder, hidden_size=[64]),
    **{
        f"as {method}": lambda folder, method=method: configure(folder, quantization_config={"quant_method": method})
        for method in ("awq", "gptq", "compressed-tensors", "hqq", "torchao", "quark", "bitsandbytes")
    },
    "as bitsandbytes in 4 bits": lambda folder: configure(
        folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}
    ),
    "end of a text": write("generation_config.json", b'{"eos_token_id": "x"}'),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_base_ends_with_a_code_that_is_not_retried(
    copy: Path, make_plan: Any, runs: Any, damage: Any
) -> None:
    damage(copy)
    code, message = refusal(lambda: runs.finish(make_plan(modelPath=str(copy))))
    assert code in ("UnsupportedModel", "UnsafeModel")
    assert any(name in message for name in (str(copy), "safetensors", "config.json"))


@pytest.mark.parametrize("keep", [lambda folder: None, in_shards], ids=["one file", "shards"])
def test_a_sound_base_is_accepted(copy: Path, keep: Any) -> None:
    keep(copy)
    opened = base_model.open_base(copy)
    base_model.check_weights(opened)
    assert load(copy).num_parameters() > 0


def masks_and_angles(folder: Path) -> None:
    import torch

    add = {"mlp.masked_bias": torch.tensor(-1e9), "self_attn.cos_cached": torch.ones(8)}
    change(folder, lambda tensors: tensors.update({f"model.layers.1.{name}": value for name, value in add.items()}))


def index_of_pickles(folder: Path) -> None:
    index = {"weight_map": {UP: "pytorch_model-00001-of-00002.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def hidden_file(folder: Path) -> None:
    (folder / f"._{FILE}").write_bytes(b"\0\5\x16\7")


@pytest.mark.parametrize("publish", [masks_and_angles, index_of_pickles, hidden_file])
def test_a_base_with_what_transformers_does_not_read_is_accepted(copy: Path, publish: Callable[[Path], None]) -> None:
    """Constants that older releases stored, a second form of the weights, and what macOS writes."""
    publish(copy)
    base_model.check_weights(base_model.open_base(copy))
    assert load(copy).num_parameters() > 0


TOKENIZERS = ("CTRL", "Esm", "Phobert", "XLM", "Bartpho", "Marian", "Speech2Text", "Wav2Vec2CTC", "FSMT", "Flaubert")
TOKENIZERS += ("Biogpt", "Bertweet", "Luke", "MBart50", "M2M100", "ProphetNet", "Cpm", "Tapas", "BertJapanese", "CLVP")


@pytest.mark.parametrize("kind", [f"{name}Tokenizer" for name in TOKENIZERS])
def test_a_tokenizer_of_another_class_is_refused_or_read(copy: Path, kind: str) -> None:
    for file in copy.glob("*token*"):
        file.unlink()
    (copy / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    with contextlib.suppress(TrainerError):  # any other error fails the test
        base_model.open_base(copy)


def to_fp8(tensors: dict[str, Any]) -> dict[str, Any]:
    import torch

    for name in [name for name in tensors if name.endswith("proj.weight")]:
        scale = tensors[name].abs().max() / 448
        tensors[name] = (tensors[name] / scale).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scale.reshape(1, 1)
    return {"quant_method": "fp8", "weight_block_size": [128, 128]}


def test_a_base_in_eight_bits_is_trained_in_its_rounded_values(copy: Path) -> None:
    import torch

    before = load_file(copy / FILE)[UP]
    change(copy, lambda tensors: configure(copy, quantization_config=to_fp8(tensors)))
    base_model.check_weights(base_model.open_base(copy))
    network = load(copy)
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert 0 < (network.get_parameter(UP) - before).abs().max() < before.abs().max() / 16
    change(copy, lambda tensors: tensors.pop(f"{UP}_scale_inv"))
    assert refusal(lambda: load(copy))[0] == "UnsupportedModel"


def test_a_base_in_four_bits_needs_its_scales(copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "quantised"
    load(copy, quantize=True, frozen=True).save_pretrained(folder)
    base_model.open_base(copy).tokenizer.save_pretrained(folder)
    base_model.check_weights(base_model.open_base(folder))
    assert load(folder, frozen=True).is_loaded_in_4bit
    change(folder, lambda tensors: tensors.pop(f"{UP}.absmax"))
    assert refusal(lambda: load(folder, frozen=True))[0] == "UnsupportedModel"


PLACES = 6
"""Weights of each family that are removed and resized, from its first to its last."""


def is_refused(folder: Path) -> bool:
    """Whether the files in a folder without a tokenizer are not those of its config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        weights.check(AutoModelForCausalLM, folder, AutoConfig.from_pretrained(folder))
    except TrainerError as error:
        return str(error.code) == "UnsupportedModel"
    return False


def missed(folder: Path) -> list[str]:
    """What is taken although it is wrong, or refused although it is sound."""
    wrong, tensors = ["sound"] if is_refused(folder) else [], load_file(folder / FILE)
    names = list(tensors)
    chosen = dict.fromkeys(names[at * (len(names) - 1) // (PLACES - 1)] for at in range(PLACES))
    variants = {"one more": {**tensors, f"{names[-1].replace('.', '.extra_', 1)}_more": tensors[names[0]].clone()}}
    for name in chosen:
        variants[f"without {name}"] = {key: tensor for key, tensor in tensors.items() if key != name}
        if shape := tensors[name].shape:
            larger = tensors[name].repeat(2, *[1] * (len(shape) - 1))
            variants[f"larger {name}"] = {**tensors, name: larger}
    for what, changed in variants.items():
        save_file(changed, folder / FILE, metadata={"format": "pt"})
        if not is_refused(folder):
            wrong.append(what)
    return wrong


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_a_family_whose_weights_have_other_names_in_files(tmp_path: Path, family: str) -> None:
    every_family.build(every_family.config(family)).save_pretrained(tmp_path)
    assert missed(tmp_path) == []


@pytest.mark.outside
@pytest.mark.long
def test_every_family_is_taken_whole_and_refused_otherwise(tmp_path: Path) -> None:
    tried, wrong, unbuilt = 0, {}, []
    for family in every_family.families():
        folder = tmp_path / family
        try:
            every_family.build(every_family.config(family)).save_pretrained(folder)
        except Exception:  # the family's own rules do not allow a small one
            unbuilt.append(family)
            continue
        tried += 1
        if found := missed(folder):
            wrong[family] = found
        shutil.rmtree(folder)
    page = (Path(__file__).parents[3] / "docs" / "outside.md").read_text()
    (row,) = (line for line in page.splitlines() if "tests/trainer/models/test_weights.py" in line)
    assert f"| {tried} families | {tried - len(wrong)} |" in row, (wrong, unbuilt)
    assert f"{len(unbuilt)} families" in row
    assert all(f"`{family}`" in row for family in wrong), wrong
