"""Every causal family of transformers: a run trains on what the model computes for each row alone, or says why not."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.models import every_family, tiny
from support.runs import split_files

from hone_trainer.commands import evaluate
from hone_trainer.errors import TrainerError
from hone_trainer.models import base_model
from hone_trainer.training import model_check

pytestmark = pytest.mark.trainer
DOCUMENTS = 8
PACKED, APART = "packed", "one row a sequence"
UNSUITABLE = "ModelUnsuitable"
NOT_BUILT = "cannot be built small"
OUTSIDE = Path(__file__).parents[3] / "docs/outside.md"
APART_FAMILIES = """
bailing_hybrid bamba bart big_bird bigbird_pegasus blenderbot blenderbot-small bloom camembert data2vec-text
deepseek_v4 falcon_h1 falcon_mamba gpt_neo granitemoehybrid inkling_text jamba kimi_linear lara_mini lfm2_moe lfm3
mamba mamba2 marian mbart megatron-bert minimax mpt mvp nemotron_h olmo_hybrid openai-gpt pegasus plbart
prophetnet qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_next recurrent_gemma rembert roberta
roberta-prelayernorm roformer rwkv trocr xglm
xlm-roberta xlm-roberta-xl xlstm zamba2 zaya
"""
"""Whose rows would change each other in one pass."""
NOT_BUILT_FAMILIES = """
blt cohere_compass_text dbrx dots3_note dots3_note_text fuyu gemma3n gemma3n_text gemma4_assistant
gemma4_unified_assistant got_ocr2 inkling2_loop_text inkling2_text mimo_v2_flash moshi
moss_transcribe_diarize musicgen musicgen_melody qwen4_exp qwen4_exp_text xmod zamba
"""
"""Which transformers does not build in these sizes, or not without other libraries."""
REFUSED_FAMILIES = {
    "cpmant": "ModelUnsuitable",
    "emu3": "UnsupportedModel",
    "mllama": "UnsupportedModel",
    "reformer": "ModelUnsuitable",
    "xlm": "ModelUnsuitable",
    "xlnet": "ModelUnsuitable",
}
"""With the code."""
SAMPLE = ("llama", "gpt_oss", "bloom", "mamba", "falcon_h1", "recurrent_gemma")
LOGITS = {"recurrent_gemma"}


def texts() -> list[str]:
    return [f"{question} {answer}" for question, answer in tiny.sentences()[:DOCUMENTS]]


def own_loss(model: Any) -> float:
    """Mean over the tokens of all documents, one document at a time and in float64."""
    import torch

    total, count = 0.0, 0
    for text in texts():
        ids = torch.tensor([tiny.tokenizer()(text)["input_ids"] + [2]])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].double()
        total -= float(logits.log_softmax(-1).gather(1, ids[0, 1:, None]).sum())
        count += ids.shape[1] - 1
    return total / count


def plan_of(make_plan: Any, folder: Path, base: Path, **fields: Any) -> Any:
    """DAPT with what it does by default, one step over all documents, which are `texts` unless `documents` is set."""
    documents = [{"text": text} for text in fields.pop("documents", texts())]
    return make_plan(
        fields.pop("name", "run"),
        held_out=False,
        method="DAPT",
        dapt={},
        modelPath=str(base),
        datasets=[split_files.write(folder / "documents.jsonl", documents, "documents", "train")],
        training={"maxSteps": 1, "batchSize": DOCUMENTS, "maxLength": 64, **fields.pop("training", {})},
        **fields,
    )


def outcome(runs: Any, plan: Any, expected: float) -> tuple[str, str]:
    """What became of a run, and its advice or error. A run that trains has the loss of each row alone."""
    try:
        result = runs.finish(plan)
    except TrainerError as error:
        return str(error.code), error.message
    file = Path(plan.output_path) / ("adapter" if plan.adapter.type != "None" else "full") / "metrics.jsonl"
    first = json.loads(file.read_text().splitlines()[0])
    # Experts are kept in balance by a second loss, as transformers weighs it.
    balance = first.get("aux_loss", 0.0) * getattr(
        base_model.open_base(plan.model_path).config, "router_aux_loss_coef", 0.001
    )
    assert first["loss"] == pytest.approx(expected + balance, rel=1e-4)
    return (APART if result.resolved.get("packing") == "Off" else PACKED), " ".join(result.advice)


@pytest.mark.parametrize("family", SAMPLE)
def test_a_family_trains_on_rows_as_if_each_were_alone(runs: Any, make_plan: Any, tmp_path: Path, family: str) -> None:
    model = every_family.build(every_family.config(family))
    base = every_family.save(model, tmp_path / "base")
    kind, words = outcome(runs, plan_of(make_plan, tmp_path, base), own_loss(model))
    assert kind == expected_of(family), words
    assert (family in words) == (kind == APART)
    assert ("whole logits" in words) == (family in LOGITS)


def test_an_export_is_scored_again_by_the_logits_that_its_family_needs(
    runs: Any, make_plan: Any, tmp_path: Path, rows_files: tuple[Path, Path]
) -> None:
    base = base_of(tmp_path, "recurrent_gemma")
    plan = make_plan(modelPath=str(base), training={"maxSteps": 1})
    (number,) = (number for number in runs.finish(plan).numbers if number.name == "loss")
    found = evaluate.recompute(Path(plan.output_path) / "adapter", rows_files[1], base)
    (again,) = (number for number in found if number.name == "loss")
    assert [float(again.base), float(again.tuned)] == pytest.approx([float(number.base), float(number.tuned)], abs=1e-4)


@pytest.fixture(scope="session")
def wrapped_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma 3 as it is published: text, and a tower for images."""
    model = every_family.build(every_family.config("gemma3"))
    return every_family.save(model, tmp_path_factory.mktemp("wrapped") / "base")


