"""Several ranks under our launcher: the same losses as one process, and one end for all."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.runs.forked_apart import ForkedApart
from support.servers import listening

from hone_api.contract.termination import FailureReport, TerminationMessage
from hone_dev.cluster.objectstore import free_port
from hone_trainer.commands import evaluate
from hone_trainer.run import launch
from hone_trainer.training.batches import shared_packs
from hone_trainer.training.checkpoints import RunCheckpoints

pytestmark = pytest.mark.trainer

LORA = {"type": "LoRA"}
DORA = {"type": "DoRA"}
FULL = {"type": "None"}
LONG = {"training": {"maxSteps": 100_000}, "evaluation": {"samples": 0, "everySteps": 100_000}}


def run(runs: Any, plan: Any) -> Any:
    return runs.wait(plan, runs.start(plan)).result


def store(plan: Any) -> RunCheckpoints:
    return RunCheckpoints(Path(plan.work_path) / "checkpoints", 2)


def mapped_packs(process: int) -> set[tuple[str, str]]:
    """(inode, path) of the files of packs that a process maps."""
    lines = [line.split(maxsplit=5) for line in Path(f"/proc/{process}/maps").read_text().splitlines()]
    return {(line[4], line[5]) for line in lines if len(line) == 6 and f"/{shared_packs.FOLDER}/" in line[5]}


def same_losses(runs: Any, left: Any, right: Any, form: str) -> None:
    ours, theirs = ([loss for _, loss, _ in runs.curve(plan, form)] for plan in (left, right))
    assert ours == pytest.approx(theirs, abs=1e-4)


def on_loopback_only(found: list[tuple[str, int]]) -> None:
    """Store and pairs of gloo: another pod must not reach them."""
    assert len(found) >= 3  # the store, and one of gloo in each rank
    assert {host for host, _ in found} == {"127.0.0.1"}


def test_two_nodes_train_like_one_process(runs: Any, make_plan: Any) -> None:
    port = free_port("127.0.0.1")
    common = {"evaluation": {"samples": 3}}
    alone = make_plan("alone", **common)
    pair = make_plan("pair", nodes=2, masterAddress="127.0.0.1", masterPort=port, **common)
    second = runs.start(pair, JOB_COMPLETION_INDEX="1")
    first = runs.start(pair, JOB_COMPLETION_INDEX="0")
    result = runs.wait(pair, first).result
    assert runs.wait(pair, second, node=1).result is None
    assert result.resolved["worldSize"] == 2
    expected = runs.finish(alone)
    same_losses(runs, pair, alone, "adapter")
    for ours, theirs in zip(result.numbers, expected.numbers, strict=True):
        assert float(ours.base) == pytest.approx(float(theirs.base), abs=1e-4)
        assert float(ours.tuned) == pytest.approx(float(theirs.tuned), abs=1e-4)
        assert ours.tokens == theirs.tokens
    # The prompts are dealt over the ranks, and their answers come back in order.
    assert [sample.base for sample in result.samples] == [sample.base for sample in expected.samples]
    assert len(result.samples) == 3


@pytest.mark.parametrize(("sharded", "asked"), [(False, [1, 3]), (True, [0, 1, 2, 3, 4])])
def test_a_rank_answers_its_part_of_the_prompts_alone(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, sharded: bool, asked: list[int]
) -> None:
    """As rank 1 of 2: the numbers of rank 0 are zeros in the sum, which is left out here."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hone_trainer.models import generate
    from hone_trainer.scoring import heldout

    network, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    prompts = [tokenizer(f"Where is the station {n}?")["input_ids"] for n in range(5)]
    seen: list[Any] = []
    greedy = generate.greedy

    def spied(model: Any, given: Any, **options: Any) -> Any:
        seen.extend(given)
        return greedy(model, given, **options)

    monkeypatch.setattr(generate, "greedy", spied)
    for name, value in (("rank", lambda: 1), ("world_size", lambda: 2), ("add_up", list)):
        monkeypatch.setattr(heldout.ranks, name, value)
    stops = frozenset({tokenizer.eos_token_id})
    found = heldout.answers(network, prompts, tokenizer=tokenizer, stop_ids=stops, max_new_tokens=4, sharded=sharded)
    assert seen == [prompts[number] for number in asked]
    assert [bool(one.text) for one in found] == [number in asked for number in range(5)]


OFFLOADED = {"zeroStage": 3, "offload": "OptimizerAndParameters"}


