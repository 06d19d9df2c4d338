"""Passes of padded rows that compute their tokens alone: the same outputs, losses and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.models import every_family
from support.runs import method_plans

from hone_trainer.errors import TrainerError
from hone_trainer.evaluation import scoring_model
from hone_trainer.models import base_model
from hone_trainer.training.batches import unpadded
from hone_trainer.training.batches.attention import AttentionChoice, AttentionKernel
from hone_trainer.training.batches.unpadded import Places, Unpadded
from hone_trainer.training.loop import Loop

pytestmark = pytest.mark.trainer
ROWS = AttentionChoice(AttentionKernel.ROWS, "a test")
LENGTHS = (30, 9, 1, 17)
FULL = {"adapter": {"type": "None"}}


def batch(side: str = "right") -> dict[str, Any]:
    import torch

    make = torch.Generator().manual_seed(2)
    ids, mask = torch.zeros(len(LENGTHS), max(LENGTHS) + 2, dtype=torch.int64), None
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        own = slice(length) if side == "right" else slice(ids.shape[1] - length, None)
        ids[row, own], mask[row, own] = torch.randint(3, 500, (length,), generator=make), 1
    return {"input_ids": ids, "attention_mask": mask}


def llama() -> Any:
    return every_family.build(every_family.config("llama"))


@pytest.mark.parametrize(
    ("variant", "block", "experts"),
    [
        ("DPO", {}, False),
        ("DPO", FULL, False),
        ("DPO", {}, True),
        ("KTO", {}, False),
        ("ORPO", {}, True),
        ("Reward", {}, False),
        ("Distillation", {}, False),
        ("GRPO", {}, False),
        ("PPO", {}, False),
    ],
)
def test_every_method_learns_what_it_learns_of_padded_rows(
    runs: Any,
    make_plan: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_model: Path,
    experts_model: Path,
    variant: str,
    block: dict[str, Any],
    experts: bool,
) -> None:
    attach, padding, gradients = Loop.attach, list[float](), list[float]()

    def compared(self: Any, *args: Any) -> None:
        attach(self, *args)
        theirs, without = self.compute_loss, self.run.unpadded

        def compute_loss(model: Any, inputs: Any, **options: Any) -> Any:
            body = unpadded.body_of(self.model)
            body.forward = without._padded
            expected = learned(self.model, theirs(model, copied(inputs), **options))
            body.forward = without._forward
            loss = theirs(model, copied(inputs), **options)
            found = learned(self.model, loss)
            assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-6)
            largest = expected[1].abs().max()
            assert (found[1] - expected[1]).abs().max() <= 1e-5 * largest
            gradients.append(float(largest))
            return loss

        vars(self)["compute_loss"] = compute_loss

    of = Places.of

    def noted(mask: Any) -> Places:
        padding.append(1 - float(mask.float().mean()))
        return of(mask)

    monkeypatch.setattr(Loop, "attach", compared)
    monkeypatch.setattr(Places, "of", noted)
    model = experts_model if experts else tiny_model
    training = {"maxSteps": 2, "microBatchSize": 4}
    plan = method_plans.plan_of(make_plan, variant, tmp_path, model, training=training, modelPath=str(model), **block)
    result = runs.finish(plan)
    assert str(result.resolved["attention"]).startswith("Rows: ")
    assert len(gradients) >= 2
    assert max(gradients) > 0
    assert max(padding) > 0


def learned(model: Any, loss: Any) -> tuple[float, Any]:
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return float(loss), torch.cat([gradient.flatten() for gradient in found if gradient is not None])


def copied(inputs: Any) -> Any:
    return dict(inputs) if isinstance(inputs, Mapping) else inputs


@pytest.mark.parametrize("side", ["right", "left"])
def test_outputs_have_the_shape_and_the_values_of_padded_rows(side: str) -> None:
    import torch

    model, inputs = llama(), batch(side)
    mask = inputs["attention_mask"].bool()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    options = {**inputs, "position_ids": positions, "output_hidden_states": True}
    with torch.no_grad():
        expected = model(**options)
        Unpadded(model, ROWS)
        found = model(**options)
    for one, other in zip(
        (found.logits, *found.hidden_states), (expected.logits, *expected.hidden_states), strict=True
    ):
        assert one.shape == other.shape
        assert torch.allclose(one[mask], other[mask], atol=1e-5)
    assert found.hidden_states[-1][~mask].abs().max() == 0


def test_passes_with_a_cache_are_as_they_were() -> None:
    model, inputs = llama(), batch("left")
    expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    Unpadded(model, ROWS)
    assert model.generate(**inputs, max_new_tokens=4, do_sample=False).tolist() == expected.tolist()


def test_a_classifier_reads_the_last_token_of_each_row() -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(every_family.config("llama"), dtype=torch.float32).eval()
    inputs = batch()
    expected = model(**inputs).logits
    Unpadded(model, ROWS)
    assert torch.allclose(model(**inputs).logits, expected, atol=1e-6)


def test_layers_run_again_in_the_backward_pass_with_the_rows_of_their_own_pass() -> None:
    """The reference of DPO and KTO reads other rows between a pass and its backward pass."""
    import torch

    model, inputs = llama().train(), batch()
    other = {name: value[:, 1:].flip(0) for name, value in inputs.items()}
    full = {"input_ids": inputs["input_ids"][:1, :20].repeat(2, 1), "attention_mask": torch.ones(2, 20).long()}
    with torch.no_grad():
        of_full = model(**full, use_cache=False).logits

    def gradient() -> Any:
        model.zero_grad()
        loss = model(**inputs, use_cache=False).logits[inputs["attention_mask"].bool()].square().sum()
        with torch.no_grad():
            model(**other, use_cache=False)
            assert torch.allclose(model(**full, use_cache=False).logits, of_full, atol=1e-5)
        loss.backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    expected = gradient()
    model.gradient_checkpointing_enable()
    without = Unpadded(model, ROWS)
    with without.with_backward():
        found = gradient()
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert model.config._attn_implementation == "sdpa"
    with without.with_backward():
        model(**inputs, use_cache=False)
        with pytest.raises(TrainerError, match="activationCheckpointing to None"):
            model(**other, use_cache=False)


@pytest.mark.parametrize("head", ["LanguageModel", "Reward"])
def test_a_model_that_only_scores_computes_no_padding(tiny_model: Path, head: base_model.Head) -> None:
    """As `hone_trainer evaluate` and evaluation.against load it."""
    import torch

    opened = base_model.open_base(tiny_model)
    network = scoring_model.load(opened, bf16=False, frozen=True, quantize=False, head=head).eval()
    body, rows, widths = unpadded.body_of(network), batch(), list[tuple[int, ...]]()
    rows["input_ids"][rows["attention_mask"] == 0] = opened.tokenizer.pad_token_id
    body.layers[0].register_forward_pre_hook(lambda _, inputs: widths.append(tuple(inputs[0].shape[:2])))
    with torch.no_grad():
        found = network(**rows, use_cache=False).logits
        del body.forward
        expected = network(**rows, use_cache=False).logits
    assert widths == [(1, sum(LENGTHS)), tuple(rows["input_ids"].shape)]
    read = rows["attention_mask"].bool() if head == "LanguageModel" else slice(None)
    assert (found[read] - expected[read]).abs().max() <= 1e-5 * expected.abs().max()
