"""Two exported models compared on the same rows: a challenger with the champion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hone_trainer import __main__ as command
from hone_trainer.commands.evaluate import recompute
from hone_trainer.errors import TrainerError

pytestmark = pytest.mark.trainer


def test_a_challenger_is_compared_with_the_champion_and_not_with_the_base(
    runs: Any, make_plan: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plan = make_plan(training={"maxSteps": 2, "learningRate": "0.05"}, output={"modelName": "tiny", "merge": True})
    runs.finish(plan)
    out, rows = Path(plan.output_path), Path(plan.evaluation_datasets[0].path)
    capsys.readouterr()
    assert command.main(["evaluate", str(out / "adapter"), "--data", str(rows), "--against", str(out / "merged")]) == 0
    numbers = {n["name"]: n for n in map(json.loads, capsys.readouterr().out.splitlines())}
    (base,) = [n for n in recompute(out / "adapter", rows) if n.name == "loss"]
    loss = numbers["loss"]
    assert float(loss["tuned"]) == pytest.approx(float(base.tuned), abs=1e-5)
    assert float(loss["base"]) == pytest.approx(float(base.tuned), abs=1e-4), "merged, the same model"
    assert abs(float(loss["base"]) - float(base.base or 0)) > 0.1
    assert float(loss["changeLow"]) <= float(loss["changeHigh"])
    assert float(loss["changeHigh"]) - float(loss["changeLow"]) < 1e-3, "paired by row"

    foreign = tmp_path / "foreign"
    shutil.copytree(out / "merged", foreign)
    for file in foreign.glob("chat_template*"):
        file.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(TrainerError, match="another tokenizer or chat template"):
        recompute(out / "adapter", rows, against=foreign)
