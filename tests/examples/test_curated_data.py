"""Example 09: its rows are what its generator makes, and its curation takes out what its README says."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone_api.dataset.dataset import DatasetSpec
from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize

pytestmark = pytest.mark.trainer

FOLDER = Path(__file__).parents[2] / "examples" / "09-curated-data"


@pytest.fixture(scope="module")
def make_data() -> Any:
    spec = importlib.util.spec_from_file_location("make_curated_data", FOLDER / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def curated(tmp_path_factory) -> tuple[Any, list[dict[str, str]]]:
    """(result, rows) of the curated Dataset, materialized as its Job would."""
    folder = tmp_path_factory.mktemp("curated")
    data = yaml.safe_load((FOLDER / "data.yaml").read_text())["data"]
    specs = {d["metadata"]["name"]: d["spec"] for d in yaml.safe_load_all((FOLDER / "dataset.yaml").read_text())}
    exam = {"name": "help-desk-exam", "split": "validation", "digest": f"sha256:{'0' * 64}"}

    def run(name: str, evaluation_sets: list[dict[str, str]]) -> Any:
        spec = DatasetSpec.model_validate(specs[name])
        source = folder / spec.source.uri.rsplit("/", 1)[1]
        source.write_text(data[source.name])
        common = spec.model_dump(by_alias=True, include={"format", "columns", "splits", "checks"})
        curation = specs[name].get("curation", {})
        plan = {"name": name, "source": {"uri": spec.source.uri}, "sourcePath": str(source), "curation": curation}
        plan |= {"evaluationSets": evaluation_sets, "store": str(folder / "store"), **common}
        return materialize.run(MaterializePlan.model_validate(plan))

    held_out = folder / "store" / run("help-desk-exam", []).path / "validation.jsonl"
    result = run("help-desk", [exam | {"path": str(held_out)}])
    lines = (folder / "store" / result.path / "train.jsonl").read_text().splitlines()
    return result, [json.loads(line) for line in lines]


def test_the_data_is_what_the_generator_makes(make_data):
    assert (FOLDER / "data.yaml").read_text() == make_data.data(), "run python examples/09-curated-data/make_data.py"


def test_the_readme_has_what_each_step_took(curated):
    result, _ = curated
    told = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|$", (FOLDER / "README.md").read_text(), re.M)
    assert [(step, int(gone), int(new)) for step, gone, new in told] == [
        (step.step, step.removed, step.changed) for step in result.curation
    ]


def folded(text: str) -> str:
    return " ".join(text.casefold().split())


def test_every_answer_worth_learning_is_kept_and_nearly_nothing_else(curated, make_data):
    raw, held_out = make_data.rows()
    exam = {folded(row["question"]) for row in held_out}
    good = {folded(row["question"]) for row in raw if "type: " in folded(str(row["answer"]))} - exam
    kept = {folded(row["prompt"]) for row in curated[1]}
    assert len(good) == make_data.GOOD
    assert len(good - kept) == 1  # in other words it is a row of the exam
    assert len(kept - good) == 6  # of 118
    assert not kept & exam


def test_no_contact_is_left(curated, make_data):
    text = json.dumps(curated[1], ensure_ascii=False)
    assert [person for person in make_data.PEOPLE if person in text] == []
    assert "[EMAIL]" in text
