"""The data of the example of GRPO."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.pure
FOLDER = Path(__file__).parents[2] / "examples" / "08-grpo"


def rows():
    text = yaml.safe_load((FOLDER / "data.yaml").read_text())["data"]["rows.jsonl"]
    return [yaml.safe_load(line) for line in text.splitlines()]


def test_the_data_is_what_the_generator_makes():
    spec = importlib.util.spec_from_file_location("make_sums", FOLDER / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.files().items():
        assert path.read_text() == text, f"{path} has drifted: run python examples/08-grpo/make_data.py"


def test_every_sum_is_right_and_asked_once():
    seen = set()
    for row in rows():
        numbers = re.fullmatch(r"What is (\d+) \+ (\d+)\?", row["question"]).groups()
        assert int(row["answer"]) == sum(map(int, numbers))
        seen.add(tuple(sorted(numbers)))
    assert len(seen) == len(rows())
