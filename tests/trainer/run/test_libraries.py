"""Libraries that a run does not use are as if they were not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hone_api.plan import TrainingPlan
from hone_trainer.run.libraries import leave_out_peer_to_peer, unused

pytestmark = pytest.mark.pure
ALWAYS = {"boto3"}
SCIENCE = {"scipy", "sklearn"}
ALL = {"deepspeed", "bitsandbytes", *SCIENCE, *ALWAYS}
TASKS = {"path": "/tasks", "digest": f"sha256:{'1' * 64}", "version": "0.4.13", "dataSets": []}


def plan_of(folder: Path, **fields: Any) -> TrainingPlan:
    body = {
        "run": "run",
        "modelPath": str(folder),
        "modelUri": "hf://org/model",
        "datasets": [{"name": "rows", "split": "train", "path": "/rows.jsonl", "digest": f"sha256:{'0' * 64}"}],
        "output": {"modelName": "tutor"},
        "workPath": "/work",
        "outputPath": "/out",
        **fields,
    }
    return TrainingPlan.model_validate(body)


@pytest.mark.parametrize(
    ("fields", "hidden"),
    [
        ({"adapter": {"type": "LoRA"}}, ALL),
        ({"adapter": {"type": "None"}}, ALL),
        ({"adapter": {"type": "QLoRA"}}, ALL - {"bitsandbytes"}),
        ({"deepspeed": {"zeroStage": 2}}, ALL - {"deepspeed"}),
        ({"harnessTasks": TASKS}, ALL - SCIENCE),
    ],
)
def test_what_a_plan_uses_stays(fields: dict[str, Any], hidden: set[str], tmp_path: Path) -> None:
    assert set(unused(plan_of(tmp_path, **fields))) == hidden


@pytest.mark.torch
def test_vllm_finds_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = [{"type": "Length", "length": {"max": 100}}]
    plan = plan_of(tmp_path, method="GRPO", grpo={"rewards": rewards})
    assert set(unused(plan)) == ALL
    (tmp_path / "vllm.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert set(unused(plan)) == set()
    assert set(unused(plan_of(tmp_path))) == ALL


def test_quantised_weights_of_any_model_keep_their_library(tmp_path: Path) -> None:
    for name in ("plain", "quantised"):
        (tmp_path / name).mkdir()
    (tmp_path / "plain" / "config.json").write_text("{}")
    config = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (tmp_path / "quantised" / "config.json").write_text(json.dumps(config))
    base, other = tmp_path / "plain", {"path": str(tmp_path / "quantised")}
    assert set(unused(plan_of(base))) == ALL
    assert set(unused(plan_of(tmp_path / "quantised"))) == ALL - {"bitsandbytes"}
    assert set(unused(plan_of(base, models={"judge-v1": other}))) == ALL - {"bitsandbytes"}


@pytest.mark.torch
def test_a_hidden_library_is_neither_found_nor_imported(tmp_path: Path) -> None:
    """In a process of its own: it stays hidden until the process ends."""
    program = """
import sys
from importlib.util import find_spec
from hone_api.contract.plan_reading import parse_plan
from hone_trainer.run.libraries import hide_unused
names = ("bitsandbytes", "boto3", "deepspeed", "scipy", "sklearn")
assert all(map(find_spec, names))
hide_unused(parse_plan(sys.stdin.buffer.read()))
assert not any(map(find_spec, names))
try:
    import bitsandbytes
except ModuleNotFoundError:
    print("absent")
"""
    text = plan_of(tmp_path).model_dump_json(by_alias=True)
    done = subprocess.run([sys.executable, "-c", program], input=text, capture_output=True, text=True, check=False)
    assert done.stdout == "absent\n", done.stderr


@pytest.mark.torch
@pytest.mark.parametrize(("driver", "expected"), [("535.54.03", ["1", "1"]), ("550.40.07", [None, None])])
def test_consumer_cards_without_peer_to_peer_send_through_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, expected: list[str | None]
) -> None:
    """As accelerate asks: by nvidia-smi."""
    smi = tmp_path / "nvidia-smi"
    card = "2, NVIDIA GeForce RTX 4090"
    smi.write_text(f"#!/bin/sh\ncase \"$*\" in *count*) printf '{card}\\n{card}\\n';; *) echo {driver};; esac\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    names = ("NCCL_P2P_DISABLE", "NCCL_IB_DISABLE")
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    leave_out_peer_to_peer()
    assert [os.environ.get(name) for name in names] == expected
