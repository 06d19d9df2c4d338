"""What a plan needs, computed without running it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hone_api.estimate.gpus import Gpu
from hone_api.estimate.memory import RUNTIME_GPU
from hone_api.estimate.micro_batch import FILLED
from hone_trainer.__main__ import main
from hone_trainer.errors import TrainerError
from hone_trainer.models import read_shape
from hone_trainer.run import estimate

pytestmark = pytest.mark.trainer


def shown(plan: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    console = Console(record=True, width=160)
    monkeypatch.setattr(estimate, "Console", lambda: console)
    estimate.show(plan)
    return console.export_text()


def test_the_sizes_are_those_of_the_model_without_its_weights_being_read(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    shape = read_shape.shape(tiny_model)
    assert shape is not None
    assert shape.parameters == sum(p.numel() for p in network.parameters())
    linear = [m for n, m in network.named_modules() if n.endswith("_proj")]
    expected = {(m.in_features, m.out_features) for m in linear}
    assert set(shape.linear.values()) == expected


def test_the_tables_show_memory_gpus_time_disk_and_advice(make_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(make_plan(training={"learningRate": "0.5", "batchSize": 16}), monkeypatch)
    for words in ("activations", "NVIDIA-A100-80GB", "one CPU core", "disk: base model", "8 steps"):
        assert words in text
    assert "learningRate 0.5 is 2500 times above" in text


@pytest.mark.parametrize(
    ("rows", "method"),
    [
        ([{"prompt": f"{i}?", "completion": f"It is {i}."} for i in range(40)], "SFT by LoRA"),
        ([{"prompt": f"{i}?", "chosen": f"It is {i}.", "rejected": "No."} for i in range(40)], "DPO by LoRA"),
    ],
)
def test_validate_says_what_training_on_the_rows_needs(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, str]], method: str
) -> None:
    file, kept = tmp_path / "rows.jsonl", tmp_path / "kept"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["validate", str(file), "--out", str(kept), "--model", str(tiny_model)]) == 0
    out = capsys.readouterr().out
    for words in (
        f"plan:       {kept}/plan.json",
        "/train: ",
        "trained",
        method,
        "activations",
        "NVIDIA-A100-80GB",
        "one CPU core",
    ):
        assert words in out


@pytest.mark.parametrize(
    ("row", "options", "words"),
    [
        ({"prompt": "1 + 1?", "answer": "2"}, ["--out", "kept"], "rows of format Verifiable are for PPO, GRPO"),
        ({"prompt": "1 + 1?", "completion": "2"}, [], "--model needs --out"),
        (
            {"prompt": "1 + 1?", "completion": "2"},
            ["--out", "kept", "--model", "none"],
            "none: there is no such folder. --model takes a local folder",
        ),
    ],
)
def test_validate_refuses_a_model_that_it_cannot_estimate_with(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    row: dict[str, str],
    options: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(
        "".join(json.dumps({**row, "prompt": f"{i}: {row['prompt']}"}) + "\n" for i in range(9))
    )
    assert main(["validate", "rows.jsonl", "--model", str(tiny_model), *options]) in (65, 78)
    assert words in capsys.readouterr().err


def test_a_packed_batch_is_reported_in_rows_and_tokens(make_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 rows of 34 tokens in 11 sequences: by the plan's tables, and by the run before its weights are loaded."""
    from hone_trainer.reporting.live import Reporters
    from hone_trainer.run import pipeline
    from hone_trainer.signals import Stop

    plan = make_plan(held_out=False, training={"packing": True, "maxLength": 256})
    words = ("batchSize 8 counts packed sequences of 256 tokens", "an epoch about 2 steps instead of 10")
    text = " ".join(shown(plan, monkeypatch).split())
    said: list[str] = []
    reporters = Reporters()
    monkeypatch.setattr(reporters, "log", said.append)
    run = pipeline.prepare(plan, Stop(), reporters)
    for each in words:
        assert each in " ".join(run.advice), "so it is in the result, the card and the report"
        assert each in text
        assert each in " ".join(said)


def test_every_gpu_gets_as_many_rows_a_pass_as_fit_there(make_plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for room in (15 * 2**30, int((RUNTIME_GPU + 3 * 2**20) / FILLED)):  # 4 MiB for 8 rows, 2 for one
        monkeypatch.setattr(estimate, "TABLE", [Gpu("ACME-1", room, 100)])
        line = next(line for line in shown(make_plan(), monkeypatch).splitlines() if "ACME-1" in line)
        rows.append([cell.strip() for cell in line.split("│")][3:5])
    assert rows[0] == ["yes", "8"]
    assert rows[1] in (["yes", "4"], ["yes", "2"])


def test_what_would_end_the_run_ends_the_estimate(make_plan: Any) -> None:
    with pytest.raises(TrainerError, match="maxLength 4096"):
        estimate.show(make_plan(training={"maxLength": 4096}))
