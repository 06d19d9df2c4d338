"""The version in use measured by the run of a new one: on the same rows, before the run's own weights are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone_trainer.device import Device
from hone_trainer.errors import TrainerError
from hone_trainer.evaluation import other_version
from hone_trainer.methods import METHODS
from hone_trainer.run import preflight

pytestmark = pytest.mark.trainer
AGAINST = {"evaluation": {"against": "models://tiny@champion"}, "comparedWith": "tiny-v1"}


@pytest.fixture
def champion(runs: Any, make_plan: Any) -> Any:
    """A finished run, whose model is already better than the base."""
    plan = make_plan("champion", training={"maxSteps": 4}, output={"modelName": "tiny", "merge": True})
    result = runs.finish(plan)
    return SimpleNamespace(
        out=Path(plan.output_path), result=result, digests={a.uri: a.digest for a in result.artifacts}
    )


def loss_of(result: Any) -> Any:
    (loss,) = [n for n in result.numbers if n.name == "loss"]
    return loss


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_new_version_is_compared_with_the_one_in_use(
    runs: Any, make_plan: Any, champion: Any, tiny_model: Path, ranks: int
) -> None:
    """An adapter and its base, as most ModelVersions are; and what is trained is the same as without."""
    adapter = {"path": str(champion.out / "adapter"), "digest": champion.digests["adapter"]}
    model = {"path": str(tiny_model), "adapter": adapter}
    plan = make_plan("challenger", comparedModel=model, processesPerNode=ranks, **AGAINST)
    loss = loss_of(runs.wait(plan, runs.start(plan)).result)
    assert float(loss.against) == pytest.approx(float(loss_of(champion.result).tuned), abs=1e-4)
    assert float(loss.tuned) < float(loss.against) < float(loss.base)
    change = float(loss.tuned) - float(loss.against)
    assert float(loss.against_low) <= change <= float(loss.against_high)
    width = float(loss.against_high) - float(loss.against_low)
    assert width < float(loss.high) - float(loss.low), "paired by row"

    alone = make_plan("alone")
    runs.finish(alone)
    ours, theirs = ([loss for _, loss, _ in runs.curve(each, "adapter")] for each in (plan, alone))
    assert ours == pytest.approx(theirs, abs=1e-4 if ranks > 1 else 0)


@pytest.mark.parametrize("challenger", ["QLoRA", "LoRA"])
def test_a_version_trained_in_4_bits_is_measured_on_its_base_in_4_bits(
    runs: Any, make_plan: Any, tiny_model: Path, challenger: str
) -> None:
    """Whatever the new one is: on the base in full precision, the version in use would have another loss."""
    in_use = make_plan("champion", adapter={"type": "QLoRA"}, training={"maxSteps": 4})
    result = runs.finish(in_use)
    adapter = {"path": str(Path(in_use.output_path) / "adapter"), "digest": result.artifacts[0].digest}
    model = {"path": str(tiny_model), "adapter": adapter}
    plan = make_plan("challenger", adapter={"type": challenger}, comparedModel=model, **AGAINST)
    loss = loss_of(runs.finish(plan))
    assert float(loss.against) == pytest.approx(float(loss_of(result).tuned), abs=1e-4)
    assert float(loss.tuned) < float(loss.against) < float(loss.base)
    assert float(loss.against_low) <= float(loss.tuned) - float(loss.against) <= float(loss.against_high) < 0


def test_a_version_that_reads_other_tokens_is_not_compared(
    runs: Any, make_plan: Any, champion: Any, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(champion.out / "merged", foreign)
    for file in foreign.glob("chat_template*"):
        file.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    result = runs.finish(make_plan(training={"maxSteps": 1}, comparedModel={"path": str(foreign)}, **AGAINST))
    assert loss_of(result).against is None
    assert any("tiny-v1 has another tokenizer or chat template" in sentence for sentence in result.advice)


def test_a_version_with_too_short_a_context_is_not_compared(
    runs: Any, make_plan: Any, champion: Any, tmp_path: Path
) -> None:
    """Where positions have embeddings of their own, as in GPT-2, a longer row would end the run."""
    short = tmp_path / "short"
    shutil.copytree(champion.out / "merged", short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16}))
    result = runs.finish(make_plan(training={"maxSteps": 1}, comparedModel={"path": str(short)}, **AGAINST))
    assert loss_of(result).against is None
    assert any("tiny-v1 reads 16 tokens, and a held-out row takes" in sentence for sentence in result.advice)


def test_without_a_version_in_use_there_is_nothing_to_compare(make_plan: Any) -> None:
    plan = make_plan(**{**AGAINST, "comparedWith": ""})
    found = other_version.measure(SimpleNamespace(plan=plan, held_out=[object()]))
    assert found.values is None
    assert "models://tiny@champion pointed to no version yet" in found.advice


def test_a_plan_names_the_folder_of_the_version(make_plan: Any) -> None:
    plan = make_plan(evaluation={"against": "models://tiny@champion"})
    with pytest.raises(TrainerError, match="against needs comparedWith"):
        preflight.check_plan(plan, Device(1, cuda=False, bf16=False), methods=METHODS)
