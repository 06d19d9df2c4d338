"""QLoRA: the gradient goes through 4-bit weights, on every processor, and what is trained is held in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.runs import method_plans

from hone_dev.models import repacking
from hone_trainer.errors import TrainerError
from hone_trainer.models import base_model, quantized

pytestmark = pytest.mark.trainer
QLORA = {"type": "QLoRA"}


def pretend(processor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have bitsandbytes take this processor for another one, or skip the test where its own cannot repack."""
    if processor == "simulated":
        repacking.simulate(monkeypatch.setattr)
    elif processor == "without AVX512-BF16":
        repacking.prevent(monkeypatch.setattr)
    elif not repacking.has_instructions():
        pytest.skip("this processor has no AVX512-BF16")


@pytest.fixture(params=["the processor's", "simulated"])
def repacking_processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor on which bitsandbytes repacks 4-bit weights: this one, or any one with the same steps in Python."""
    pretend(request.param, monkeypatch)


@pytest.fixture(params=["the processor's", "simulated", "without AVX512-BF16"])
def any_processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that repacks, or one that does not."""
    pretend(request.param, monkeypatch)


def loss_of(result: Any) -> tuple[float, float]:
    (found,) = [number for number in result.numbers if number.name == "loss"]
    return float(found.base), float(found.tuned)


def gradients(folder: Path, *, dequantise: bool) -> Any:
    """Of every adapter, for one batch, after a pass in evaluation mode."""
    import torch
    from peft import LoraConfig, get_peft_model

    net = base_model.load(base_model.open_base(folder), bf16=False, cpu=True, quantize=True, frozen=True)
    net = net.dequantize() if dequantise else net
    tuned = get_peft_model(net, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn_like(weight) * 0.05
    ids = torch.randint(5, 200, (2, 17))
    with torch.no_grad():
        tuned.eval()(input_ids=ids)
    tuned.train()(input_ids=ids, labels=ids).loss.backward()
    return torch.cat([weight.grad.flatten() for _, weight in sorted(tuned.named_parameters()) if weight.requires_grad])


@pytest.mark.usefixtures("repacking_processor")
def test_the_gradient_of_a_batch_after_an_evaluation_is_that_of_the_dequantised_model(tiny_model: Path) -> None:
    import torch

    through, expected = (gradients(tiny_model, dequantise=dequantise) for dequantise in (False, True))
    assert float(torch.nn.functional.cosine_similarity(through, expected, dim=0)) > quantized.AGREE
    torch.testing.assert_close(through, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.usefixtures("repacking_processor")
@pytest.mark.parametrize("held_out", [True, False])
def test_a_gradient_that_is_cut_ends_the_run_before_the_first_step(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch, held_out: bool
) -> None:
    """Also where nothing is evaluated before it: an evaluation comes later."""
    monkeypatch.setattr(quantized, "keep_layout", lambda network: None)
    plan = make_plan(adapter=QLORA, held_out=held_out)
    with pytest.raises(TrainerError, match=r"the 4-bit layer .*q_proj.* on cpu does not agree") as caught:
        runs.finish(plan)
    assert (caught.value.code, caught.value.exit_code) == ("GradientMismatch", 1)
    assert not list(Path(plan.work_path).glob("checkpoints/step-*"))


@pytest.mark.usefixtures("any_processor")
def test_it_learns_as_lora_does_with_a_held_out_split(runs: Any, make_plan: Any) -> None:
    """Held-out loss within 5 %, and the same number of nats won within 5 %."""
    found = {
        kind: loss_of(
            runs.finish(make_plan(kind, adapter={"type": kind}, training={"maxSteps": 24, "learningRate": "1e-2"}))
        )
        for kind in ("LoRA", "QLoRA")
    }
    (base, lora), (base_of_4_bits, qlora) = found["LoRA"], found["QLoRA"]
    assert lora < 0.9 * base
    assert qlora <= 1.05 * lora
    assert base_of_4_bits - qlora >= 0.95 * (base - lora)


@pytest.mark.parametrize(
    ("adapter", "variant"),
    [
        *(("QLoRA", variant) for variant in method_plans.VARIANTS),
        *((adapter, method) for adapter in ("LoRA", "DoRA") for method in ("SFT", "Reward")),
    ],
)
def test_what_is_trained_and_its_optimizer_are_float32(
    runs: Any,
    make_plan: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_model: Path,
    adapter: str,
    variant: str,
) -> None:
    """In the model and in the optimizer's state, at the first checkpoint."""
    import torch

    from hone_trainer.training.loop import Loop

    seen: dict[str, set[Any]] = {}

    class Seen(Exception):  # noqa: N818 - not an error
        """Enough was seen."""

    def look(self: Any, *_: Any) -> None:
        state = [value for slots in self.optimizer.state.values() for value in slots.values()]
        seen["optimizer"] = {value.dtype for value in state if torch.is_tensor(value) and value.numel() > 1}
        seen["weights"] = {weight.dtype for weight in self.model.parameters() if weight.requires_grad}
        raise Seen

    plan = method_plans.plan_of(
        make_plan, variant, tmp_path, tiny_model, adapter={"type": adapter}, checkpoints={"everySteps": 1}
    )
    monkeypatch.setattr(Loop, "_save_checkpoint", look)
    with pytest.raises(Seen):
        runs.finish(plan)
    assert seen == {"optimizer": {torch.float32}, "weights": {torch.float32}}


@pytest.mark.parametrize("at", [2, 3])
def test_a_resumed_run_exports_the_same_bytes(runs: Any, make_plan: Any, interrupt: Any, at: int) -> None:
    import torch

    common = {"adapter": QLORA, "training": {"maxSteps": 6}, "checkpoints": {"everySteps": 2}}
    whole, broken = make_plan("whole", **common), make_plan("broken", **common)
    runs.finish(whole)
    interrupt(broken, at - at % 2)
    runs.finish(broken)
    assert runs.curve(broken) == runs.curve(whole)
    files = [Path(plan.output_path) / "adapter" / "adapter_model.safetensors" for plan in (whole, broken)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert {tensor.dtype for tensor in load_file(files[0]).values()} == {torch.float32}


@pytest.fixture(scope="session")
def saved_in_4_bits(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a base whose weights are 4-bit already."""
    folder, opened = tmp_path_factory.mktemp("bnb") / "base", base_model.open_base(tiny_model)
    base_model.load(opened, bf16=False, cpu=True, quantize=True, frozen=True).save_pretrained(folder)
    opened.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("repacking_processor")
def test_lora_on_a_base_of_4_bits_learns_as_qlora_does(runs: Any, make_plan: Any, saved_in_4_bits: Path) -> None:
    plans = [make_plan(kind, modelPath=str(saved_in_4_bits), adapter={"type": kind}) for kind in ("QLoRA", "LoRA")]
    for plan in plans:
        runs.finish(plan)
    assert runs.curve(plans[1]) == runs.curve(plans[0])


def test_a_base_of_4_bits_is_not_trained_in_full(runs: Any, make_plan: Any, saved_in_4_bits: Path) -> None:
    with pytest.raises(TrainerError, match=r"adapter\.type None: the base was saved in 4 or 8 bits") as caught:
        runs.finish(make_plan(modelPath=str(saved_in_4_bits), adapter={"type": "None"}))
    assert caught.value.code == "ModelUnsuitable"
