"""training.microBatchSize Auto: the size that fits is measured before the first step, and the run is as if written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.runs import method_plans

from hone_api.methods import METHODS
from hone_dev.cluster.objectstore import free_port
from hone_trainer.errors import TrainerError
from hone_trainer.run import apart, auto_micro_batch, micro_batch_probe, micro_batch_record, preflight
from hone_trainer.signals import Stop
from hone_trainer.training.loop import Loop

pytestmark = pytest.mark.trainer
AUTO = {"microBatchSize": "Auto"}
PLENTY = 2**40
"""Bytes, whatever the machine has."""
KILLED_PROBE = """
import os, signal, sys
from hone_trainer.run import apart, micro_batch_probe
from hone_trainer.training.loop import Loop

step, tokens = Loop.training_step, []


def killed(self, model, inputs, *rest):
    tokens.append(inputs["input_ids"].numel())
    if tokens[-1] == 4 * tokens[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, model, inputs, *rest)


Loop.training_step = killed
sys.exit(apart.main(micro_batch_probe.probe))
"""
"""The probe, killed in the pass of 4 rows."""
BY_PASS = {"rewards": [{"type": "Regex", "regex": {"pattern": "a"}}], "loss": "BNPO"}
"""GRPO whose loss depends on which rows share a pass."""
MEASURED = [*(name for name, info in METHODS.items() if info.row_by_row), "GRPO", "RLOO"]


def bits(plan: Any) -> bytes:
    """The exported weights."""
    return (Path(plan.output_path) / "adapter" / "adapter_model.safetensors").read_bytes()


def record(plan: Any, name: str) -> Any:
    return json.loads((Path(plan.work_path) / micro_batch_record.FOLDER / f"{name}.json").read_text())


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the probe of a plan in this process; gives what it recorded."""
    monkeypatch.setenv(micro_batch_record.RANK_ENV, "0")

    def probe(plan: Any) -> Any:
        micro_batch_probe.probe(plan)
        return record(plan, "rank-0")

    return probe


