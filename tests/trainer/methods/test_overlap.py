"""Samples that a server generates while the job trains on those before: whole runs with a server whose samples depend
on prompt and adapter alone; `test_vllm` has the real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from support.runs.curves import points
from support.runs.sampled_sums import sums, sums_plans, write
from support.servers.sampling import Sampling, serving

from hone_api.words.failures import FAILURES, FailureCode
from hone_trainer.methods.rl import served
from hone_trainer.training.callbacks import Report

pytestmark = pytest.mark.trainer
EXIT = FAILURES[FailureCode.ENDPOINT_UNREACHABLE].exit_code
WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture
def server() -> Iterator[Sampling]:
    with serving() as sampling:
        yield sampling


@pytest.fixture
def plan_of(make_plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Plans whose samples a server has; without `overlap` the run waits for all of them."""
    monkeypatch.setattr("hone_trainer.endpoints.client.pause_after", lambda *_: 0)
    make = sums_plans(make_plan, tmp_path)

    def plan(
        name: str, server: Sampling, grpo: dict[str, Any] | None = None, overlap: bool = True, **fields: Any
    ) -> Any:
        generation = {"engine": "VLLM", "endpoint": server.url, "overlap": overlap}
        fields = {"held_out": False, "allowPrivateAddresses": True, **fields}
        return make(name, {"generation": generation, "beta": "0.1", **(grpo or {})}, **fields)

    return plan


