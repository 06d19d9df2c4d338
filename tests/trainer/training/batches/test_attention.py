"""Rows of one pass: for every family the loss and the gradients of each row alone, and the kernel that is chosen.

The kernels of GPUs take the bounds of rows; here a function with the same arguments stands in for them, and all else is
the code that a GPU runs.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.models import every_family

from hone_api.estimate.memory import APART
from hone_trainer import device, ranks
from hone_trainer.training import model_check
from hone_trainer.training.batches import attention, reference_varlen
from hone_trainer.training.batches.attention import AttentionChoice, AttentionDevice, AttentionKernel, AttentionNeeds
from hone_trainer.training.batches.unpadded import Unpadded
from hone_trainer.training.model_check import Look, attention_of, why_mixed
from hone_trainer.training.settings import RunSettings

pytestmark = pytest.mark.trainer

LENGTHS = (90, 17, 1, 140, 40)
"""Of rows: one is longer than reference_varlen.SHORT, two than the window of the tiny models."""
SAMPLE = ("llama", "gemma2", "gemma3_text", "gpt_oss", "deepseek_v3", "mistral", "llama4_text", "mamba")
OUTSIDE = Path(__file__).parents[4] / "docs/outside.md"
MASKED = """
axk2 bailing_hybrid bamba bart big_bird bigbird_pegasus blenderbot blenderbot-small bloom camembert cpmant
data2vec-text deepseek_v32 deepseek_v4 doge falcon falcon_h1 falcon_mamba gemma4_unified git glm_moe_dsa gpt_neo
gpt_neox_japanese granitemoehybrid hy_v4 inkling2_loop_text inkling2_text inkling_text jamba kimi_linear lara_mini
lfm2_moe lfm3 llama4 llama4_text mamba mamba2 marian mbart megatron-bert mimo_v2_flash minimax mpt mvp nemotron_h
olmo_hybrid openai-gpt pegasus phimoe plbart prophetnet qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text
qwen3_next recurrent_gemma reformer rembert roberta roberta-prelayernorm roformer rwkv trocr xglm xlm xlm-roberta
xlm-roberta-xl xlnet xlstm xmod zamba2 zaya
"""
"""Whose rows are padded or, if the job packs them, under one mask: recurrent layers, masks that a layer makes itself,
older code of attention, positions that a model counts itself."""
ROUNDED = ("youtu",)
"""Which are so deep in rounding that they are compared in float64."""
ROWS, MASKS = (AttentionChoice(kernel, "a test") for kernel in (AttentionKernel.ROWS, AttentionKernel.MASKS))


def ids_of(lengths: tuple[int, ...] = LENGTHS) -> list[Any]:
    import torch

    make = torch.Generator().manual_seed(1)
    return [torch.randint(3, 500, (length,), generator=make).tolist() for length in lengths]


def batch_of(rows: list[list[int]]) -> dict[str, Any]:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    batch: dict[str, Any] = DataCollatorForLanguageModeling(0, padding_free=True)([{"input_ids": row} for row in rows])
    return batch


def padded(rows: list[list[int]]) -> dict[str, Any]:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    batch: dict[str, Any] = DataCollatorForLanguageModeling(0)([{"input_ids": row} for row in rows])
    return batch


def learned(model: Any, batches: list[dict[str, Any]], choice: AttentionChoice = ROWS) -> tuple[Any, Any]:
    """The sum of the losses of all tokens, and its gradient at all weights."""
    import torch

    model.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches:
        labels = batch["labels"][:, 1:]
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        with attention.by_row(model.config, choice if "cu_seq_lens_q" in batch else MASKS, inputs):
            logits = model(**inputs, use_cache=False).logits[:, :-1]
            part = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            part.backward()
        total += part.detach()
    grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
    return total, torch.cat([grad.flatten() for grad in grads])


def assert_alike(found: tuple[Any, Any], expected: tuple[Any, Any], tolerance: float = 1e-5) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "deepseek_v3", "gpt2"])
def test_a_family_without_masks_in_the_estimate_needs_none_on_any_card(family: str) -> None:
    assert family in APART
    asked = look_at(every_family.build(every_family.config(family))).asked()
    for on in (H100, replace(H100, capability=(7, 5), half=False), replace(H100, capability=None)):
        assert attention.choose(asked, on).keeps_rows_apart


def look_at(model: Any) -> Look:
    import torch

    return Look(model, ids_of((32, 20, 9)), torch.device("cpu"))


@pytest.mark.parametrize("family", SAMPLE)
def test_rows_of_one_pass_teach_what_each_teaches_alone(family: str) -> None:
    assert outcome(family) == expected_of(family)


@pytest.mark.outside
@pytest.mark.long
def test_every_family_learns_the_same_without_padding() -> None:
    seen: dict[str, str] = {}
    for family in every_family.buildable():
        seen[family] = outcome(family)
        print(f"SEEN {family}: {seen[family]}")
    assert seen == {family: expected_of(family) for family in seen}
    assert {seen.get(family) for family in APART} == {"Rows"}
    count = Counter(seen.values())
    row = next(line for line in OUTSIDE.read_text().splitlines() if line.startswith("| Loss and gradients of padded"))
    _, _, cells, holds, *_ = (cell.strip() for cell in row.split("|"))
    assert (cells, holds) == (f"{len(seen)}", f"{count['Rows']} without padding, {count['Masks']} padded")


H100 = AttentionDevice((9, 0), half=True, varlen=True)


def outcome(family: str) -> str:
    """Rows, if each batch teaches what the rows teach one by one, as a GPU would have it; Masks, if it would pad."""
    model = every_family.build(every_family.config(family))
    look = look_at(model.double() if family in ROUNDED else model)
    if family in APART:
        assert attention_of(look, replace(H100, capability=(7, 5), half=False)).keeps_rows_apart
    choice = attention_of(look, H100)
    if not choice.keeps_rows_apart or look.asked().own_mask or why_mixed(look, choice):
        return "Masks"
    rows = ids_of()
    expected = learned(model, [padded([row]) for row in rows])
    packed = [batch_of(rows[:2]), batch_of(rows[2:])]
    for batches in ([padded(rows)], [batch_of(rows)], packed):
        assert_alike(learned(model, batches, choice), expected)
    shapes = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    Unpadded(model, choice)
    assert_alike(learned(model, [padded(rows)]), expected)
    inputs = padded(rows)
    del inputs["labels"]
    model.base_model(**inputs)  # as loss heads have it: OPT's logits are of its decoder, and stay padded
    assert shapes[-1] == (1, sum(LENGTHS))
    return "Rows"


def expected_of(family: str) -> str:
    return "Masks" if family in MASKED.split() else "Rows"


@pytest.mark.parametrize(
    ("asked", "on", "kernel", "why"),
    [
        (AttentionNeeds(2, head=128), H100, "Varlen", "takes all"),
        (AttentionNeeds(2, head=128), replace(H100, capability=None), "Rows", "a CPU"),
        (AttentionNeeds(2, head=128), replace(H100, capability=(7, 5)), "Rows", "the card has 7.5"),
        (AttentionNeeds(2, head=128), replace(H100, half=False), "Rows", "bfloat16"),
        (AttentionNeeds(2, head=128), replace(H100, varlen=False), "Rows", "no varlen_attn"),
        (AttentionNeeds(2, head=256), replace(H100, capability=(8, 6)), "Rows", "heads of up to 192"),
        (AttentionNeeds(2, head=256), H100, "Varlen", ""),
        (AttentionNeeds(2, head=20, is_odd=True), H100, "Rows", "multiples of 8"),
        (AttentionNeeds(2, frozenset({"dropout"}), 64), H100, "Rows", "dropout"),
        (AttentionNeeds(2, frozenset({"softcap"}), 64), H100, "Flex", "softcap"),
        (AttentionNeeds(2, frozenset({"sinks"}), 64), replace(H100, half=False), "Flex", "sinks"),
        (AttentionNeeds(2, frozenset({"sinks"}), 64), replace(H100, capability=(7, 5)), "Masks", "sinks"),
        (AttentionNeeds(2, frozenset({"softcap", "dropout"}), 64), H100, "Masks", "softcap"),
        (AttentionNeeds(2, frozenset({"biases"}), 64), H100, "Masks", "biases"),
        (AttentionNeeds(2, head=64, own_mask=True), H100, "Flex", "mask of its own"),
        (AttentionNeeds(2, head=64, own_mask=True), replace(H100, capability=None), "Masks", "mask"),
        (AttentionNeeds(2, frozenset({"softcap"}), 256), H100, "Flex", "softcap"),
        (AttentionNeeds(2, frozenset({"softcap"}), 256), replace(H100, capability=(8, 9)), "Masks", "shared memory"),
        (AttentionNeeds(2, frozenset({"softcap"}), 128), replace(H100, capability=(8, 9)), "Flex", "softcap"),
        (AttentionNeeds(2, frozenset({"softcap", "dropout"}), 64), replace(H100, capability=None), "Masks", "dropout"),
        (AttentionNeeds(2, frozenset({"sinks"}), 64), replace(H100, capability=None), "Rows", "a CPU"),
        (AttentionNeeds(2, frozenset({"dropout"}), 64), replace(H100, capability=None), "Rows", "a CPU"),
        (AttentionNeeds(), H100, "Masks", "interface"),
    ],
)
def test_the_kernel_is_the_fastest_that_computes_what_the_model_asks(
    asked: AttentionNeeds, on: AttentionDevice, kernel: str, why: str
) -> None:
    found = attention.choose(asked, on)
    assert found.kernel == kernel
    assert why in found.why
    assert len(f"{found.kernel}: {found.why}") < 253  # as status.resolved holds it


def test_a_window_is_that_of_the_mask() -> None:
    import torch
    from transformers import masking_utils

    window = masking_utils.sliding_window_causal_mask_function(64)
    assert attention.window_of(masking_utils.causal_mask_function) == attention.FAR
    assert attention.window_of(window) == 64
    assert attention.window_of(masking_utils.bidirectional_mask_function) is None
    chunked = masking_utils.chunked_causal_mask_function(100, torch.zeros(1, dtype=torch.int64))
    assert attention.window_of(chunked) is None


def test_the_reference_takes_what_torch_takes() -> None:
    import inspect

    from torch.nn.attention import varlen

    ours, theirs = (inspect.signature(x).parameters for x in (reference_varlen.varlen_attn, varlen.varlen_attn))
    more = {"dropout", "softcap", "sinks", "lengths"}
    for name in ours.keys() - more:
        assert (ours[name].kind, ours[name].default) == (theirs[name].kind, theirs[name].default)
    assert list(ours)[:7] == list(theirs)[:7]


def test_a_layer_that_is_computed_again_attends_so_again() -> None:
    model, rows = every_family.build(every_family.config("llama")), ids_of()
    expected = learned(model, [padded([row]) for row in rows])
    model.train()
    model.gradient_checkpointing_enable()
    for kernel in (AttentionKernel.ROWS, AttentionKernel.VARLEN):
        assert_alike(learned(model, [batch_of(rows)], AttentionChoice(kernel, "a test")), expected)
    assert model.config._attn_implementation == "sdpa"


def test_rows_in_bfloat16_are_as_near_as_rounding_allows() -> None:
    import torch

    model, rows = every_family.build(every_family.config("llama")).to(torch.bfloat16), ids_of()
    (loss, gradient), (its_loss, its_gradient) = (
        learned(model, batches) for batches in ([batch_of(rows)], [padded([row]) for row in rows])
    )
    assert abs(loss - its_loss) <= 1e-2 * its_loss
    assert torch.nn.functional.cosine_similarity(gradient.float(), its_gradient.float(), dim=0) > 0.999


@pytest.mark.parametrize(
    ("packing", "kernel"),
    [(False, AttentionKernel.ROWS), (True, AttentionKernel.ROWS), (False, AttentionKernel.VARLEN)],
)
def test_a_run_learns_the_same_end_to_end_as_one_row_a_pass(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch, packing: bool, kernel: str
) -> None:
    used: list[int] = []
    kernel_of_rows = reference_varlen.varlen_attn
    monkeypatch.setattr(
        reference_varlen, "varlen_attn", lambda *a, **k: used.append(len(a[3])) or kernel_of_rows(*a, **k)
    )
    if kernel == "Varlen":
        monkeypatch.setattr(attention, "card", lambda _: H100)
    fields = {"maxSteps": 4, "packing": packing, "maxLength": 128}
    flat_plan = make_plan("flat", training=fields)
    result = runs.finish(flat_plan)
    assert str(result.resolved["attention"]).startswith(f"{kernel}: ")
    assert max(used) > 2  # the bounds of more than one row
    with monkeypatch.context() as patch:
        patch.setattr(model_check, "attention_of", lambda _: AttentionChoice(AttentionKernel.MASKS, "a test"))
        apart_plan = make_plan("apart", training=fields | ({} if packing else {"microBatchSize": 1}))
        runs.finish(apart_plan)
    for (_, loss, norm), (_, expected, its_norm) in zip(runs.curve(flat_plan), runs.curve(apart_plan), strict=True):
        assert (loss, norm) == pytest.approx((expected, its_norm), rel=1e-4)


def test_the_bounds_of_rows_are_where_the_model_is(runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for rows that a rank lacks comes from no loader, so the loop moves what a pass gets itself."""
    from transformers import Trainer

    moved: list[Any] = []
    seen: list[bool] = []
    prepare, by_row = Trainer._prepare_inputs, attention.by_row
    monkeypatch.setattr(
        Trainer, "_prepare_inputs", lambda self, inputs: moved.append(prepare(self, inputs)) or moved[-1]
    )

    def watched(config: Any, choice: AttentionChoice, inputs: Any, *group: Any) -> Any:
        if "labels" in inputs:  # of training; a look at the model has none
            seen.append(any(inputs is one for one in moved))
        return by_row(config, choice, inputs, *group)

    monkeypatch.setattr(attention, "by_row", watched)
    runs.finish(make_plan(held_out=False, training={"maxSteps": 1}))
    assert seen
    assert all(seen)