@pytest.mark.parametrize("adapter", ["LoRA", pytest.param("None", marks=pytest.mark.long)])
def test_text_trains_only_the_text_model_on_two_ranks(
    runs: Any, make_plan: Any, tmp_path: Path, wrapped_base: Path, adapter: str
) -> None:
    plan = plan_of(
        make_plan, tmp_path, wrapped_base, processesPerNode=2, adapter={"type": adapter}, training={"maxSteps": 2}
    )
    runs.wait(plan, runs.start(plan))
    form = "adapter" if adapter == "LoRA" else "full"
    folder = Path(plan.output_path) / form
    tensors = load_file(folder / ("adapter_model.safetensors" if adapter == "LoRA" else "model.safetensors"))
    before = load_file(wrapped_base / "model.safetensors")
    if adapter == "LoRA":
        assert {"language_model" in name for name in tensors} == {True}
    else:
        moved = {name for name, weight in tensors.items() if not weight.equal(before[name])}
        assert moved == {name for name in before if "language_model" in name}


def base_of(folder: Path, family: str, **more: Any) -> Path:
    return every_family.save(every_family.build(every_family.config(family, **more)), folder / "base")


def test_a_model_whose_mask_has_the_size_of_its_context_does_not_pack_more(
    runs: Any, make_plan: Any, tmp_path: Path
) -> None:
    model = every_family.build(every_family.config("gpt_neo", max_position_embeddings=64))
    base = every_family.save(model, tmp_path / "base")
    kind, words = outcome(runs, plan_of(make_plan, tmp_path, base), own_loss(model))
    assert kind == APART
    assert "gpt_neo cannot compute several rows in one pass" in words


@pytest.mark.parametrize(("limit", "is_said"), [(20, True), (255, False)])
def test_rows_on_both_sides_of_the_limit_of_longrope_are_counted(
    runs: Any, make_plan: Any, tmp_path: Path, limit: int, is_said: bool
) -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": limit, **factors}
    sizes = {"rope_parameters": rope, "original_max_position_embeddings": limit}
    base = base_of(tmp_path, "phi3", **sizes)
    result = runs.finish(plan_of(make_plan, tmp_path, base, documents=[*texts(), " ".join(texts()[:2])]))
    said = [sentence for sentence in result.advice if "longrope" in sentence]
    assert [sentence.startswith(f"1 of 9 rows are over the {limit} tokens") for sentence in said] == [True] * is_said


