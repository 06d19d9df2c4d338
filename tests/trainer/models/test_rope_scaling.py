"""A context that training.ropeScaling makes longer: trained, exported, resumed and scored with the same positions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.models import every_family, families, tiny
from support.runs import method_plans

from hone_api.blocks.training import Training
from hone_trainer.commands import evaluate
from hone_trainer.errors import TrainerError
from hone_trainer.models import adapters, rope_scaling
from hone_trainer.run import encode

pytestmark = pytest.mark.trainer
OUTSIDE = Path(__file__).parents[3] / "docs/outside.md"
CONTEXT, FACTOR = 16, 4
SCALED = {"maxSteps": 4, "ropeScaling": {"factor": str(FACTOR)}}
FULL = {"adapter": {"type": "None"}, "checkpoints": {"everySteps": 2}}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": CONTEXT}


@pytest.fixture(scope="session")
def short_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says that it reads fewer tokens than the rows of the tests have."""
    model = every_family.build(every_family.config("llama", max_position_embeddings=CONTEXT))
    folder = every_family.save(model, tmp_path_factory.mktemp("short") / "model")
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": CONTEXT}))
    return folder


@pytest.fixture
def scaled_plan(make_plan: Any, short_model: Path) -> Any:
    def make(name: str = "run", **fields: Any) -> Any:
        training = {**SCALED, **fields.pop("training", {})}
        return make_plan(name, **{"modelPath": str(short_model), "training": training, **FULL, **fields})

    return make


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def own_loss(model: Any, rows: Path) -> float:
    """Mean over the tokens of the answers, one row at a time."""
    import torch

    total, count = 0.0, 0
    for line in rows.read_text().splitlines():
        messages = json.loads(line)["messages"]
        ids = torch.tensor([tiny.tokenizer().apply_chat_template(messages)["input_ids"]])
        start = len(tiny.tokenizer().apply_chat_template(messages[:1], add_generation_prompt=True)["input_ids"])
        with torch.no_grad():
            of_tokens = model(input_ids=ids).logits[0, start - 1 : -2].log_softmax(-1)
        total -= float(of_tokens.gather(1, ids[0, start:-1, None]).sum())
        count += ids.shape[1] - 1 - start
    return total / count


