"""gpt-oss from rows with reasoning to an exported model, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trl
from support.models.chat_templates import byte_level
from support.models.families import build
from support.runs import split_files

pytestmark = pytest.mark.trainer


def test_a_run_trains_reasoning_and_shows_answers_as_rows_have_them(runs: Any, make_plan: Any, tmp_path: Path) -> None:
    template = (Path(trl.__file__).parent / "chat_templates" / "gptoss.jinja").read_text(encoding="utf-8")
    special = ["<|endoftext|>", "<|start|>", "<|return|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>"]
    tokenizer = byte_level(special, template, eos_token="<|return|>", pad_token="<|endoftext|>")
    build("gpt_oss").save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"1 + {n} = ?"},
                {"role": "assistant", "content": "<think>\nIt is a sum.\n</think>\n\nMore than one."},
            ]
        }
        for n in range(40)
    ]
    data = [split_files.write(tmp_path / "rows.jsonl", rows, "sums", "train")]
    plan = make_plan(
        modelPath=str(tmp_path / "base"),
        # All weights: adapters leave the head of a random model as it is, which hardly prefers any token to another.
        adapter={"type": "None"},
        datasets=data,
        evaluationDatasets=[{**data[0], "split": "validation"}],
        training={"maxSteps": 60, "batchSize": 8, "learningRate": "1e-2"},
        evaluation={"everySteps": 60, "samples": 1},
        checkpoints={"everySteps": 60},
    )
    result = runs.finish(plan)
    (loss,) = [number.to_json()["tuned"] for number in result.numbers if number.name == "loss"]
    assert float(loss) < 0.1, "the rows are learned by heart, whatever the processor and the day"
    (sample,) = result.samples
    assert sample.tuned == "<think>\nIt is a sum.\n</think>\n\nMore than one."
