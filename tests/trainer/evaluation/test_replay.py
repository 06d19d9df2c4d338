"""Several Datasets in one run: their shares hold, each is evaluated by itself, and an interrupted run goes on alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.runs import split_files

from hone_trainer.errors import TrainerError
from hone_trainer.models import base_model
from hone_trainer.run import rows

pytestmark = pytest.mark.trainer


def text_rows(path: Path, count: int, word: str) -> dict[str, str]:
    """A file of general text, as the plan names it."""
    rows = ({"text": f"{word} number {i} is {word}."} for i in range(count))
    return split_files.write(path, rows, "general", "train")


@pytest.fixture
def replay(make_plan: Any, tmp_path: Path) -> Any:
    """Makes a plan of 80 own rows and general ones with a share; the general set is evaluated on as well."""

    def make(name: str = "run", general: int = 300, share: str = "20%", **fields: Any) -> Any:
        train = {**text_rows(tmp_path / "general.jsonl", general, "weather"), "share": share}
        held_out = {**text_rows(tmp_path / "held-out.jsonl", 8, "weather"), "split": "validation"}
        plan = make_plan(name).model_dump(mode="json", by_alias=True, exclude_none=True)
        return make_plan(
            name,
            **{
                "datasets": [*plan["datasets"], train],
                "evaluationDatasets": [*plan["evaluationDatasets"], held_out],
                **fields,
            },
        )

    return make


@pytest.mark.parametrize(
    ("general", "share", "expected", "passes"),
    [(300, "20%", 20, "0.07"), (300, "50%", 80, "0.27"), (8, "50%", 80, "10.00")],
)
def test_an_epoch_has_the_shares_that_were_asked_for(
    replay: Any, general: int, share: str, expected: int, passes: str
) -> None:
    plan = replay(general=general, share=share)
    data = rows.load(plan, base_model.open_base(plan.model_path))
    own, other = data.used
    assert (own.rows, own.passes) == (80, "1.00")
    assert (other.rows, other.passes) == (expected, passes)
    assert len(data.train) == 80 + expected
    assert other.row_share == f"{100 * expected / (80 + expected):.1f}%"
    tokens = [sum(len(s) for s in example.sequences) for example in data.train]
    assert (own.tokens, other.tokens) == (sum(tokens[:80]), sum(tokens[80:]))
    assert own.token_share == f"{100 * own.tokens / sum(tokens):.1f}%"
    assert any("used 10.00 times an epoch" in w for w in data.warnings) == (passes == "10.00")
    again = rows.load(plan, base_model.open_base(plan.model_path))
    assert [e.sequences for e in again.train] == [e.sequences for e in data.train]


def test_shares_that_cannot_be_end_the_run_before_the_weights(replay: Any) -> None:
    plan = replay(share="100%")
    with pytest.raises(TrainerError, match="nothing is left for places/train") as caught:
        rows.load(plan, base_model.open_base(plan.model_path))
    assert caught.value.code == "ConflictingFields"


def test_another_share_is_another_run(replay: Any) -> None:
    assert rows.identity(replay(share="20%")) != rows.identity(replay(share="30%"))


def test_an_interrupted_run_mixes_as_the_undisturbed_one(replay: Any, runs: Any, interrupt: Any) -> None:
    """16 steps of 8 rows, over the border of an epoch of 100 rows."""
    training = {"maxSteps": 16}
    whole = replay("whole", training=training)
    result = runs.finish(whole)
    assert {(n.dataset, n.name) for n in result.numbers} >= {
        ("places/validation", "loss"),
        ("general/validation", "loss"),
    }
    assert all(float(n.tuned) < float(n.base) for n in result.numbers if n.name == "loss")
    assert [(u.name, u.rows) for u in result.datasets] == [("places", 80), ("general", 20)]
    report = json.loads((Path(whole.output_path) / "adapter" / "report.json").read_text())
    assert "of an epoch: 20 rows" in report["data"]["general/train"]

    broken = replay("broken", training=training)
    interrupt(broken, 8)
    resumed = runs.finish(broken)
    assert resumed.start_step > 0
    assert runs.curve(broken) == runs.curve(whole)
    assert resumed.datasets == result.datasets
