"""A run whose store is slow, and stands still for a while: the same weights, no hang, checkpoints further apart."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.servers.slow_store import Slowness, SlowStore, Stall, slow_store

from hone_trainer.training.checkpoints import RunCheckpoints

pytestmark = pytest.mark.trainer
STEPS = 12
COMMON: dict[str, Any] = {
    "adapter": {"type": "LoRA", "dropout": "0.1"},
    "training": {"maxSteps": STEPS},
    "checkpoints": {"everySteps": 6},
}
"""With dropout, so that the state of the random generators counts."""
HANG = 8
"""Seconds that a step may take. In the default, 600, no stall of these tests would be noticed."""
LONG_STALL, STALL = 45.0, 15.0
LATENCY, LONG_LATENCY = 0.01, 0.15
RATE = 3e6
WRITING = [Stall("write", "optimizer.pt", STALL)]
"""In the middle of a file of the first checkpoint."""
COMPLETING = Stall("fsync", "optimizer.pt", STALL)
"""While training goes on."""
EVERYWHERE = [
    Stall("mkdir", "checkpoints/.partial", STALL),
    Stall("rename", "checkpoint-6/adapter_model.safetensors", STALL),
    Stall("write", "optimizer.pt", LONG_STALL),
    Stall("fsync", "optimizer.pt", STALL),
    Stall("rename", ".partial", STALL),
    Stall("fsyncdir", "checkpoints", STALL),
]
UNDISTURBED: list[tuple[bytes, Any]] = []


@pytest.fixture
def undisturbed(runs: Any, make_plan: Any) -> tuple[bytes, Any]:
    """Weights and curve of the run on a store that is not slow, once for all tests of a process."""
    if not UNDISTURBED:
        whole = make_plan("whole", **COMMON)
        runs.finish(whole)
        UNDISTURBED.append(end_of(runs, whole))
    return UNDISTURBED[0]


def end_of(runs: Any, plan: Any) -> tuple[bytes, Any]:
    return (Path(plan.output_path) / "adapter" / "adapter_model.safetensors").read_bytes(), runs.curve(plan)


@pytest.fixture
def on_slow_store(make_plan: Any, rows_files: tuple[Path, Path], tiny_model: Path, tmp_path: Path) -> Any:
    """For a block: a plan whose model, rows, checkpoints and result are in a slow store, and the store.

    Its log is elsewhere, as in a pod.
    """
    if os.geteuid():
        pytest.skip("only root can mount a store")

    @contextmanager
    def mounted(stalls: list[Stall], latency: float = LATENCY, **fields: Any) -> Iterator[tuple[Any, SlowStore]]:
        with slow_store(tmp_path / "mount", Slowness(latency, RATE, stalls)) as slow:
            shutil.copytree(tiny_model, slow.folder / "model")
            splits = []
            for file, split in zip(rows_files, ("train", "validation"), strict=True):
                path, digest = shutil.copy(file, slow.folder), hashlib.sha256(file.read_bytes()).hexdigest()
                splits.append([{"name": "places", "split": split, "path": str(path), "digest": f"sha256:{digest}"}])
            rows = {"datasets": splits[0], "evaluationDatasets": splits[1]}
            paths = {"modelPath": str(slow.folder / "model"), "outputPath": str(slow.folder / "out")}
            plan = make_plan("slow", **{**COMMON, **rows, **paths, **fields})
            work = Path(plan.work_path)
            work.parent.mkdir()
            (slow.folder / "work").mkdir()
            work.symlink_to(slow.folder / "work")
            yield plan, slow

    return mounted


def paced(plan: Any) -> tuple[float, float]:
    """Seconds that the first checkpoint took, and to the next one, by the log of a run with cadence Auto."""
    log = (Path(plan.work_path).parent / "log-0").read_text()
    found = re.search(r"a checkpoint takes ([\d.]+) s, a step ([\d.]+) s: one every (\d+) steps", log)
    assert found, log
    save, step, interval = map(float, found.groups())
    return save, step * interval


@pytest.mark.faults("T11")
def test_a_store_that_stands_still_in_a_checkpoint(runs: Any, on_slow_store: Any, undisturbed: Any) -> None:
    """It is not a hang, the weights are the same, and the next checkpoint comes later: on a fast store, after 60 s."""
    with on_slow_store(WRITING, hangTimeout=HANG, failureInterval=7200, checkpoints={"cadence": "Auto"}) as (
        plan,
        slow,
    ):
        outcome = runs.wait(plan, runs.start(plan))
        assert slow.stalled() == ["write work/checkpoints/.partial/checkpoint-2/optimizer.pt"]
        assert outcome.phases["saving"] > STALL
        assert end_of(runs, plan) == undisturbed
    save, pause = paced(plan)
    assert save > STALL
    assert pause > 0.8 * math.sqrt(2 * STALL * 7200)


@pytest.mark.faults("T11")
@pytest.mark.long
@pytest.mark.parametrize(("latency", "ranks"), [(LONG_LATENCY, 1), (LATENCY, 2)])
def test_a_store_that_stands_still_at_each_part_of_a_checkpoint(
    runs: Any, make_plan: Any, on_slow_store: Any, undisturbed: Any, latency: float, ranks: int
) -> None:
    fields = {"hangTimeout": HANG, "processesPerNode": ranks}
    with on_slow_store(EVERYWHERE, latency, **fields) as (plan, slow):
        outcome = runs.wait(plan, runs.start(plan))
        assert len(slow.stalled()) == len(EVERYWHERE)
        assert outcome.phases["saving"] > STALL + LONG_STALL, "mkdir and write; the rest is done while training goes on"
        ended = end_of(runs, plan)
    if ranks == 2:
        whole = make_plan("two", processesPerNode=ranks, **COMMON)
        runs.wait(whole, runs.start(whole))
        undisturbed = end_of(runs, whole)
    assert ended == undisturbed


@pytest.mark.faults("T11")
@pytest.mark.long
@pytest.mark.parametrize("stall", [*WRITING, COMPLETING], ids=["writing", "completing"])
def test_sigterm_while_the_store_stands_still_loses_no_step(
    runs: Any, on_slow_store: Any, undisturbed: Any, stall: Stall
) -> None:
    """The next checkpoints are due while the first one is under way."""
    with on_slow_store([stall], checkpoints={"everySteps": 2}) as (plan, slow):
        process = runs.start(plan)
        while not slow.stalled():
            assert process.poll() is None, "the run ended"
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        stopped = runs.wait(plan, process, 75).failure.step
        assert RunCheckpoints(Path(plan.work_path) / "checkpoints", STEPS).steps()[-1] == stopped
        assert runs.wait(plan, runs.start(plan)).result.start_step == stopped
        assert end_of(runs, plan) == undisturbed


@pytest.mark.faults("T11")
@pytest.mark.long
@pytest.mark.parametrize("stall", EVERYWHERE, ids=lambda stall: f"{stall.request}-{stall.path.rpartition('/')[2]}")
def test_sigkill_while_the_store_stands_still(runs: Any, on_slow_store: Any, undisturbed: Any, stall: Stall) -> None:
    """What the next attempt finds is whole: it goes on from a checkpoint, or from the start."""
    with on_slow_store([replace(stall, seconds=STALL)]) as (plan, slow):
        process = runs.start(plan)
        while not slow.stalled():
            assert process.poll() is None, "the run ended"
            time.sleep(0.1)
        process.kill()
        process.wait()
        assert runs.wait(plan, runs.start(plan)).result.start_step in (0, 6)
        assert end_of(runs, plan) == undisturbed