@pytest.mark.parametrize(
    ("deepspeed", "adapter", "form"),
    [
        (OFFLOADED, FULL, "full"),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                ({"zeroStage": 2}, FULL, "full"),
                ({"zeroStage": 3}, LORA, "adapter"),
                ({"zeroStage": 3}, DORA, "adapter"),
            )
        ),
    ],
)
def test_zero_trains_like_one_process(
    runs: Any, make_plan: Any, rows_files: tuple[Path, Path], deepspeed: Any, adapter: dict[str, str], form: str
) -> None:
    """Also with tied embeddings, which DeepSpeed hands out twice; and the artifact loads without DeepSpeed."""
    common = {"adapter": adapter, "training": {"maxSteps": 3}, "evaluation": {"samples": 0}}
    alone = make_plan("alone", **common)
    sharded = make_plan("sharded", processesPerNode=2, deepspeed=deepspeed, **common)
    result = run(runs, runs.encoded(sharded))
    runs.finish(alone)
    same_losses(runs, sharded, alone, form)
    again = evaluate.recompute(Path(sharded.output_path) / form, rows_files[1], Path(sharded.model_path))
    assert float(again[0].tuned) == pytest.approx(float(result.numbers[0].tuned), abs=1e-4)


@pytest.mark.attack("rendezvous")
@pytest.mark.parametrize("deepspeed", [{"zeroStage": 2}, pytest.param(OFFLOADED, marks=pytest.mark.long)])
@pytest.mark.faults("T8")
def test_zero_goes_on_after_one_rank_was_asked_to_stop(runs: Any, make_plan: Any, deepspeed: Any) -> None:
    """A drained node signals one rank of two; transformers' own checkpoint on SIGTERM deadlocks then."""
    common = {"adapter": LORA, "evaluation": {"samples": 0, "everySteps": 8}}
    common |= {"processesPerNode": 2, "deepspeed": deepspeed, "training": {"maxSteps": 40}}
    plan, alone = (
        make_plan("interrupted", **common),
        make_plan("alone", **{**common, "processesPerNode": 1, "deepspeed": None}),
    )
    process = runs.start(runs.encoded(plan))
    runs.wait_for(store(plan).path(4), process)
    found = listening.addresses(process.pid)
    os.kill(runs.pid_of_rank(process, 1), signal.SIGTERM)
    failure = runs.wait(plan, process, 75).failure
    on_loopback_only(found)
    assert failure.code == "Interrupted"
    assert store(plan).steps()[-1] == failure.step
    result = run(runs, plan)
    assert result.start_step == failure.step
    runs.finish(alone)
    same_losses(runs, plan, alone, "adapter")


@pytest.mark.attack("rendezvous")
def test_sigterm_to_the_launcher_saves_and_exits_75(runs: Any, make_plan: Any) -> None:
    """Of packed rows: both ranks map the packs that the first one computed."""
    plan = make_plan(processesPerNode=2, **{**LONG, "training": {**LONG["training"], "packing": True}})
    process = runs.start(runs.encoded(plan))
    runs.wait_for(store(plan).path(4), process)
    found = listening.addresses(process.pid)
    first, second = (mapped_packs(runs.pid_of_rank(process, rank)) for rank in (0, 1))
    (folder,) = (Path(plan.work_path) / shared_packs.FOLDER).iterdir()
    assert first == second
    assert {path for _, path in first} == {str(file) for file in folder.glob("*.npy")}
    process.send_signal(signal.SIGTERM)
    failure = runs.wait(plan, process, 75).failure
    assert failure.code == "Interrupted"
    assert store(plan).steps()[-1] == failure.step
    on_loopback_only(found)


@pytest.mark.faults("T8")
def test_a_killed_rank_ends_all_and_is_named(runs: Any, make_plan: Any) -> None:
    plan = make_plan(processesPerNode=2, **LONG)
    process = runs.start(runs.encoded(plan))
    runs.wait_for(store(plan).path(4), process)
    survivor = runs.pid_of_rank(process, 0)
    os.kill(runs.pid_of_rank(process, 1), signal.SIGKILL)
    failure = runs.wait(plan, process, 1).failure
    assert (failure.code, failure.rank) == ("RankFailed", 1)
    assert "SIGKILL" in failure.message
    assert not Path(f"/proc/{survivor}").exists()
    assert store(plan).newest_valid(print) is not None


@pytest.mark.faults("T8")
def test_a_stopped_rank_ends_the_run_and_is_named(runs: Any, make_plan: Any) -> None:
    plan = make_plan(processesPerNode=2, hangTimeout=10, **LONG)
    process = runs.start(runs.encoded(plan))
    runs.wait_for(store(plan).path(4), process)
    ranks = [runs.pid_of_rank(process, rank) for rank in (0, 1)]
    os.kill(ranks[1], signal.SIGSTOP)
    failure = runs.wait(plan, process, 1).failure
    assert (failure.code, failure.rank) == ("Hung", 1)
    assert failure.step >= 4
    stopped, waiting = failure.message.split("; ")[1:]
    assert stopped.startswith("rank 1 is stopped (SIGSTOP)")
    assert waiting.startswith("rank 0 waits for other ranks at ")
    log = (Path(plan.work_path).parent / "log-0").read_text()
    assert "Rank 0:\nCurrent thread" in log or "Rank 0:\nThread" in log
    assert "in _rank_main" in log
    assert not any(Path(f"/proc/{process_id}").exists() for process_id in ranks)


