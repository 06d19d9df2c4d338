"""A checkpoint as a model, after its run: the same files, or a point on the line to the base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hone_trainer import __main__ as program
from hone_trainer.commands import evaluate
from hone_trainer.store import manifest

pytestmark = pytest.mark.trainer


def export(checkpoint: Path, output: Path, *options: str) -> int:
    return program.main(["export", str(checkpoint), "--output", str(output), *options])


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for file in folder.glob("*model*.safetensors") for name, tensor in load_file(file).items()}


def checkpoint(plan: Any, step: int) -> Path:
    return Path(plan.work_path) / "checkpoints" / f"step-{step:06d}"


def test_a_checkpoint_of_an_adapter_is_the_model_that_the_run_would_have_made(
    runs: Any, make_plan: Any, rows_files: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    plan = make_plan()
    runs.finish(plan)
    assert export(checkpoint(plan, 8), tmp_path / "again") == 0
    ours, theirs = tensors(tmp_path / "again" / "adapter"), tensors(Path(plan.output_path) / "adapter")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    capsys.readouterr()
    assert export(checkpoint(plan, 4), tmp_path / "half", "--merge", "--weight", "0.5") == 0
    made = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [a["format"] for a in made] == ["Adapter", "Merged"]
    for artifact in made:
        assert manifest.verify(tmp_path / "half" / artifact["uri"], artifact["digest"]).size_bytes
    step_4, half = tensors(checkpoint(plan, 4)), tensors(tmp_path / "half" / "adapter")
    assert all(torch.equal(half[n], step_4[n] * (0.5 if "lora_B" in n else 1)) for n in half)
    (merged,) = [
        n
        for n in evaluate.recompute(tmp_path / "half" / "merged", rows_files[1], Path(plan.model_path))
        if n.name == "loss"
    ]
    report = json.loads((tmp_path / "half" / "adapter" / "report.json").read_text())
    assert report["steps"] == 4
    assert report["advice"][0] == "Exported from the checkpoint of step 4, weight 0.5."
    at_4 = float(report["advice"][1].split("eval_loss ")[1].split(",")[0])
    assert at_4 < float(merged.tuned) < float(merged.base or 0)


def test_a_checkpoint_of_all_weights_and_a_point_on_its_line_to_the_base(
    runs: Any, make_plan: Any, tmp_path: Path
) -> None:
    import torch

    plan = make_plan(adapter={"type": "None"}, held_out=False, training={"maxSteps": 4})
    runs.finish(plan)
    assert export(checkpoint(plan, 4), tmp_path / "again") == 0
    ours, theirs = tensors(tmp_path / "again" / "full"), tensors(Path(plan.output_path) / "full")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    assert export(checkpoint(plan, 4), tmp_path / "half", "--weight", "0.25") == 0
    base, point = tensors(Path(plan.model_path)), tensors(tmp_path / "half" / "full")
    for name, tensor in theirs.items():
        torch.testing.assert_close(point[name], torch.lerp(base[name], tensor, 0.25))

    training = plan.training.model_copy(update={"sequence_parallel": 2})
    of_two = plan.model_copy(update={"processes_per_node": 2, "training": training})
    (file := tmp_path / "plan.json").write_text(of_two.model_dump_json(by_alias=True))
    assert export(checkpoint(plan, 4), tmp_path / "shared", "--plan", str(file)) == 0


def test_what_cannot_be_exported_is_reported(
    runs: Any, make_plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(adapter={"type": "DoRA"}, held_out=False, training={"maxSteps": 1})
    runs.finish(plan)
    folder = checkpoint(plan, 1)

    def refused(*options: str, path: Path = folder) -> str:
        capsys.readouterr()
        assert export(path, tmp_path / "out", *options) in (74, 78)
        return capsys.readouterr().err

    assert "DoRA's update" in (words := refused("--weight", "0.5", "--gguf"))
    assert "--gguf holds a whole model: add --merge" in words, "all at once"
    assert "must be above 0 and at most 1" in refused("--weight", "1.5")
    assert "is not a complete checkpoint" in refused(path=Path(plan.work_path) / "checkpoints" / ".partial")
    other = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, other)
    assert "name the run's plan with --plan" in refused(path=other)
    (other / "adapter_model.safetensors").write_bytes(b"damaged")
    assert "ManifestMismatch" in refused("--plan", str(Path(plan.work_path) / "plan.json"), path=other)
