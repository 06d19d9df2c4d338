"""Rows end to end on a CPU: the loss and gradients of one row at a time, for each family that is trusted with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone_trainer import device
from hone_trainer.training.batches import row_attention

pytestmark = pytest.mark.trainer

LENGTHS = (5, 17, 1, 200, 40)
"""Of rows; one is longer than row_attention.SHORT."""
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
OPEN = {"mistral": {"sliding_window": None}, "phi3": {"sliding_window": None}}
"""What a family's default config has against it."""


def config_of(family: str, **more: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(family, **{**SIZES, **OPEN.get(family, {}), **more})


def network(config: Any, dtype: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=dtype)


def rows(vocabulary: int) -> list[Any]:
    import torch

    make = torch.Generator().manual_seed(1)
    return [torch.randint(1, vocabulary, (1, length), generator=make) for length in LENGTHS]


def flat(model: Any, ids: list[Any], checkpointing: bool = False) -> tuple[Any, Any]:
    """Logits of all rows in one pass, and the gradient of a sum over them at the embedding."""
    import torch

    if checkpointing:
        model.train()
        model.gradient_checkpointing_enable()
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    model.zero_grad()
    with row_attention.by_row(model.config):
        logits = model(
            torch.cat(ids, 1), position_ids=positions, cu_seq_lens_q=bounds, cu_seq_lens_k=bounds, use_cache=False
        ).logits[0]
        logits.float().square().sum().backward()
    return logits.detach(), model.get_input_embeddings().weight.grad.clone()


def apart(model: Any, ids: list[Any]) -> tuple[Any, Any]:
    """The same, one row after the other."""
    import torch

    model.zero_grad()
    logits = torch.cat([model(row, use_cache=False).logits[0] for row in ids])
    logits.float().square().sum().backward()
    return logits.detach(), model.get_input_embeddings().weight.grad.clone()


@pytest.mark.parametrize("family", sorted(row_attention.FAMILIES))
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_every_family_computes_as_if_each_row_were_alone(family: str, dtype: str, tolerance: float) -> None:
    import torch

    config = config_of(family)
    assert row_attention.fits(config)
    model = network(config, getattr(torch, dtype))
    ids = rows(config.vocab_size)
    for found, expected in zip(flat(model, ids), apart(model, ids), strict=True):
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    assert model.config._attn_implementation == "sdpa"


def test_a_layer_that_is_computed_again_attends_so_again() -> None:
    import torch

    model = network(config_of("llama"), torch.float32)
    ids = rows(96)
    _, expected = apart(model, ids)
    _, found = flat(model, ids, checkpointing=True)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("mistral", {"sliding_window": 64}),
        ("phi3", {"sliding_window": 64}),
        ("gemma2", {}),
        ("mamba", {}),
        ("gpt2", {}),
    ],
)
def test_other_attention_is_left_to_transformers(family: str, more: dict[str, Any]) -> None:
    from transformers import AutoConfig

    assert not row_attention.fits(AutoConfig.for_model(family, **more))


@pytest.mark.parametrize("packing", [False, True])
def test_a_run_learns_the_same_end_to_end_as_one_row_a_pass(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch, packing: bool
) -> None:
    used: list[int] = []
    attend = row_attention.attend
    monkeypatch.setattr(
        row_attention, "attend", lambda *a, **k: used.append(len(k["cu_seq_lens_q"])) or attend(*a, **k)
    )
    fields = {"maxSteps": 4, "packing": packing, "maxLength": 128}
    flat_plan = make_plan("flat", training=fields)
    runs.finish(flat_plan)
    assert max(used) > 2  # the bounds of more than one row
    with monkeypatch.context() as patch:
        patch.setattr(row_attention, "fits", lambda _: False)
        apart_plan = make_plan("apart", training=fields | ({} if packing else {"microBatchSize": 1}))
        runs.finish(apart_plan)
    for (_, loss, norm), (_, expected, its_norm) in zip(runs.curve(flat_plan), runs.curve(apart_plan), strict=True):
        assert (loss, norm) == pytest.approx((expected, its_norm), rel=1e-4)


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
