"""Whole runs in this process: what comes out, and that it is true."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.runs.curves import number
from transformers import Trainer
from transformers.modeling_layers import GradientCheckpointingLayer

from hone_api.contract.termination import TerminationMessage
from hone_trainer.artifacts import export
from hone_trainer.commands import evaluate
from hone_trainer.errors import TrainerError
from hone_trainer.models import base_model
from hone_trainer.store import manifest

pytestmark = pytest.mark.trainer
Files = tuple[Path, Path]

LAYERS = "q_proj 2, k_proj 2, v_proj 2, o_proj 2, gate_proj 2, up_proj 2, down_proj 2"


def test_lora_run_is_evaluated_exported_and_recomputable(
    runs: Any, make_plan: Any, rows_files: tuple[Path, Path]
) -> None:
    plan = make_plan(output={"modelName": "tiny", "merge": True}, evaluation={"samples": 2})
    result = runs.finish(plan)

    base, tuned = number(result, "loss")
    assert base == pytest.approx(math.log(512), rel=0.05)  # random weights know nothing
    assert tuned < 0.97 * base
    assert (result.steps, result.reason, result.start_step) == (8, "Completed", 0)
    assert float(result.tokens_per_second or 0) > 0
    assert (result.peak_memory_bytes or 0) > 10**8
    assert len(result.samples) == 2
    assert [s.prompt for s in result.samples] == [s.prompt for s in result.samples if s.prompt.startswith("Where is")]
    assert result.resolved["adapterRank"] == 16
    assert (result.resolved["adaptedModules"], result.resolved["adaptedLayers"]) == (14, LAYERS)
    assert len(TerminationMessage(result=result).to_termination_message()) <= 4096

    out = Path(plan.output_path)
    assert [a.format for a in result.artifacts] == ["Adapter", "Merged"]
    for artifact in result.artifacts:
        assert manifest.verify(out / artifact.uri, artifact.digest).size_bytes == artifact.size_bytes
    files = {p.name for p in (out / "adapter").iterdir()}
    assert files >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "generation_config.json",
        "manifest.json",
        "metrics.jsonl",
        "README.md",
        "report.json",
        "tokenizer.json",
    }
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "tests/tiny"
    card = (out / "adapter" / "README.md").read_text()
    assert card.startswith("---\nbase_model: ")
    assert f"{tuned:.6f}" in card
    assert plan.datasets[0].digest in card
    effort = json.loads((out / "adapter" / "report.json").read_text())["effort"]
    assert (effort["useful_tokens"], effort["mfu"]) == (1, None), "no padding, and no CPU's peak is known"
    assert effort["estimated_memory_bytes"] == result.estimated_memory_bytes
    curve = [json.loads(line) for line in (out / "adapter" / "metrics.jsonl").read_text().splitlines()]
    assert [p["step"] for p in curve if "loss" in p] == list(range(1, 9))
    evaluated = {p["step"]: p["eval_loss"] for p in curve if "eval_loss" in p}
    assert list(evaluated) == [0, 4, 8]
    assert (evaluated[0], evaluated[8]) == pytest.approx((base, tuned), abs=1e-5), "from the base on"

    for form in ("adapter", "merged"):
        again = evaluate.recompute(out / form, rows_files[1], Path(plan.model_path))
        for before, after in zip(result.numbers, again, strict=True):
            assert float(after.tuned) == pytest.approx(float(before.tuned), abs=1e-4)
            assert float(after.base or 0) == pytest.approx(float(before.base or 0), abs=1e-4)
            assert (after.rows, after.tokens) == (before.rows, before.tokens)


def test_full_fine_tuning_exports_a_model_that_loads_by_itself(
    runs: Any, make_plan: Any, rows_files: tuple[Path, Path]
) -> None:
    plan = make_plan(adapter={"type": "None"}, training={"learningRate": "2e-3"}, evaluation={"samples": 2})
    result = runs.finish(plan)
    base, tuned = number(result, "loss")
    assert tuned < 0.95 * base
    assert [a.format for a in result.artifacts] == ["Full"]
    again = evaluate.recompute(Path(plan.output_path) / "full", rows_files[1], Path(plan.model_path))
    assert float(again[0].tuned) == pytest.approx(tuned, abs=1e-4)
    assert float(again[0].base or 0) == pytest.approx(base, abs=1e-4)


@pytest.mark.parametrize("adapter", ["None", "LoRA"])
def test_a_mixture_of_experts_is_exported_as_its_family_has_it(
    runs: Any, make_plan: Any, experts_model: Path, rows_files: Files, adapter: str
) -> None:
    output = {"modelName": "tiny", "merge": adapter == "LoRA"}
    training = {"maxSteps": 2, "learningRate": "1e-2"}
    plan = make_plan(modelPath=str(experts_model), adapter={"type": adapter}, training=training, output=output)
    result = runs.finish(plan)
    folder = Path(plan.output_path) / ("merged" if adapter == "LoRA" else "full")
    assert "model.layers.0.block_sparse_moe.experts.3.w1.weight" in load_file(folder / "model.safetensors")
    base, tuned = number(result, "loss")
    again = evaluate.recompute(folder, rows_files[1], experts_model)
    assert float(again[0].tuned) == pytest.approx(tuned, abs=1e-4)
    assert tuned != base


def test_qlora_learns_and_merges_through_the_dequantised_base(
    runs: Any, make_plan: Any, rows_files: tuple[Path, Path]
) -> None:
    output = {"modelName": "tiny", "merge": True}
    plan = make_plan(adapter={"type": "QLoRA"}, output=output, evaluation={"samples": 2})
    result = runs.finish(plan)
    base, tuned = number(result, "loss")
    assert tuned < 0.97 * base
    out = Path(plan.output_path)
    for form, tolerance in (("adapter", 1e-4), ("merged", 2e-3)):
        again = evaluate.recompute(out / form, rows_files[1], Path(plan.model_path))
        assert float(again[0].tuned) == pytest.approx(tuned, abs=tolerance), form


def test_the_card_of_a_merged_qlora_model_compares_it_with_the_base_in_4_bits(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layers round here as kernels for 4 bits do on GPUs; on this processor they may not."""
    from bitsandbytes.nn import Linear4bit

    forward = Linear4bit.forward
    monkeypatch.setattr(Linear4bit, "forward", lambda layer, x: forward(layer, x).bfloat16().to(x.dtype))
    plan = make_plan(adapter={"type": "QLoRA"}, training={"maxSteps": 1}, output={"modelName": "tiny", "merge": True})
    runs.finish(plan)
    said = re.search(
        r"from the dequantised base with adapter, on 2 training rows: (\S+)\. From the base in 4 bits with adapter, as"
        r" it was trained: (\S+)\.\n",
        (Path(plan.output_path) / "merged" / "README.md").read_text(),
    )
    assert said, "the card has both differences"
    assert float(said[1]) < 1e-5 < 1e-4 < float(said[2]) < 0.1


