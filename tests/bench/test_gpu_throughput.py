"""The benchmark for GPUs, as far as it can be held without one."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hone_api.blocks.shape import ModelShape, shape_of

pytestmark = pytest.mark.trainer
BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("gpu_throughput")


@pytest.fixture
def one_b(bench: Any) -> ModelShape:
    """Counted on a model without memory for its weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**bench.ONE_B.model, tie_word_embeddings=True)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    shape = shape_of(config.to_dict(), sum(p.numel() for p in model.parameters()))
    assert shape is not None
    return shape


def test_the_model_has_the_weights_of_llama_3_2_1b(one_b: ModelShape) -> None:
    assert one_b.parameters == 1_235_814_400


def test_the_operations_of_a_token(bench: Any, one_b: ModelShape) -> None:
    """4 x 1,235,814,400 weights, and 12 x 16 layers x 32 heads x 64 x 1,024 tokens."""
    assert bench.flops_per_token(one_b, 1024) == 4_943_257_600 + 402_653_184


def test_utilisation_is_the_share_of_the_peak(bench: Any) -> None:
    """100,000 tokens in 10 s, each 5e9 operations, are 50 TFLOP/s."""
    work, run = bench.Work(tokens=100_000, flops=5e9, tflops=312), bench.Run(20, 10, 10, 1000)
    assert (work.speed(run), work.reached(run)) == (10_000, 50)


def test_a_gpus_peak_is_found_by_cudas_name_for_it(bench: Any) -> None:
    assert bench.peak_tflops("NVIDIA A100-SXM4-80GB") == 312
    assert bench.peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert bench.peak_tflops("ACME 9000") is None


@pytest.mark.parametrize(
    ("seconds", "mib", "estimate", "held"),
    [(10.0, 1000, 1000, True), (10.3, 1000, 1000, False), (10.0, 1060, 1060, False), (10.0, 1000, 940, False)],
    ids=["held", "slow", "more memory", "a false fit"],
)
def test_each_bound_counts(bench: Any, seconds: float, mib: float, estimate: int, held: bool) -> None:
    work = bench.Work(tokens=1000, flops=1.0, tflops=None)
    plain, ours = bench.Run(1, 10.0, 1, 1000), bench.Run(1, seconds, 1, mib)
    result = {"estimatedMemoryBytes": estimate * 2**20, "peakMemoryBytes": 900 * 2**20}
    assert bench.report("a case", work, ([plain], [ours], result)) is held


def test_both_sides_read_rows_of_the_same_length(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    from hone_trainer.encoding.conversation import Encoder

    monkeypatch.setattr(bench, "alternate", lambda *_: ([], []))
    (tmp_path / "termination").write_text('{"result": {}}')
    args = bench.argparse.Namespace(steps=2, pairs=1, checkpointing=False)
    bench.random_llama(tmp_path / "model", bench.TINY.model)
    bench.compare(tmp_path, "LoRA", bench.TINY, args, "")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * bench.TINY.batch
    for row in rows:
        (ours,) = Encoder(tokenizer).encode(row)
        assert ours.input_ids == tokenizer(row["text"] + tokenizer.eos_token)["input_ids"]  # as TRL does it
        assert len(ours.input_ids) == bench.TINY.length


def test_the_peak_counts_what_torchs_allocator_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 of 100 are in use, 60 of them reserved now and 70 at the peak: 20 of CUDA itself."""
    import torch

    numbers = {"is_initialized": True, "synchronize": None, "mem_get_info": (20, 100)}
    for name, value in {**numbers, "memory_reserved": 60, "max_memory_reserved": 70}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.syspath_prepend(str(BENCH))
    assert importlib.import_module("step_times").gpu_peak() == 90


def test_without_a_gpu_it_is_skipped() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "gpu_throughput.py")],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "skipped: there is no GPU that computes in bfloat16\n")
