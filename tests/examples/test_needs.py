"""What the examples of the methods say they need is what Hone estimates, and they lead to the guides."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone_api.plan import TrainingPlan
from hone_trainer.run import estimate

EXAMPLES = Path(__file__).parents[2] / "examples"
BENCH = EXAMPLES.parent / "bench"
NAMES = ["04-dapt", "05-dpo", "06-reward", "07-rlhf", "08-grpo", "09-curated-data"]
SAMPLING = ("PPO", "GRPO")
"""Methods whose time depends on the length of answers, which no estimate knows."""


def readme(example: str) -> str:
    return (EXAMPLES / example / "README.md").read_text()


def jobs(example: str) -> dict[str, Any]:
    documents = yaml.safe_load_all(next((EXAMPLES / example).glob("finetunejob*.yaml")).read_text())
    return {document["metadata"]["name"]: document["spec"] for document in documents}


def needs(example: str) -> dict[str, tuple[str, str, str]]:
    """Memory on a CPU, time on a core, memory on a GPU; of each job in the README's table."""
    rows = re.findall(r"^\| `([\w-]+)` \| ([\d.]+ GiB) \| ([^|]+) \| ([\d.]+ GiB) \|$", readme(example), re.M)
    return {name: (cpu, time, gpu) for name, cpu, time, gpu in rows}


@pytest.mark.pure
@pytest.mark.parametrize("example", NAMES)
def test_the_readme_leads_to_the_guide_of_each_method(example: str) -> None:
    assert needs(example).keys() == jobs(example).keys()
    for job in jobs(example).values():
        assert f"(../../docs/guides/methods/{job['method'].lower()}.md)" in readme(example)
    assert "## With your own rows" in readme(example)
    assert "jsonpath" not in readme(example)


@pytest.mark.trainer
@pytest.mark.parametrize("example", [*NAMES, "12-two-teams"])
def test_the_readme_says_what_hone_estimates(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    runs = importlib.import_module("learning").Example(EXAMPLES / example, tmp_path)
    for job, spec in jobs(example).items():
        plan = runs.plan(job, job)
        capsys.readouterr()
        estimate.show(TrainingPlan.model_validate(plan))
        printed = capsys.readouterr().out
        gpu, cpu = re.search(r"│ peak +│ ([\d.]+ GiB) +│ ([\d.]+ GiB) +│", printed).groups()
        time = re.search(r"│ one CPU core +│ +│ +│ \d+ +│ ([^│]+?) +│", printed)[1]
        shown = needs(example)[job]
        assert (shown[0], shown[2]) == (cpu, gpu)
        if spec["method"] in SAMPLING:
            assert shown[1] == "more, by the length of the answers"
        else:
            assert shown[1] == time


@pytest.mark.trainer
def test_an_example_that_keeps_an_exam_apart_is_planned_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are curated against the exam, and evaluated on it; its own Dataset has no held-out rows."""
    monkeypatch.syspath_prepend(str(BENCH))
    plan = importlib.import_module("learning").Example(EXAMPLES / "09-curated-data", tmp_path).plan("help-desk", "run")
    assert [(rows["name"], rows["split"]) for rows in plan["evaluationDatasets"]] == [("help-desk-exam", "validation")]
    lines = Path(plan["datasets"][0]["path"]).read_text().splitlines()
    assert len(lines) == 101, "as the README says"