def test_the_next_samples_are_generated_while_a_step_is_trained(
    runs: Any, plan_of: Any, server: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers the prompts of a step once the step before is done: a run that trained first, or waited for
    all of its samples, would never go on."""
    done, most = threading.Semaphore(0), 4  # prompts of a step
    steps = {"done": 0}
    end = Report.on_step_end

    def on_step_end(self: Report, *args: Any, **named: Any) -> None:
        end(self, *args, **named)
        steps["done"] += 1
        for _ in range(most):
            done.release()

    def wait(*_: Any) -> None:
        if len(server.asked) > most:
            assert done.acquire(timeout=300), "the step before is not done"

    monkeypatch.setattr(Report, "on_step_end", on_step_end)
    server.before = wait
    plan = plan_of("overlapped", server)
    runs.finish(plan)
    assert steps["done"] == 8
    assert len(server.asked) == 8 * most
    assert [point["staleness"] for point in points(plan)] == [0, *[1] * 7]
    assert all(0 <= point["sample_wait"] <= 1 for point in points(plan)[1:])


@pytest.mark.parametrize("iterations", [1, 2])
def test_each_batch_is_sampled_once_by_the_weights_of_the_batch_before(
    runs: Any, plan_of: Any, server: Sampling, iterations: int
) -> None:
    """The prompts are those of a run without overlap in its order, over the borders of epochs."""
    asked = {}
    for overlap in (False, True):
        server.asked = []
        plan = plan_of(
            f"overlap-{overlap}",
            server,
            {"iterations": iterations},
            overlap=overlap,
            training={"maxSteps": 14 * iterations, "batchSize": 16},
        )
        runs.finish(plan)
        asked[overlap] = [server.asked[start : start + 4] for start in range(0, len(server.asked), 4)]
    batches = {overlap: [sorted(prompt for _, prompt in batch) for batch in asked[overlap]] for overlap in asked}
    assert len(batches[True]) == 14
    assert batches[True] == batches[False]
    adapters = {overlap: [{adapter for adapter, _ in batch} for batch in asked[overlap]] for overlap in asked}
    assert all(len(of_batch) == 1 for of_batch in (*adapters[False], *adapters[True]))
    assert adapters[True][0] == adapters[True][1] == adapters[False][0]
    assert len({adapter for batch in adapters[True] for adapter in batch}) == 13
    assert {point["staleness"] for point in points(plan)[iterations::iterations]} == {iterations}


@pytest.mark.parametrize("iterations", [1, 2])
def test_a_resumed_run_is_the_same_run(
    runs: Any, plan_of: Any, server: Sampling, interrupt: Any, tmp_path: Path, iterations: int
) -> None:
    """Stopped after steps 5 and 8, between two steps on the same samples and at the border of two epochs: a checkpoint
    has the samples that were under way."""
    fields: dict[str, Any] = {
        "grpo": {"iterations": iterations},
        "training": {"maxSteps": 10, "batchSize": 8, "microBatchSize": 4},
        "rows": {"datasets": [write(tmp_path / "few.jsonl", sums(8))]},
        "checkpoints": {"everySteps": 1},
    }
    whole, broken = plan_of("whole", server, **fields), plan_of("broken", server, **fields)
    runs.finish(whole)
    interrupt(broken, 4)
    interrupt(broken, 7)
    assert runs.finish(broken).start_step == 8
    assert runs.curve(broken) == runs.curve(whole)
    assert (Path(broken.output_path) / WEIGHTS).read_bytes() == (Path(whole.output_path) / WEIGHTS).read_bytes()


def test_a_run_that_stops_leaves_samples_that_do_not_come(
    runs: Any, plan_of: Any, server: Sampling, interrupt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint is whole without them, and the next attempt asks for them again, of its own weights."""
    monkeypatch.setattr(served, "GRACE", 1.0)
    plan, silent = plan_of("broken", server, checkpoints={"everySteps": 1}), threading.Event()
    prompts = 4 * 4  # of three steps that are trained, and of a fourth

    def wait(*_: Any) -> None:
        if len(server.asked) > prompts - 4:
            silent.wait(300)

    server.before = wait
    interrupt(plan, 2)
    silent.set()
    checkpoints = Path(plan.work_path) / "checkpoints"
    saved = [path.parent.name for path in checkpoints.glob("*/ahead-0.json")]
    assert saved == ["step-000002"]
    lost = server.asked[prompts - 4 : prompts]
    assert runs.finish(plan).start_step == 3
    again = server.asked[prompts : prompts + 4]
    assert sorted(prompt for _, prompt in again) == sorted(prompt for _, prompt in lost)
    assert {adapter for adapter, _ in again}.isdisjoint(adapter for adapter, _ in lost)
    assert [point["staleness"] for point in points(plan)] == [0, 1, 1, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_server_that_fails_meanwhile_ends_the_run_with_its_words(
    runs: Any, plan_of: Any, server: Sampling, ranks: int
) -> None:
    def fail(*_: Any) -> None:
        if len(server.asked) > 8:
            raise MemoryError("no blocks are left")

    server.before = fail
    plan = plan_of("fails", server, processesPerNode=ranks)
    before = "from hone_trainer.endpoints import client; client.pause_after = lambda *_: 0"
    outcome = runs.wait(plan, runs.start(plan, before=before), exit_code=EXIT)
    assert outcome.failure.code == "EndpointUnreachable"
    assert "no blocks are left" in outcome.failure.message
    assert server.adapters == {}


@pytest.mark.long
def test_two_ranks_train_on_what_one_does(runs: Any, plan_of: Any, server: Sampling) -> None:
    """The same samples of the same weights, each rank with its own share of the prompts."""
    curves = []
    for ranks in (1, 2):
        numbers = count()
        server.name_of = lambda _, numbers=numbers: str(next(numbers))  # of weights: two ranks round differently
        plan = plan_of(f"ranks-{ranks}", server, processesPerNode=ranks, training={"microBatchSize": 4})
        runs.wait(plan, runs.start(plan))
        curves.append(points(plan))
    for name in ("loss", "reward", "staleness", "completions/mean_length"):
        one, two = ([point[name] for point in curve] for curve in curves)
        assert one == pytest.approx(two, rel=1e-3, abs=1e-6), name


@pytest.mark.long
def test_a_step_takes_no_longer_than_sampling_or_training(
    runs: Any, plan_of: Any, server: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes 2 s for its samples, and training about 3 s; prints the seconds of each step."""
    delay, ends = 2.0, list[float]()
    end = Report.on_step_end

    def on_step_end(self: Report, *args: Any, **named: Any) -> None:
        end(self, *args, **named)
        ends.append(time.monotonic())

    monkeypatch.setattr(Report, "on_step_end", on_step_end)
    server.before = lambda *_: time.sleep(delay)
    steps = {}
    for overlap in (False, True):
        ends.clear()
        training = {"maxSteps": 7, "batchSize": 32, "microBatchSize": 4}
        runs.finish(plan_of(f"overlap-{overlap}", server, overlap=overlap, training=training))
        steps[overlap] = [after - before for before, after in pairwise(ends)][1:]
        print(f"overlap {overlap}: a step takes {median(steps[overlap]):.2f} s")
    assert median(steps[True]) < median(steps[False]) - delay / 2