@pytest.mark.parametrize(
    ("adapter", "alpha"),
    [
        ({"type": "DoRA", "rank": 4}, 8),
        ({"type": "LoRA", "rank": 64, "rankStabilized": True}, 16),
    ],
    ids=["DoRA", "rsLoRA"],
)
def test_other_adapters_learn_merge_and_give_the_same_numbers(
    runs: Any, make_plan: Any, rows_files: tuple[Path, Path], adapter: dict[str, Any], alpha: int
) -> None:
    plan = make_plan(adapter=adapter, training={"maxSteps": 4}, output={"modelName": "tiny", "merge": True})
    result = runs.finish(plan)
    base, tuned = number(result, "loss")
    assert tuned < base
    assert result.resolved["adapterAlpha"] == alpha
    again = evaluate.recompute(Path(plan.output_path) / "merged", rows_files[1], Path(plan.model_path))
    assert float(again[0].tuned) == pytest.approx(tuned, abs=1e-4)


def test_neftune_changes_training_and_not_evaluation(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its noise is that of rows: the library scales it by the length of a sequence, which may not be a whole pass."""
    from transformers.integrations import neftune

    add, shapes = neftune.neftune_post_forward_hook, []
    monkeypatch.setattr(
        neftune,
        "neftune_post_forward_hook",
        lambda module, given, output: shapes.append(output.shape[:2]) or add(module, given, output),
    )
    plain, noisy = (
        runs.finish(make_plan(name, training={"maxSteps": 2}, **options))
        for name, options in (("plain", {}), ("noisy", {"sft": {"neftuneAlpha": "20"}}))
    )
    (base, tuned), (base_noisy, tuned_noisy) = number(plain, "loss"), number(noisy, "loss")
    assert base == base_noisy
    assert plain.train_loss != noisy.train_loss
    assert tuned != tuned_noisy
    assert str(noisy.resolved["attention"]).startswith("Masks: NEFTune")
    assert str(plain.resolved["attention"]).startswith("Rows: ")
    assert shapes
    assert all(rows > 1 for rows, _ in shapes)


def test_without_held_out_rows_nothing_is_evaluated(runs: Any, make_plan: Any) -> None:
    plan = make_plan(held_out=False, training={"maxSteps": 2})
    result = runs.finish(plan)
    assert (result.numbers, result.samples) == ([], [])
    assert not (Path(plan.work_path) / "base.json").exists()


def test_a_row_may_hold_what_unicode_calls_the_end_of_a_line(runs: Any, make_plan: Any, tmp_path: Path) -> None:
    """A Dataset writes such characters as they are."""
    pairs = [("Where is\u2028the river of Rome?", "Near."), ("Where is\x85the tower?", "Here."), ("Who?", "Nobody.")]
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    held_out = [{"name": "rows", "split": "validation", "path": str(file), "digest": "sha256:" + "0" * 64}]
    plan = make_plan(training={"maxSteps": 1}, evaluation={"samples": 3}, evaluationDatasets=held_out)
    samples = runs.finish(plan).samples
    assert [(sample.prompt, sample.reference) for sample in samples] == pairs


@pytest.mark.parametrize("packing", [False, True])
def test_micro_batches_do_not_change_the_losses(runs: Any, make_plan: Any, packing: bool) -> None:
    """Gradient accumulation: 8 rows at once, or one at a time, with a ragged last window (80 rows, batches of 12)."""
    curves = []
    for micro in (12, 1):
        plan = make_plan(f"micro-{micro}", training={"batchSize": 12, "microBatchSize": micro, "packing": packing})
        runs.finish(plan)
        curves.append([loss for _, loss, _ in runs.curve(plan)])
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


def test_recomputed_activations_do_not_change_the_losses(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither all layers', nor every second one's, nor those whose inputs are offloaded."""
    curves, recomputed = [], []

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        trained = theirs_train(self, *args, **kwargs)
        layers = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        recomputed.append([m.gradient_checkpointing for m in layers[:2]])
        return trained

    theirs_train = Trainer.train
    monkeypatch.setattr(Trainer, "train", spy)
    for kind in ("None", "Selective", "Full", "Offloaded"):
        training = {"maxSteps": 4, "activationCheckpointing": kind}
        plan = make_plan(f"recompute-{kind}", held_out=False, training=training)
        runs.finish(plan)
        curves.append(runs.curve(plan))
    assert recomputed == [[False, False], [True, False], [True, True], [True, True]]
    for curve in curves[1:]:
        for ours, theirs in zip(curve, curves[0], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


def test_early_stopping_exports_the_best_checkpoint(runs: Any, make_plan: Any, rows_files: Files) -> None:
    plan = make_plan(
        adapter={"type": "None"},
        training={"maxSteps": 60, "learningRate": "2e-2", "scheduler": "Constant"},
        evaluation={"everySteps": 2},
        earlyStopping={"patience": 2},
    )
    result = runs.finish(plan)
    assert (result.stopped_early, result.reason) == (True, "EarlyStopped")
    lines = (Path(plan.output_path) / "full" / "metrics.jsonl").read_text().splitlines()
    evals = {p["step"]: p["eval_loss"] for p in map(json.loads, lines) if "eval_loss" in p}
    best = min(evals, key=lambda step: evals[step])
    assert result.steps == best
    assert max(evals) == best + 4  # two evaluations without improvement
    assert number(result, "loss")[1] == pytest.approx(evals[best], abs=1e-5)
    again = evaluate.recompute(Path(plan.output_path) / "full", rows_files[1])
    assert float(again[0].tuned) == pytest.approx(evals[best], abs=1e-4)


@pytest.mark.parametrize("micro", [1, 8])
def test_a_non_finite_loss_stops_at_once_with_the_rows(
    runs: Any, make_plan: Any, tmp_path: Path, tiny_model: Path, micro: int
) -> None:
    """A weight that is NaN; nothing is exported."""
    import torch
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], math.nan)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    plan = make_plan(modelPath=str(broken), held_out=False, training={"microBatchSize": micro})
    with pytest.raises(TrainerError) as caught:
        runs.finish(plan)
    assert (caught.value.code, caught.value.exit_code, caught.value.step) == ("Diverged", 70, 1)
    assert "step 1, rows " in caught.value.message
    assert len(caught.value.message.split("rows ")[1].split(" of")[0].split(", ")) == micro
    assert not Path(plan.output_path).exists()


