"""A stage begins where the one before it ended: whether its ModelVersion is whole or only an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone_trainer.commands import evaluate
from hone_trainer.errors import TrainerError
from hone_trainer.models import merge_base

pytestmark = pytest.mark.trainer


def loss(result: Any) -> tuple[float, float]:
    """Of base and tuned model."""
    found = next(n for n in result.numbers if n.name == "loss")
    return float(found.base), float(found.tuned)


def artifact(result: Any, plan: Any, form: str) -> dict[str, str]:
    found = next(a for a in result.artifacts if a.format == form)
    return {"path": str(Path(plan.output_path) / found.uri), "digest": found.digest}


def test_an_adapter_is_merged_and_the_next_stage_exports_a_whole_model(
    runs: Any, make_plan: Any, rows_files: tuple[Path, Path]
) -> None:
    first = make_plan("first")
    made = runs.finish(first)
    second = make_plan(
        "second",
        modelUri="pvc://hone-store/models/1/adapter",
        modelVersion="tiny-v1",
        modelAdapter=artifact(made, first, "Adapter"),
    )
    prepared = merge_base.prepare(second, first=True)
    assert prepared.model_path == str(Path(second.work_path) / "base")
    result = runs.finish(prepared)

    before, after = loss(result)
    assert before == pytest.approx(loss(made)[1], abs=1e-3)  # it begins where the first stage ended
    assert after < before
    assert [a.format for a in result.artifacts] == ["Adapter", "Merged"]
    merged = artifact(result, second, "Merged")["path"]
    assert "ModelVersion `tiny-v1`" in (Path(merged) / "README.md").read_text()
    again = evaluate.recompute(Path(merged), rows_files[1], Path(prepared.model_path))
    assert float(again[0].tuned) == pytest.approx(after, abs=1e-3)


def test_a_whole_model_is_the_base_as_it_is(runs: Any, make_plan: Any) -> None:
    first = make_plan("first", adapter={"type": "None"}, training={"learningRate": "2e-3", "maxSteps": 4})
    made = runs.finish(first)
    full = artifact(made, first, "Full")
    second = make_plan("second", modelPath=full["path"], modelDigest=full["digest"], training={"maxSteps": 2})
    assert merge_base.prepare(second, first=True) == second
    assert loss(runs.finish(second))[0] == pytest.approx(loss(made)[1], abs=1e-4)


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json"])
def test_a_model_that_is_not_what_was_pinned_is_refused(
    tiny_model: Path, make_plan: Any, tmp_path: Path, name: str
) -> None:
    from hone_trainer.store import manifest

    folder = tmp_path / "pinned"
    folder.mkdir()
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    digest = manifest.write(folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(TrainerError, match=name) as caught:
        merge_base.prepare(make_plan(models={"judge-v1": {"path": str(folder), "digest": digest}}), first=True)
    assert caught.value.code == "ManifestMismatch"
