"""What cannot be exported is refused before training, and what can be repaired is exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.models import every_family

from hone_trainer.artifacts import servable
from hone_trainer.errors import TrainerError

pytestmark = pytest.mark.trainer


@pytest.fixture
def with_generation(tmp_path: Path, tiny_model: Path) -> Any:
    """The tiny model with another generation config; gives its folder."""

    def make(**values: Any) -> Path:
        folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
        (folder / "generation_config.json").write_text(json.dumps(values))
        return folder

    return make


@pytest.mark.parametrize(("adapter", "merge"), [("LoRA", True), ("None", False)])
def test_sampling_without_do_sample_is_exported_as_sampling(
    runs: Any, make_plan: Any, with_generation: Any, adapter: str, merge: bool
) -> None:
    """As Vicuna and the first Llama-2-chat have it."""
    folder = with_generation(do_sample=False, temperature=0.7, top_p=0.9, eos_token_id=2)
    output = {"modelName": "tiny", "merge": merge}
    plan = make_plan(
        modelPath=str(folder), adapter={"type": adapter}, held_out=False, training={"maxSteps": 1}, output=output
    )
    runs.finish(plan)
    for form in ["adapter", "merged"] if merge else ["full"]:
        written = json.loads((Path(plan.output_path) / form / "generation_config.json").read_text())
        assert {"do_sample": True, "temperature": 0.7, "top_p": 0.9}.items() <= written.items()


@pytest.mark.parametrize(
    "values",
    [{"eos_token_id": "x"}, {"eos_token_id": [2, None, "x"]}, {"early_stopping": "sometimes"}, {"max_new_tokens": -1}],
)
def test_a_generation_config_that_cannot_be_written_is_refused_before_training(
    runs: Any, make_plan: Any, with_generation: Any, values: Any
) -> None:
    plan = make_plan(modelPath=str(with_generation(**values)), held_out=False)
    with pytest.raises(TrainerError) as caught:
        runs.finish(plan)
    assert caught.value.code == "UnsupportedModel"
    assert not (Path(plan.work_path) / "checkpoints").exists()


def test_an_adapter_that_peft_does_not_load_again_is_refused_before_training(
    runs: Any, make_plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its names in memory, as transformers 5.24 renames the shared experts of a Laguna."""
    monkeypatch.delitem(servable.STORED, "laguna")
    base = every_family.save(every_family.build(every_family.config("laguna")), tmp_path / "base")
    plan = make_plan(modelPath=str(base), held_out=False)
    with pytest.raises(TrainerError, match=r"does not load an adapter of a laguna again .*shared_experts") as caught:
        runs.finish(plan)
    assert caught.value.code == "ModelUnsuitable"
    assert not (Path(plan.work_path) / "checkpoints").exists()


def test_a_tokenizer_that_cannot_be_written_is_refused_before_training(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import PreTrainedTokenizerFast

    def save(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no file to copy")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", save)
    with pytest.raises(TrainerError, match="NotImplementedError: no file to copy") as caught:
        runs.finish(make_plan())
    assert caught.value.code == "UnsupportedModel"