def test_a_run_trains_and_exports_what_serves_the_longer_context(
    runs: Any, scaled_plan: Any, short_model: Path, rows_files: tuple[Path, Path]
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    plan = scaled_plan()
    result = runs.finish(plan)
    assert result.resolved["ropeScaling"] == "YaRN 4: 16 to 64 tokens"
    folder = Path(plan.output_path) / "full"
    config = config_of(folder)
    assert config["max_position_embeddings"] == CONTEXT * FACTOR
    assert config["rope_parameters"].items() >= YARN.items()
    assert AutoTokenizer.from_pretrained(folder).model_max_length == CONTEXT * FACTOR
    (loss,) = (number for number in result.numbers if number.name == "loss")
    held_out = rows_files[1]
    tuned = AutoModelForCausalLM.from_pretrained(folder)
    assert own_loss(tuned, held_out) == pytest.approx(float(loss.tuned), rel=1e-4)
    before = AutoConfig.from_pretrained(short_model)
    before.rope_parameters = {**before.rope_parameters, **YARN}
    base = AutoModelForCausalLM.from_pretrained(short_model, config=before)
    assert own_loss(base, held_out) == pytest.approx(float(loss.base), rel=1e-4)
    assert abs(own_loss(AutoModelForCausalLM.from_pretrained(short_model), held_out) - float(loss.base)) > 1e-2
    (again,) = (number for number in evaluate.recompute(folder, held_out, short_model) if number.name == "loss")
    assert [float(again.base), float(again.tuned)] == pytest.approx([float(loss.base), float(loss.tuned)], rel=1e-4)


def test_an_attempt_goes_on_with_the_same_positions(runs: Any, scaled_plan: Any, interrupt: Any) -> None:
    whole, stopped = scaled_plan("whole"), scaled_plan("stopped")
    runs.finish(whole)
    interrupt(stopped, 2)
    assert runs.finish(stopped.model_copy(update={"attempt": 2})).start_step > 0
    files = [Path(plan.output_path) / "full" / "model.safetensors" for plan in (whole, stopped)]
    one, other = map(load_file, files)
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def test_rows_are_encoded_before_a_run_up_to_the_longer_context(scaled_plan: Any, tmp_path: Path) -> None:
    plan = scaled_plan()
    plain = plan.model_copy(update={"training": plan.training.model_copy(update={"rope_scaling": None})})
    folder = {"encoded_path": str(tmp_path / "encoded")}
    result = encode.run(plan.model_copy(update=folder))
    assert result is not None
    assert result.rows == 96
    with pytest.raises(TrainerError, match="80 over the maximal length"):
        encode.run(plain.model_copy(update=folder))


@pytest.mark.parametrize("method", ["DPO", "Reward"])
def test_other_methods_start_from_the_scaled_base(
    runs: Any, make_plan: Any, short_model: Path, tmp_path: Path, method: str
) -> None:
    """DPO's own check compares the first loss with that of its reference."""
    fields = {"modelPath": str(short_model), "training": {**SCALED, "maxSteps": 2}, **FULL}
    plan = method_plans.plan_of(make_plan, method, tmp_path, short_model, **fields)
    assert runs.finish(plan).resolved["ropeScaling"] == "YaRN 4: 16 to 64 tokens"
    assert config_of(Path(plan.output_path) / "full")["rope_parameters"].items() >= YARN.items()


def test_a_run_whose_rows_need_no_scaling_says_so(runs: Any, make_plan: Any) -> None:
    result = runs.finish(make_plan(**FULL, training={**SCALED, "maxSteps": 1}))
    assert any("no row has more than the 256 tokens that the model reads without it" in line for line in result.advice)


# -- families ----------------------------------------------------------------------------------------------------

SAMPLE = ("llama", "mixtral", "gemma3_text", "gpt_oss", "bloom", "phimoe")
"""Two that take it, and one of each refusal."""
NONE, MIXED, DONE = (
    "no rotary positions of a known length",
    "layers with other rotary positions",
    "scaled positions already",
)
OWN = "computes its positions without such settings"
TAKEN = "taken"
NONE_FAMILIES = """
bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot blenderbot-small bloom camembert codegen cpmant
ctrl data2vec-text electra ernie falcon_mamba git gpt-sw3 gpt2 gpt_bigcode gpt_neo gptj inkling2_loop_text
inkling2_text inkling_text jamba kimi_linear mamba mamba2 marian mbart megatron-bert mpt mvp nemotron_h openai-gpt opt
pegasus plbart prophetnet recurrent_gemma reformer rembert roberta roberta-prelayernorm roc_bert roformer rwkv trocr
whisper xglm xlm xlm-roberta xlm-roberta-xl xlnet xlstm xmod
"""
MIXED_FAMILIES = """
beam deepseek_v4 dory gemma3 gemma3_text gemma4 gemma4_text gemma4_unified gemma4_unified_text laguna lfm3 mellum
mimo_v2_flash modernbert-decoder olmo3 zaya
"""
DONE_FAMILIES = "apertus apertus1p5_text cwm gpt_oss ministral3"
OWN_FAMILIES = "granitemoehybrid phimoe zamba2"
NO_ATTENTION = {"bailing_hybrid", "bamba"}
"""Whose small models have no layer with positions."""


def verdict(config: Any, build: Callable[..., Any] = every_family.build) -> str:
    """TAKEN, if the model computes something else with the scaling; else the refusal."""
    import torch

    plain, scaled = build(config), deepcopy(config)
    training = Training.model_validate({"ropeScaling": {"factor": str(FACTOR)}})
    try:
        rope_scaling.stretch(scaled, tiny.tokenizer(), training)
    except TrainerError as error:
        return f"{error.code}: {error.message}"
    for words in rope_scaling.problems(scaled, adapters.without_weights(scaled)):
        return words
    network = build(scaled)
    network.load_state_dict(plain.state_dict())
    ids = torch.arange(2, 42)[None]
    with torch.no_grad():
        before, after = (model(input_ids=ids, use_cache=False).logits for model in (plain, network))
    assert (float((before - after).abs().max()) > 1e-5) == (config.model_type not in NO_ATTENTION)
    return TAKEN


def expected_of(family: str) -> str:
    reasons = {NONE: NONE_FAMILIES, MIXED: MIXED_FAMILIES, DONE: DONE_FAMILIES, OWN: OWN_FAMILIES}
    return next((reason for reason, listed in reasons.items() if family in listed.split()), TAKEN)


@pytest.mark.parametrize("family", SAMPLE)
def test_a_family_computes_the_longer_context_or_says_why_not(family: str) -> None:
    assert expected_of(family) in verdict(every_family.config(family))


@pytest.mark.outside
@pytest.mark.long
def test_every_family_computes_the_longer_context_or_says_why_not() -> None:
    seen: dict[str, str] = {}
    for family in every_family.buildable():
        seen[family] = verdict(every_family.config(family))
        print(f"SEEN {family}: {seen[family]}")
    assert {family: words for family, words in seen.items() if expected_of(family) not in words} == {}
    taken = sum(words == TAKEN for words in seen.values())
    row = next(line for line in OUTSIDE.read_text().splitlines() if line.startswith("| `training.ropeScaling`"))
    _, _, tried, holds, *_ = (cell.strip() for cell in row.split("|"))
    assert (tried, holds) == (
        f"{len(seen)}",
        f"{taken} are scaled, {len(seen) - taken} refused before the weights are read",
    )


def test_the_page_of_families_says_which_are_scaled() -> None:
    """As the tiny models of that page are."""
    configs = {family: families.config(family) for family in families.FAMILIES}
    taken = {family for family, config in configs.items() if verdict(config, partial(families.build, family)) == TAKEN}
    text = families.PAGE.read_text(encoding="utf-8").partition("`training.ropeScaling`")[2].partition("\n\n")[0]
    assert taken == set(families.FAMILIES) - set(re.findall(r"`(\w+)`", text))
