"""One answer of an exported model: the same as the run's own sample, from each form, and by the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone_trainer import __main__ as command
from hone_trainer.commands import ask
from hone_trainer.errors import TrainerError

pytestmark = pytest.mark.trainer


def test_each_form_answers_as_the_run_did(
    runs: Any, make_plan: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(training={"maxSteps": 2}, output={"modelName": "tiny", "merge": True}, evaluation={"samples": 1})
    (sample,) = runs.finish(plan).samples
    out = Path(plan.output_path)
    for form in ("adapter", "merged"):
        found = ask.answer(out / form, sample.prompt, max_new_tokens=96)
        assert (found.text, found.ending) == (sample.tuned, sample.tuned_ending)
    capsys.readouterr()
    assert command.main(["ask", str(out / "adapter"), sample.prompt, "--max-new-tokens", "96"]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == sample.tuned.strip()
    assert ("the answer loops" in shown.err) == (sample.tuned_ending == "Repeats")


def test_a_folder_that_is_not_an_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"holds no report\.json"):
        ask.answer(tmp_path, "?")