def failed(code: str, message: str = "") -> TerminationMessage:
    return TerminationMessage(failure=FailureReport(code=code, message=message))


@pytest.mark.attack("secrets in text")
@pytest.mark.parametrize(
    ("secret", "variables"),
    [
        ("gh" + "p_" + "Canary0123456789" * 2, {}),  # it looks like one
        ("Canary-of-no-form", {"OF_A_SECRET": "Canary-of-no-form", "HONE_SECRET_VARIABLES": "OF_A_SECRET"}),
    ],
)
def test_the_traceback_of_a_rank_hides_credentials(
    forks: Any,
    make_plan: Any,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    secret: str,
    variables: dict[str, str],
) -> None:
    """It goes to the pod's log, whose end stands in status."""
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(make_plan(modelPath=f"{tmp_path}/{secret}").to_json()))
    command = [sys.executable, "-m", "hone_trainer.run.launch", str(plan), str(tmp_path)]
    ForkedApart(forks().apart, command, {**os.environ, "RANK": "0", "LOCAL_RANK": "0", **variables}).wait()
    printed = capfd.readouterr()
    assert "Traceback (most recent call last)" in printed.err
    assert "holds no config.json" in printed.err
    written = TerminationMessage.model_validate_json((tmp_path / "rank-0.json").read_text())
    assert written.failure is not None
    assert written.failure.code == "ModelNotFound"
    assert "Canary" not in printed.out + printed.err + written.failure.message


@pytest.mark.parametrize(
    ("outcomes", "exits", "signalled", "code", "rank"),
    [
        ({0: (2.0, failed("RankFailed")), 1: (1.0, failed("DiskFull"))}, {0: 1, 1: 74}, False, "DiskFull", 1),
        ({0: (1.0, failed("RankFailed")), 1: (2.0, failed("DiskFull"))}, {0: 1, 1: 74}, False, "DiskFull", 1),
        ({0: (1.0, failed("Interrupted"))}, {0: 75, 1: -9}, False, "RankFailed", 1),
        ({0: (1.0, failed("Interrupted")), 1: (1.0, failed("RankFailed"))}, {0: 75, 1: 1}, False, "Interrupted", 0),
        ({0: (1.0, failed("RankFailed"))}, {0: 1}, False, "RankFailed", 0),
        ({}, {}, True, "Interrupted", None),
        ({0: (1.0, failed("Diverged"))}, {}, True, "Diverged", 0),
    ],
)
def test_the_cause_is_distinguished_from_its_consequences(
    outcomes: Any, exits: dict[int, int], signalled: bool, code: str, rank: int | None
) -> None:
    error = launch.first_failure(outcomes, exits, signalled=signalled)
    assert (error.code, error.rank) == (code, rank)


def test_ranks_that_come_to_different_numbers_end_before_the_first_step(runs: Any, make_plan: Any) -> None:
    port = free_port("127.0.0.1")
    nodes = {"run": "pair", "nodes": 2, "masterAddress": "127.0.0.1", "masterPort": port}
    plans = [make_plan(f"node-{rows}", **nodes, training={"microBatchSize": rows}) for rows in (4, 2)]
    works = [Path(plan.work_path) for plan in plans]
    for work in works:
        work.parent.mkdir()
    works[1].symlink_to(works[0])  # nodes share a volume
    second = runs.start(plans[1], JOB_COMPLETION_INDEX="1")
    failure = runs.wait(plans[0], runs.start(runs.encoded(plans[0]), JOB_COMPLETION_INDEX="0"), 78).failure
    second.wait()
    assert failure.code == "HardwareUnsuitable"
    assert "rows in a forward pass in Float32, unlike others" in failure.message
    assert not store(plans[0]).newest_valid(print)


@pytest.mark.faults("T12")
def test_the_first_of_two_failures_is_not_found_by_the_clock_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndedError(Exception):
        pass

    def end(code: int) -> None:
        raise EndedError

    monkeypatch.setattr(launch.os, "_exit", end)
    before = time.monotonic()
    for rank in (1, 0):
        with pytest.raises(EndedError):
            launch._end(tmp_path, rank, TerminationMessage())
    outcomes = launch._outcomes(tmp_path)
    assert before - 1e-3 < outcomes[1][0] <= outcomes[0][0] <= time.monotonic()