def test_bounds_on_another_device_are_refused() -> None:
    import torch

    rows = attention.PassRows.of(torch.tensor([0, 4], dtype=torch.int32), 4, AttentionKernel.VARLEN)
    query = torch.zeros(1, 2, 4, 8, device="meta")
    with pytest.raises(AssertionError, match="bounds of the rows are on cpu, and the queries on meta"):
        attention.attend(rows, None, query, query, query, None)


def test_a_pass_beyond_the_context_for_which_memory_does_not_suffice_is_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look = replace(look_at(every_family.build(every_family.config("llama"))), beyond=200)
    one_pass, asked = Look.one_pass, []

    def spent(self: Look, network: Any, rows: list[list[int]], choice: AttentionChoice) -> Any:
        if sum(map(len, rows)) < 200:
            return one_pass(self, network, rows, choice)
        asked.append(rows)
        raise MemoryError

    monkeypatch.setattr(Look, "one_pass", spent)
    assert why_mixed(look, ROWS) is None
    assert len(asked) == 1
    with pytest.raises(MemoryError):
        why_mixed(replace(look, sharded=True), ROWS)


def test_a_look_beyond_the_context_is_for_passes_that_training_has() -> None:
    """A row may have maxLength tokens, and none has: passes are then shorter than the context."""
    import torch

    sizes = RunSettings(1, 4, 1, 4096, 1, 0.1, 0, 1, 1, 1, bf16=False, cpu=True, longest=100)
    run = SimpleNamespace(
        rows=[],
        base=SimpleNamespace(context=8192),
        settings=sizes,
        plan=SimpleNamespace(shards_weights=False),
        method=SimpleNamespace(head="LanguageModel"),
    )
    assert Look.of(run, None, torch.device("cpu")).beyond == 0
    run.settings = replace(sizes, longest=0)
    assert Look.of(run, None, torch.device("cpu")).beyond == 8193