def test_training_without_a_step_exports_nothing(runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hone_trainer.training.loop import Loop

    monkeypatch.setattr(Loop, "finished", lambda _: True)
    plan = make_plan()
    with pytest.raises(TrainerError, match="training ended without a step: 80 rows gave no batch") as caught:
        runs.finish(plan)
    assert caught.value.code == "SelfCheckFailed"
    assert not Path(plan.output_path).exists()


def test_an_absurd_learning_rate_never_exports(runs: Any, make_plan: Any) -> None:
    training = {"learningRate": "1e20", "maxGradNorm": "1e20", "warmupRatio": "0"}
    plan = make_plan(adapter={"type": "None"}, training=training)
    with pytest.raises(TrainerError) as caught:
        runs.finish(plan)
    assert caught.value.code == "InvalidValue", "what the API server refuses, a plan is refused for, too"
    assert not Path(plan.output_path).exists()


def test_exported_weights_are_compared_with_the_trained_ones() -> None:
    import torch

    good = {"a": torch.ones(2), "b": torch.zeros(1)}
    export.check_weights(good.items(), good)
    for wrong, text in (
        ({"a": torch.ones(2)}, "b: missing"),
        ({**good, "c": torch.ones(1)}, "c: unexpected"),
        ({**good, "b": torch.zeros(0)}, "b: empty"),
        ({**good, "a": torch.tensor([1.0, math.inf])}, "not finite: a"),
        ({**good, "a": torch.tensor([1.0, 1.0000001])}, "a: differs"),
    ):
        with pytest.raises(TrainerError, match=text):
            export.check_weights(wrong.items(), good)


def test_targets_that_the_model_does_not_have_are_refused(runs: Any, make_plan: Any) -> None:
    plan = make_plan(adapter={"type": "LoRA", "targets": ["q_proj", "query"]}, training={"maxLength": 1000})
    with pytest.raises(TrainerError) as caught:
        runs.finish(plan)
    assert caught.value.code == "ModelUnsuitable"
    assert "targets query match no layer of the model that can be adapted (it has down_proj," in caught.value.message
    assert "maxLength 1000 is over the model's context of 256" in caught.value.message


def test_an_image_that_the_cluster_did_not_mount_is_named(tmp_path: Path) -> None:
    """The API server drops the image from the pod where it has no such volumes, and the pod gets an empty folder."""
    (tmp_path / "mounted").mkdir()
    with pytest.raises(
        TrainerError, match=r"no such folder\. If the base is oci://, .* or the cluster mounts no images"
    ):
        base_model.open_base(tmp_path / "mounted" / "models")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("config.json", '{"auto_map": {"AutoModel": "evil.Model"}}', "UnsafeModel"),
        ("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["evil.T", null]}}', "UnsafeModel"),
        ("model.safetensors", None, "UnsafeModel"),
        ("adapter_config.json", '{"peft_type": "LORA"}', "UnsupportedModel"),
        ("config.json", None, "ModelNotFound"),
        ("config.json", '{"model_type": "bert", "architectures": ["BertForMaskedLM"]}', "UnsupportedModel"),
        ("config.json", '{"model_type": "t5"}', "UnsupportedModel"),
        ("config.json", '{"model_type": "nobody-knows"}', "UnsupportedModel"),
    ],
)
def test_models_that_are_never_loaded(
    tmp_path: Path, tiny_model: Path, name: str, content: str | None, code: str
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    (copy / name).unlink(missing_ok=True)
    if content is not None:
        (copy / name).write_text(content)
    with pytest.raises(TrainerError) as caught:
        base_model.open_base(copy)
    assert caught.value.code == code


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_weights_that_only_their_owner_may_read_are_named(tiny_model: Path) -> None:
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        copy = shutil.copytree(tiny_model, Path(parent) / "model")
        copy.chmod(0o755)
        for file in copy.iterdir():
            file.chmod(0o600 if file.suffix == ".safetensors" else 0o644)
        os.seteuid(10001)
        try:
            with pytest.raises(TrainerError, match=r"user 10001 may not read model\.safetensors in .*chmod") as caught:
                base_model.open_base(copy)
        finally:
            os.seteuid(0)
    assert caught.value.code == "InvalidConfiguration"


def test_gradients_through_4_bit_weights_are_those_of_the_dequantised_base(tiny_model: Path) -> None:
    """bitsandbytes' operators on a CPU have no autograd kernel of their own, and torch warns about it."""
    import torch
    from peft import LoraConfig, get_peft_model

    def gradients(dequantise: bool) -> dict[str, torch.Tensor]:
        net = base_model.load(base_model.open_base(tiny_model), bf16=False, cpu=True, quantize=True, frozen=True)
        lora = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
        torch.manual_seed(0)
        tuned = get_peft_model(net.dequantize() if dequantise else net, lora).train()
        weights = {name: weight for name, weight in tuned.named_parameters() if "lora_" in name}
        for weight in weights.values():
            weight.data = torch.randn_like(weight) * 0.05
        ids = torch.randint(5, 200, (2, 17))
        tuned(input_ids=ids, labels=ids).loss.backward()
        return {name: weight.grad for name, weight in weights.items() if weight.grad is not None}

    through, expected = gradients(dequantise=False), gradients(dequantise=True)
    assert through.keys() == expected.keys()
    for name, gradient in through.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-7, rtol=1e-5)
