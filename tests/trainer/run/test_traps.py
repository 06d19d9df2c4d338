"""Traps of the libraries that no other file of tests is about."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hone_trainer.errors import TrainerError
from hone_trainer.training import deepspeed

pytestmark = pytest.mark.trainer

SPY = """\
import os, sys

def note(event, args):
    if event in ("socket.getaddrinfo", "socket.connect", "socket.gethostbyname"):
        with open(os.environ["SPY"], "a") as file:
            file.write(f"{event} {args[-1] if event == 'socket.connect' else args[:2]}\\n")

sys.addaudithook(note)
"""


def test_a_run_speaks_to_nobody(runs: Any, make_plan: Any, tmp_path: Path) -> None:
    """No telemetry of a library, no question to the hub: every connection and look-up is written down."""
    (tmp_path / "sitecustomize.py").write_text(SPY)
    spied = tmp_path / "spied"
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    on = {"HF_HUB_OFFLINE": "", "HF_HUB_DISABLE_TELEMETRY": "", "DO_NOT_TRACK": ""}  # as on a person's machine
    plan = make_plan(training={"maxSteps": 1}, evaluation={"samples": 2})
    runs.wait(plan, runs.start_program(plan, PYTHONPATH=path, SPY=str(spied), HF_ENDPOINT="http://127.0.0.1:9", **on))
    assert not spied.exists(), spied.read_text()


def test_the_spy_sees(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "sitecustomize.py").write_text(SPY)
    script = "import huggingface_hub as h\ntry: h.HfApi().model_info('a/b')\nexcept Exception: pass"
    env = {"PYTHONPATH": str(tmp_path), "SPY": str(tmp_path / "spied"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    subprocess.run([sys.executable, "-c", script], env={**os.environ, **env, "HF_HUB_OFFLINE": "0"}, check=True)
    assert "127.0.0.1" in (tmp_path / "spied").read_text()


def test_a_run_that_is_not_sharded_though_asked_for_is_refused() -> None:
    """accelerate falls back to plain data parallelism without a word, e.g. when set to use the CPU."""
    from torch.nn import Linear

    with pytest.raises(TrainerError, match="deepspeed was requested, but the model is wrapped by Linear"):
        deepspeed.assert_sharded(SimpleNamespace(model_wrapped=Linear(1, 1)))


@pytest.mark.parametrize("sharded", [True, False])
def test_only_a_run_without_deepspeed_is_asked_to_use_the_cpu(make_plan: Any, sharded: bool) -> None:
    from hone_api.methods import METHODS, Method
    from hone_trainer.device import Device
    from hone_trainer.methods import arguments
    from hone_trainer.training import settings

    plan = make_plan(deepspeed={"zeroStage": 2} if sharded else None)
    resolved = settings.resolve(
        plan,
        rates=METHODS[Method.SFT].rates,
        sequences=80,
        max_length=64,
        micro_batch_size=4,
        device=Device(1, cuda=False, bf16=False),
    )
    found = arguments.common(plan, resolved)
    assert found["use_cpu"] is not sharded
    assert bool(found["deepspeed"]) is sharded
    assert found["logging_nan_inf_filter"] is False


def test_a_merged_qlora_model_has_no_4_bit_weights(runs: Any, make_plan: Any) -> None:
    from safetensors import safe_open

    plan = make_plan(adapter={"type": "QLoRA"}, output={"modelName": "tiny", "merge": True}, training={"maxSteps": 1})
    runs.finish(plan)
    folder = Path(plan.output_path) / "merged"
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a dict
        assert not [name for name in file.keys() if "absmax" in name or "quant" in name]  # noqa: SIM118
    assert kinds == {"F32"}