def test_a_kernel_whose_gradient_is_wrong_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a card asks: on a CPU no gradient is looked at."""
    import torch

    model = every_family.build(every_family.config("llama"))
    look = replace(look_at(model), long=256)
    kernel, lengths = reference_varlen.varlen_attn, []

    def noted(query: Any, *others: Any, **options: Any) -> Any:
        lengths.append(options["lengths"])
        return kernel(query, *others, **options)

    monkeypatch.setattr(reference_varlen, "varlen_attn", noted)
    assert why_mixed(look, ROWS) is None
    assert lengths[-1] == [256, 20, 9]
    assert all(weight.grad is None for weight in model.parameters())

    def of_short_rows(query: Any, *others: Any, **options: Any) -> Any:
        result = kernel(query, *others, **options)
        late = torch.arange(len(result))[:, None, None] >= 128
        return torch.where(late, result.detach() - result + result.detach(), result)

    monkeypatch.setattr(reference_varlen, "varlen_attn", of_short_rows)
    assert why_mixed(replace(look, long=0), ROWS) is None
    assert why_mixed(look, ROWS) == "in one pass, rows of llama change each other"

    def refuses(query: Any, *others: Any, **options: Any) -> Any:
        if len(query) > 128 and query.requires_grad:
            raise RuntimeError("out of resource: shared memory")
        return kernel(query, *others, **options)

    monkeypatch.setattr(reference_varlen, "varlen_attn", refuses)
    assert "out of resource" in str(why_mixed(look, ROWS))


def test_keys_are_not_shared_where_that_takes_attention_off_the_fast_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    heads: list[tuple[int, int]] = []
    sdpa = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda query, key, *others, **options: (
            heads.append((key.shape[1], options["attn_mask"] is not None)) or sdpa(query, key, *others, **options)
        ),
    )
    query, key = torch.randn(40, 4, 8), torch.randn(40, 2, 8)
    bounds = torch.tensor([0, 40], dtype=torch.int32)
    for window in (-1, 7):
        reference_varlen.varlen_attn(query, key, key, bounds, bounds, 40, 40, window_size=(window, 0), enable_gqa=True)
    assert heads == [(2, False), (4, True)]


def test_ranks_try_the_kernels_that_all_of_them_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card from Ampere on, and an older one."""
    monkeypatch.setattr(
        ranks, "add_up", lambda mine: [one + other for one, other in zip(mine, (0, 0, 1, 1), strict=True)]
    )
    monkeypatch.setattr(model_check, "attention_of", lambda _: AttentionChoice(AttentionKernel.VARLEN, "a test"))
    tried: list[str] = []
    monkeypatch.setattr(model_check, "why_mixed", lambda _, choice: tried.append(choice.kernel))
    choice, why = model_check.choose_attention(look_at(None))
    assert (tried, choice.kernel, why) == ([AttentionKernel.ROWS], AttentionKernel.ROWS, "")
    assert "another rank" in choice.why
    monkeypatch.setattr(
        ranks, "add_up", lambda mine: [one + other for one, other in zip(mine, (0, 1, 0, 1), strict=True)]
    )
    choice, _ = model_check.choose_attention(look_at(None))
    assert choice.kernel == AttentionKernel.MASKS
    assert "another rank" in choice.why


def test_a_look_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Look) -> AttentionNeeds:
        raise ValueError("no such interface")

    monkeypatch.setattr(Look, "asked", fails)
    assert (
        "ValueError: no such interface" in attention_of(look_at(every_family.build(every_family.config("llama")))).why
    )


@pytest.mark.parametrize(("adapter", "form"), [("LoRA", "adapter"), ("None", "full")])
def test_a_cpu_that_multiplies_in_bfloat16_trains_in_it(runs: Any, make_plan: Any, adapter: str, form: str) -> None:
    if not device.here().bf16:
        pytest.skip("this CPU does not multiply in bfloat16")
    exact, rounded = (
        make_plan(precision, training={"precision": precision}, adapter={"type": adapter})
        for precision in ("Float32", "BFloat16")
    )
    for plan in (exact, rounded):
        runs.finish(plan)
    report = json.loads((Path(rounded.output_path) / form / "report.json").read_text())
    assert report["resolved"]["precision"] == "BFloat16"
    for (_, loss, _), (_, expected, _) in zip(runs.curve(rounded, form), runs.curve(exact, form), strict=True):
        assert loss == pytest.approx(expected, rel=1e-2)
