"""A rank needs no network: real runs where there is none but loopback, and every attempt to use one is written down."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hone_api.contract.report import TrainingResult

pytestmark = pytest.mark.trainer
HOST = "models.example.org"


def test_the_watch_sees_an_attempt(without_network: Any, tmp_path: Path) -> None:
    """Else the tests below would assert nothing."""
    attempts = without_network.trainer(tmp_path, "validate", f"https://{HOST}/rows.jsonl")
    assert "socket.getaddrinfo" in {json.loads(line)[0] for line in attempts}
    program = f"import urllib.request; urllib.request.urlopen('http://{HOST}/', timeout=5)"
    done, attempts = without_network.python("-c", program)
    assert done.returncode == 1
    assert {json.loads(line)[0] for line in attempts} >= {"urllib.Request", "socket.getaddrinfo"}


@pytest.mark.attack("network of a rank")
def test_a_run_with_held_out_rows_and_samples_needs_no_network(run_alone: Any, make_plan: Any) -> None:
    plan = make_plan(training={"maxSteps": 2}, evaluation={"everySteps": 1, "samples": 1})
    outcome, attempts = run_alone(plan.to_json())
    assert outcome.failure is None
    assert isinstance(outcome.result, TrainingResult)
    assert outcome.result.steps == 2
    assert attempts == []


@pytest.mark.attack("network of a rank")
def test_rewards_need_no_network(run_alone: Any, make_plan: Any, tmp_path: Path) -> None:
    """Those that a library grades: math-verify, jsonschema, and a program of the user's."""
    program = tmp_path / "reward.py"
    program.write_text(
        "import urllib.request\n\n"
        "def reward(completion, **_):\n"
        "    try:\n"
        f"        urllib.request.urlopen('http://{HOST}/', timeout=5)\n"
        "    except Exception:\n"
        "        return sum(map(ord, completion)) % 97 / 100\n"
        "    return 1.0\n"
    )
    rows = tmp_path / "prompts.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"What is {n} + 1?", "answer": str(n + 1)}) + "\n" for n in range(8)))
    dataset = {"name": "sums", "path": str(rows), "digest": "sha256:" + "0" * 64}
    rewards = [
        {"type": "Math"},
        {"type": "JsonSchema", "jsonSchema": {"schema": '{"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}'}},
        {"type": "Python", "name": "mine", "python": {"configMapName": "mine"}},
    ]
    plan = make_plan(
        method="GRPO",
        grpo={"rewards": rewards, "generations": 2, "maxCompletionLength": 4},
        training={"maxSteps": 1, "batchSize": 4},
        datasets=[dataset],
        evaluationDatasets=[],
        rewardPaths={"mine": str(program)},
    )
    outcome, attempts = run_alone(plan.to_json())
    assert outcome.failure is None
    assert attempts == []


HUB = "someone/secret-model"
LURES: dict[str, dict[str, dict[str, Any]]] = {
    "code": {
        "config.json": {"auto_map": {"AutoModelForCausalLM": f"{HUB}--modeling.Model"}},
        "tokenizer_config.json": {"auto_map": {"AutoTokenizer": [f"{HUB}--tokenization.Tokenizer", None]}},
    },
    "a kernel": {"config.json": {"attn_implementation": HUB, "_attn_implementation": HUB}},
    "names": {
        "config.json": {"_name_or_path": HUB},
        "tokenizer_config.json": {"name_or_path": HUB},
        "generation_config.json": {"custom_generate": HUB},
    },
    "an adapter": {
        "adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": HUB, "r": 2, "task_type": "CAUSAL_LM"},
    },
}
"""What is laid over the files of a base model."""


@pytest.mark.attack("network of a rank")
@pytest.mark.parametrize("what", LURES)
def test_no_file_of_a_model_leads_to_a_hub(
    run_alone: Any, make_plan: Any, tiny_model: Path, tmp_path: Path, what: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    for name, fields in LURES[what].items():
        body = json.loads((base / name).read_text()) if (base / name).is_file() else {}
        (base / name).write_text(json.dumps(body | fields))
    plan = make_plan(modelPath=str(base), training={"maxSteps": 1}, evaluation={"samples": 1})
    outcome, attempts = run_alone(plan.to_json())
    assert attempts == []
    code = {"code": "UnsafeModel", "a kernel": "UnsafeModel", "an adapter": "UnsupportedModel"}.get(what)
    assert (outcome.failure and outcome.failure.code) == code


@pytest.mark.attack("network of a rank")
def test_an_address_in_place_of_a_path_is_never_asked(run_alone: Any, make_plan: Any) -> None:
    outcome, attempts = run_alone(make_plan(modelPath=f"https://{HOST}/model", training={"maxSteps": 1}).to_json())
    assert outcome.failure is not None
    assert attempts == []