@pytest.mark.usefixtures("forked_apart")
def test_the_run_is_that_of_the_number_also_when_resumed(
    runs: Any, make_plan: Any, interrupt: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bit by bit. The second attempt would measure another size, and does not."""
    training, checkpoints = {"batchSize": 16, "maxSteps": 5}, {"everySteps": 2}
    auto = make_plan("auto", training={**training, **AUTO}, checkpoints=checkpoints, memory=PLENTY)
    interrupt(auto, 2)
    said = capfd.readouterr().err
    assert [f"probing micro batch {rows}…" in said for rows in (1, 2, 4, 8, 16, 3)] == [True] * 5 + [False]
    assert record(auto, "agreed") == {"1": 16}
    result = runs.finish(auto.model_copy(update={"memory": 1}))
    assert result.start_step in (2, 3)
    assert "probing" not in capfd.readouterr().err
    assert (result.resolved["microBatchSize"], result.resolved["gradientAccumulationSteps"]) == (16, 1)

    written = make_plan("written", training={**training, "microBatchSize": 16})
    runs.finish(written)
    assert runs.curve(auto) == runs.curve(written)
    assert bits(auto) == bits(written)


def test_two_ranks_take_what_fits_on_both(runs: Any, make_plan: Any, tmp_path: Path) -> None:
    """The second rank has too little memory for more than one row."""
    port = free_port("127.0.0.1")
    nodes = {"nodes": 2, "masterAddress": "127.0.0.1", "masterPort": port}
    roomy = runs.encoded(make_plan("roomy", training={**AUTO, "maxSteps": 1}, memory=PLENTY, **nodes))
    (tmp_path / "tight").mkdir()
    (tmp_path / "tight" / "work").symlink_to(roomy.work_path)
    tight = roomy.model_copy(update={"work_path": str(tmp_path / "tight" / "work"), "memory": 1})

    second = runs.start(tight, JOB_COMPLETION_INDEX="1")
    result = runs.wait(roomy, runs.start(roomy, JOB_COMPLETION_INDEX="0")).result
    runs.wait(tight, second, node=1)
    assert [record(roomy, name)["microBatchSize"] for name in ("rank-0", "rank-1")] == [4, 0]
    assert record(roomy, "agreed") == {"2": 1}
    assert (result.resolved["microBatchSize"], result.resolved["gradientAccumulationSteps"]) == (1, 4)


@pytest.mark.parametrize("method", MEASURED)
def test_every_method_with_this_field_can_be_measured(
    make_plan: Any, probed: Any, tmp_path: Path, tiny_model: Path, method: str
) -> None:
    training = {**AUTO, "batchSize": 4, "maxSteps": 1}
    plan = method_plans.plan_of(make_plan, method, tmp_path, tiny_model, "run", training=training, memory=PLENTY)
    measured = probed(plan)
    assert measured["microBatchSize"] == 4
    assert list(measured["measuredBytes"]) == ["1", "2", "4"]
    assert all(0 < size < measured["limitBytes"] for size in measured["measuredBytes"].values())
    assert not list(Path(plan.work_path).glob("checkpoints/step-*"))


@pytest.mark.parametrize("method", ["GRPO", "RLOO"])
def test_samples_are_measured_as_long_as_they_may_be(
    make_plan: Any, probed: Any, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A rank has fewer rows than a group has samples, and nothing is generated or scored."""
    from transformers import LlamaModel

    seen: list[int] = []
    step, forward = Loop.training_step, LlamaModel.forward

    def in_step(self: Any, *inputs: Any) -> Any:
        seen.clear()
        result = step(self, *inputs)
        passes.append(sum(seen))
        return result

    def looking(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((args[0] if args else kwargs["input_ids"]).numel())
        return forward(self, *args, **kwargs)

    passes: list[int] = []
    monkeypatch.setattr(Loop, "training_step", in_step)
    monkeypatch.setattr(LlamaModel, "forward", looking)
    training = {**AUTO, "batchSize": 8, "maxSteps": 1}
    plan = method_plans.plan_of(make_plan, method, tmp_path, tiny_model, "run", training=training, memory=PLENTY)
    plan = plan.model_copy(update={"processes_per_node": 4})
    assert list(probed(plan)["measuredBytes"]) == ["1", "2"]
    longest = passes[0]
    assert passes == [longest, longest, 2 * longest]
    assert longest > plan.grpo.max_completion_length + 10


@pytest.mark.usefixtures("forked_apart")
@pytest.mark.parametrize("method", ["GRPO", pytest.param("RLOO", marks=pytest.mark.long)])
def test_a_measured_run_of_samples_is_that_of_the_number(
    runs: Any, make_plan: Any, tmp_path: Path, tiny_model: Path, method: str
) -> None:
    of_runs = []
    for name, size in (("auto", "Auto"), ("written", 8)):
        training = {"microBatchSize": size, "maxSteps": 2}
        plan = method_plans.plan_of(make_plan, method, tmp_path, tiny_model, name, training=training, memory=PLENTY)
        assert runs.finish(plan).resolved["microBatchSize"] == 8
        of_runs.append((runs.curve(plan), bits(plan)))
    assert of_runs[0] == of_runs[1]


@pytest.mark.usefixtures("forked_apart")
def test_without_room_for_one_row_the_run_says_so_and_tries_it(
    runs: Any, make_plan: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(training={**AUTO, "maxSteps": 1}, memory=1)
    assert runs.finish(plan).resolved["microBatchSize"] == 1
    said = capfd.readouterr().err
    told = [line for line in said.splitlines() if line.startswith(("micro", "not even"))]
    assert told == [
        "not even one row was measured to fit: the run tries one",
        "micro batch 1: of the 8 rows that a rank has in a step, 1 fit at once",
    ]
    assert record(plan, "agreed") == {"1": 1}
    assert record(plan, "rank-0")["microBatchSize"] == 0
    assert list(record(plan, "rank-0")["measuredBytes"]) == ["1"]


def test_a_pass_that_does_not_fit_ends_the_search(make_plan: Any, probed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    step, longest = Loop.training_step, []

    def limited(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        tokens = inputs["input_ids"].numel()
        longest.append(tokens)
        if tokens > 4 * longest[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, model, inputs, *rest)

    monkeypatch.setattr(Loop, "training_step", limited)
    measured = probed(make_plan(training={**AUTO, "batchSize": 32}, memory=PLENTY))
    assert measured["microBatchSize"] == 4
    assert list(measured["measuredBytes"]) == ["1", "2", "4"]
    assert [tokens // longest[0] for tokens in longest] == [1, 1, 2, 4, 8]


def test_not_even_one_row_fits(make_plan: Any, probed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Loop, "training_step", full)
    with pytest.raises(TrainerError, match=r"a step with one row of \d+ tokens: CUDA out of memory") as caught:
        probed(make_plan(training=AUTO))
    assert caught.value.code == "GpuOutOfMemory"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"method": "ORPO"},
            "Auto is for the methods SFT, DAPT, DPO, Reward, Distillation, and GRPO without loss",
        ),
        ({"method": "GRPO", "grpo": BY_PASS}, "and GRPO without loss BNPO: of others, memory"),
        ({"deepspeed": {"zeroStage": 2}}, "Auto cannot be combined with deepspeed: each rank measures alone"),
    ],
)
def test_what_cannot_be_measured_is_refused(make_plan: Any, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainerError, match=words):
        preflight.before_ranks(make_plan(training=AUTO, **fields))


def test_the_probe_has_the_gpu_of_its_rank_and_no_other_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "MASTER_ADDR": "a", "TORCHELASTIC_RUN_ID": "r"}
    for name, value in {**ranked, "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1", "KEPT": "yes"}.items():
        monkeypatch.setenv(name, value)
    for visible, expected in (("2,GPU-7", "GPU-7"), ("", ""), (None, "1")):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        alone = auto_micro_batch._alone()
        assert alone["CUDA_VISIBLE_DEVICES"] == expected
        assert (alone[micro_batch_record.RANK_ENV], alone["KEPT"]) == ("5", "yes")
        assert not [name for name in alone if name in {*ranked, "LOCAL_WORLD_SIZE", "GROUP_RANK"}]
    assert os.environ["RANK"] == "5"


def test_a_limit_of_an_earlier_attempt_bounds_what_is_measured(make_plan: Any) -> None:
    plan = make_plan(training={"batchSize": 12, "microBatchSize": "Auto"}, microBatchLimit=5)
    probed = micro_batch_probe.alone(plan).training
    assert (probed.batch_size, probed.micro_batch_size, probed.max_steps) == (4, 4, 4)


def test_a_process_that_the_kernel_killed_was_out_of_memory(make_plan: Any, tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    with pytest.raises(TrainerError, match="the probe was killed") as caught:
        apart.run("killed", make_plan(), Stop(), "the probe", environment)
    assert caught.value.code == "OutOfMemory"


@pytest.mark.usefixtures("forked_apart")
def test_what_was_measured_before_the_kernel_killed_the_probe_counts(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "killed_probe.py").write_text(KILLED_PROBE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(micro_batch_record, "PROBE", "killed_probe")
    plan = runs.encoded(make_plan(training={**AUTO, "batchSize": 8, "maxSteps": 1}, memory=PLENTY))
    run: Any = SimpleNamespace(plan=plan, stop=Stop())
    assert auto_micro_batch._probed(run) == 2
    assert list(record(plan, "rank-0")["measuredBytes"]) == ["1", "2"]
    assert record(plan, "rank-0")["trying"] == 4
    monkeypatch.setattr(micro_batch_record, "PROBE", "no_such_probe")
    assert auto_micro_batch._probed(run) == 2, "the kernel killed the whole container: the next attempt takes it"
    file = micro_batch_record.record_file(plan, 0)
    for earlier in ({"microBatchSize": 8}, {"microBatchSize": 0, "trying": 1}):
        file.write_text(json.dumps(earlier))
        with pytest.raises(TrainerError, match="ended with exit code 1"):
            auto_micro_batch._probed(run)
        assert not file.exists(), "what ended, or measured nothing, is measured again"
