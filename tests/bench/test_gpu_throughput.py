"""The benchmark for GPUs, as far as it can be held without one."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hone_api.blocks.shape import ModelShape, shape_of
from hone_api.estimate.cost import model_flops

pytestmark = pytest.mark.trainer
ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
PARAMETERS = {"G1": 8_030_261_248, "G2": 596_049_920, "G3": 4_022_468_096, "G4": 1_235_814_400, "G5": 8_030_261_248}
"""Of the published models."""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("gpu_throughput")


def shape(bench: Any, case: str) -> ModelShape:
    """Counted on a model without memory for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, sizes = bench.CASES[case].model
    config = AutoConfig.for_model(kind, **sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    found = shape_of(config.to_dict(), sum(weight.numel() for weight in model.parameters()))
    assert found is not None
    return found


@pytest.mark.parametrize("case", PARAMETERS)
def test_the_models_have_the_weights_of_the_published_ones(bench: Any, case: str) -> None:
    assert shape(bench, case).parameters == PARAMETERS[case]
    assert bench.CASES.keys() == PARAMETERS.keys()


def test_the_operations_of_a_token(bench: Any) -> None:
    """4 or 6 x 1,235,814,400 weights, and 12 x 16 layers x 32 heads x 64 x 1,024 tokens."""
    one_b = shape(bench, "G4")
    assert model_flops(one_b, 1024, frozen=True) == 4_943_257_600 + 402_653_184
    assert model_flops(one_b, 1024, frozen=False) == 7_414_886_400 + 402_653_184


def test_a_gpus_peak_is_found_by_cudas_name_for_it(bench: Any) -> None:
    assert bench.peak_tflops("NVIDIA A100-SXM4-80GB") == 312
    assert bench.peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert bench.peak_tflops("ACME 9000") is None


def test_lengths_are_those_of_real_sets(bench: Any) -> None:
    lengths = bench.lengths_of(bench.CASES["G4"])
    assert len(lengths) == 64 * 20
    assert 250 < sorted(lengths)[len(lengths) // 2] < 350
    assert max(lengths) == bench.LONGEST
    assert set(bench.lengths_of(bench.CASES["G1"])) == {4096}


@pytest.mark.parametrize(
    ("case", "changed", "other", "baseline", "words"),
    [
        ("G1", {"tokens_per_second": 10_700.0}, None, None, []),
        ("G1", {"tokens_per_second": 10_500.0}, None, None, ["84% of 12,473"]),
        ("G4", {"tokens_per_second": 899.0}, 1000.0, None, ["90% of 1,000"]),
        ("G3", {"tokens_per_second": 951.0}, None, 1000.0, []),
        ("G3", {"tokens_per_second": 949.0}, None, 1000.0, ["slower than the baseline's 1,000"]),
        ("G3", {"estimated": 94}, None, None, ["0.94 of the peak"]),
        ("G3", {"estimated": 111}, None, None, ["1.11 of the peak"]),
    ],
)
def test_each_bound_counts(
    bench: Any, case: str, changed: dict[str, Any], other: float | None, baseline: float | None, words: list[str]
) -> None:
    load = bench.CASES[case]
    ours = replace(bench.Measured(1e6, 0.01, peak_bytes=100, estimated=100), **changed)
    sides = {"Hone": ours} | ({load.against: bench.Measured(other, 0.01, 100)} if other else {})
    found = bench.missed(load, sides, {"tokens_per_second": baseline} if baseline else None)
    assert len(found) == len(words)
    assert all(part in sentence for part, sentence in zip(words, found, strict=True))


def test_the_spread_is_of_steps_after_the_warm_up(bench: Any) -> None:
    assert bench.spread([0, 100, 101, 103, 105, 107]) == 0
    assert bench.spread([0, 100, 101, 103, 105, 109]) == 1


@pytest.mark.parametrize(
    "cases", [("G4",), pytest.param(("G1", "G2", "G3", "G5"), marks=pytest.mark.long)], ids=["G4", "others"]
)
def test_all_of_it_runs_on_a_cpu(cases: tuple[str, ...]) -> None:
    """G4 has two sides of Hone, by default and packed, and G5 has TRL's; nothing is padded in Hone's."""
    done = subprocess.run(
        [sys.executable, str(BENCH / "gpu_throughput.py"), "--smoke", *cases],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert tuple(result["case"] for result in results) == cases
    for result in results:
        others = result["others"]
        assert list(others) == {"G4": ["packed"], "G5": ["TRL"]}.get(result["case"], [])
        for side in (result, *(others[name] for name in others if name == "packed")):
            assert side["useful"] == 1
            assert side["attention"].startswith("Rows: ")
        assert all(side["tokens_per_second"] > 0 for side in (result, *others.values()))
        assert (result["card"], result["driver"]) == ("one CPU core", "")


def test_the_page_has_a_figure_or_says_that_there_is_none(bench: Any) -> None:
    page = (ROOT / "docs/concepts/speed.md").read_text()
    for case in bench.CASES:
        row = next(line for line in page.splitlines() if line.startswith(f"| {case} "))
        assert ("never run on a GPU" in row) != bool(list(bench.BASELINES.glob(f"{case}-*.json")))


def test_the_peak_counts_what_torchs_allocator_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 of 100 are in use, 60 of them reserved now and 70 at the peak: 20 of CUDA itself."""
    import torch

    numbers = {"is_initialized": True, "synchronize": None, "mem_get_info": (20, 100)}
    for name, value in {**numbers, "memory_reserved": 60, "max_memory_reserved": 70}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.syspath_prepend(str(BENCH))
    assert importlib.import_module("step_times").gpu_peak() == 90


def test_the_process_that_measures_holds_nothing_of_the_model(tmp_path: Path) -> None:
    """It would hold the model's memory on the GPU during the run whose peak is all memory in use."""
    make = "random_model(Path(sys.argv[1]), tiny(CASES['G4']), '').parameters"
    code = f"import sys; from gpu_throughput import *; print({make}, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=BENCH, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith(" False\n")


def test_without_a_gpu_it_is_skipped() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "gpu_throughput.py")],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "skipped: there is no GPU that computes in bfloat16\n")