def test_a_model_that_sees_later_tokens_is_refused(runs: Any, make_plan: Any, tmp_path: Path) -> None:
    base = base_of(tmp_path, "bert", is_decoder=False)
    kind, words = outcome(runs, plan_of(make_plan, tmp_path, base), expected=0)
    assert kind == UNSUITABLE
    assert "bert: tokens change what the model predicts before them" in words


def test_ranks_with_divided_weights_decide_alike(runs: Any, make_plan: Any, tmp_path: Path) -> None:
    """BLOOM does not pack, and its loss is that of one rank without ZeRO."""
    base = base_of(tmp_path, "bloom")
    alone = plan_of(make_plan, tmp_path, base, name="alone", training={"maxSteps": 2})
    divided = plan_of(
        make_plan,
        tmp_path,
        base,
        name="divided",
        training={"maxSteps": 2},
        processesPerNode=2,
        deepspeed={"zeroStage": 3},
    )
    outcome = runs.wait(divided, runs.start(divided))
    assert outcome.result.resolved["packing"] == "Off"
    assert runs.finish(alone).resolved["packing"] == "Off"
    for (_, loss, _), (_, expected, _) in zip(runs.curve(divided), runs.curve(alone), strict=True):
        assert loss == pytest.approx(expected, rel=1e-4)


def test_a_resumed_run_packs_as_its_first_attempt_did(
    runs: Any, make_plan: Any, tmp_path: Path, interrupt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {"training": {"maxSteps": 4}, "checkpoints": {"everySteps": 2}}
    apart = plan_of(make_plan, tmp_path, base_of(tmp_path, "bloom"), name="apart", **fields)
    packed = plan_of(make_plan, tmp_path, base_of(tmp_path / "llama", "llama"), name="packed", **fields)
    for plan in (apart, packed):
        interrupt(plan, 2)
    with monkeypatch.context() as patch:
        patch.setattr(model_check, "why_mixed", lambda *_, **__: None)
        assert runs.finish(apart).resolved["packing"] == "Off"
    monkeypatch.setattr(model_check, "why_mixed", lambda *_, **__: "these kernels mix rows")
    with pytest.raises(TrainerError, match="mix rows, and an earlier attempt of this run packed rows") as caught:
        runs.finish(packed)
    assert caught.value.code == UNSUITABLE


@pytest.mark.outside
@pytest.mark.long
@pytest.mark.parametrize("family", every_family.families())
def test_every_family_trains_as_if_each_row_were_alone_or_is_refused(
    runs: Any, make_plan: Any, tmp_path: Path, family: str
) -> None:
    kind, words = seen(runs, make_plan, tmp_path, family)
    print(f"SEEN {family}: {kind} {words}")
    assert kind == expected_of(family), words


def seen(runs: Any, make_plan: Any, folder: Path, family: str) -> tuple[str, str]:
    """What becomes of a family: of its model, and of a run on it."""
    try:
        model = every_family.build(every_family.config(family))
        base = every_family.save(model, folder / "base")
        expected = own_loss(model)
    except Exception as error:
        return NOT_BUILT, f"{type(error).__name__}: {error}"
    return outcome(runs, plan_of(make_plan, folder, base), expected)


def expected_of(family: str) -> str:
    """What was seen of a family; one that is new packs."""
    if family in REFUSED_FAMILIES:
        return REFUSED_FAMILIES[family]
    if family in NOT_BUILT_FAMILIES.split():
        return NOT_BUILT
    return APART if family in APART_FAMILIES.split() else PACKED


def test_the_page_counts_every_family() -> None:
    count = Counter(map(expected_of, every_family.families()))
    tried = count.total() - count[NOT_BUILT]
    row = next(line for line in OUTSIDE.read_text().splitlines() if line.startswith("| Causal families"))
    _, _, cells, holds, missing, _, _ = (cell.strip() for cell in row.split("|"))
    assert cells == f"{tried} of {count.total()}"
    refused = count[UNSUITABLE] + count["UnsupportedModel"]
    words = f"{count[PACKED]} train packed, {count[APART]} one row a sequence, {refused} are refused"
    assert holds == f"{count[PACKED] + count[APART] + refused}: {words}"
    assert {name for name in NOT_BUILT_FAMILIES.split() if f"`{name}`" not in missing} == set()
