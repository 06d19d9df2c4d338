"""Configurations of other tools with one part that is of another shape, or missing: converted, or refused in a line."""

from __future__ import annotations

import contextlib
import copy
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.convert.test_configurations import TOOLS, configurations

from hone_cli.convert import command, reading, tables
from hone_cli.convert.engine import Conversion, ConvertRequest, NoJobError, flat
from hone_cli.errors import CommandError

pytestmark = pytest.mark.pure
SHAPES = [None, 5, True, [], {}, "", "x", [1], {"a": "b"}, [[1]], "a,b", [None], {"1": None}]
GRADERS = {
    "a": {"type": "string_check", "name": "n", "input": "{{sample.output_text}}", "reference": "x", "operation": "eq"},
    "b": {"type": "text_similarity", "name": "m", "input": "x", "reference": "x", "evaluation_metric": "rouge_l"},
}
WRITTEN: dict[str, list[dict[str, Any]]] = {
    "openai": [
        {
            "model": "gpt-4o-mini",
            "training_file": "a.jsonl",
            "method": {
                "type": "reinforcement",
                "reinforcement": {"grader": {"type": "multi", "graders": GRADERS, "calculate_output": "a + b"}},
            },
        }
    ],
    "trainjob": [
        {
            "kind": "TrainJob",
            "spec": {
                "runtimeRef": {"name": "torchtune-llama3.2-1b"},
                "initializer": {"dataset": {"storageUri": "hf://tatsu-lab/alpaca"}},
                "trainer": {"args": ["dtype=fp32", "epochs=2"]},
            },
        }
    ],
    "kaito": [
        {
            "kind": "Workspace",
            "tuning": {"preset": {"name": "phi-4"}, "input": {"urls": ["https://a.example/b.parquet"]}},
        },
        {"kind": "ConfigMap", "data": {"training_config.yaml": "training_config: {TrainingArguments: {max_steps: 3}}"}},
    ],
    "llamafactory-v1": [{"model": "Qwen/Qwen3-4B", "model_class": "llm", "train_dataset": "rows.yaml", "max_steps": 1}],
}
"""Of tools without a corpus of configurations, or with what no file of it has."""


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of all parts of a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, part in inner for each in ((*place, key), *places(part, (*place, key)))]


def damaged(document: Any, draw: random.Random) -> Any:
    """With one part of another shape, or without it."""
    document = copy.deepcopy(document)
    *above, last = draw.choice(places(document))
    part = document
    for key in above:
        part = part[key]
    if draw.random() < 0.3:
        del part[last]
    else:
        part[last] = draw.choice(SHAPES)
    return document


def tried(tool: str, file: Path) -> None:
    document = reading.read(file)
    known = tables.tables()
    table = known[tables.detected(key for key, _ in flat(document)) or tool]
    command.manifest(Conversion(table, ConvertRequest("x", "owner/name")).convert(document), "x")


@pytest.mark.parametrize("tool", [*TOOLS, *WRITTEN])
def test_what_has_another_shape_is_refused_or_converted(tool: str, tmp_path: Path) -> None:
    draw = random.Random(tool)
    texts = [text for _, text in configurations(tool)] if tool in TOOLS else [yaml.safe_dump_all(WRITTEN[tool])]
    file = tmp_path / "config.yaml"
    rows: Any = {"x": {"path": "owner/x"}, "y": {"file_name": "y.json", "dataset_dir": "data", "converter": "pair"}}
    for _ in range(150):
        document = [*yaml.safe_load_all(draw.choice(texts))]
        described = damaged(rows, draw)
        (tmp_path / "rows.yaml").write_text(draw.choice(["", "- 1", "1: 2\n---\n3: 4", yaml.safe_dump(described)]))
        file.write_text(yaml.safe_dump_all(damaged(document, draw)))
        with contextlib.suppress(CommandError, NoJobError):
            tried(tool, file)
