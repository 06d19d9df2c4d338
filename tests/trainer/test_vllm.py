"""vLLM as the generator of GRPO and RLOO: its build for CPUs, in processes of its own Python, on a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hone_dev import paths, vllm

PLUGIN = '''"""The build for CPUs packs weights for its kernels, and then takes no new ones: here it keeps them."""


def register():
    from vllm.model_executor.layers.linear import LinearBase

    LinearBase._cpu_skip_gemm_dispatch = True
'''
EAGER = {"TORCHDYNAMO_DISABLE": "1", "VLLM_USE_AOT_COMPILE": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
"""A tiny model is not worth a compilation."""


@pytest.fixture(scope="session")
def python() -> Path:
    return vllm.python()


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that vLLM finds a plugin in."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "keeps_weights.py").write_text(PLUGIN)
    about = folder / "keeps_weights-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: keeps-weights\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[vllm.general_plugins]\nkeeps_weights = keeps_weights:register\n")
    return folder


@pytest.fixture(scope="session")
def wide_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with heads of 64: vLLM has no kernel for its own of 16."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wide")
    sizes = {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig.from_pretrained(tiny_model, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture
def train(python: Path, plugin: Path, wide_model: Path, make_plan: Any, tmp_path: Path) -> Any:
    """Runs a plan as a pod of the image with vLLM would; the points of its curve."""
    sources = [paths.SOURCE / part for part in ("crds", "trainer")]

    def run(name: str, grpo: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
        rewards = [{"type": "Regex", "regex": {"pattern": "[aeiou].*[aeiou]", "match": "Search"}}]
        block = {"rewards": rewards, "generations": 4, "maxCompletionLength": 8, "generation": {"engine": "VLLM"}}
        training = {"maxSteps": 6, "batchSize": 16, "learningRate": "2e-2", **fields.pop("training", {})}
        fields |= {"method": "GRPO", "grpo": {**block, **grpo}, "training": training, "modelPath": str(wide_model)}
        plan = make_plan(name, evaluation={"everySteps": 1000, "samples": 0}, **fields)
        file = tmp_path / f"{name}.json"
        file.write_text(plan.model_dump_json(by_alias=True))
        env = {**os.environ, **EAGER, "PYTHONPATH": ":".join(map(str, [plugin, *sources])), "OMP_NUM_THREADS": "1"}
        env["HONE_TERMINATION_LOG"] = str(tmp_path / f"{name}.termination")
        done = subprocess.run([python, "-m", "hone_trainer", "run", file], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        form = "full" if plan.adapter.type == "None" else "adapter"
        lines = (Path(plan.output_path) / form / "metrics.jsonl").read_text().splitlines()
        return [point for point in map(json.loads, lines) if "loss" in point]

    return run


@pytest.mark.parametrize("ranks", [1, 2])
def test_vllm_samples_from_the_weights_of_the_newest_step(train: Any, ranks: int) -> None:
    """Its log-probabilities are the trainer's within rounding, while the model moves far from where it began."""
    curve = train("lora", {"beta": "0.001"}, processesPerNode=ranks)
    assert len(curve) == 6
    assert curve[0]["kl"] == 0
    assert max(point["kl"] for point in curve) > 0.02
    for point in curve:
        assert 0 < point["sampling/sampling_logp_difference/mean"] < 0.01


def test_rloo_by_vllm(train: Any) -> None:
    training = {"learningRate": "5e-3"}
    curve = train("rloo", {"advantage": "LeaveOneOut", "beta": "0.001"}, training=training, adapter={"type": "None"})
    assert len(curve) == 6
    assert curve[-1]["kl"] != 0
