"""Rewards in whole runs of GRPO and RLOO: what they refuse, leave out and end."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.runs import judging
from support.runs.curves import points
from support.runs.sampled_sums import ONCE, VOWELS, sums, sums_plans, write

from hone_dev.models import modelserver
from hone_trainer.errors import TrainerError
from hone_trainer.rewards import gold
from hone_trainer.sandbox import workers as pool

pytestmark = pytest.mark.trainer


@pytest.fixture
def plan_of(make_plan: Any, tmp_path: Path) -> Any:
    return sums_plans(make_plan, tmp_path)


@pytest.mark.parametrize("advantage", ["Group", "LeaveOneOut"])
def test_a_run_whose_every_answer_is_cut_and_left_out_ends(runs: Any, plan_of: Any, advantage: str) -> None:
    """The gradient is 0, so it would go on like that to the end."""
    grpo = {"maxCompletionLength": 2, "maskTruncatedCompletions": True, "constantSteps": 3, "advantage": advantage}
    plan = plan_of(grpo=grpo, held_out=False, training={"maxSteps": 6})
    with pytest.raises(TrainerError, match="in the last 3 sampled steps every answer reached") as caught:
        runs.finish(plan)
    assert (caught.value.code, caught.value.step) == ("NoGradient", 3)
    assert not Path(plan.output_path).exists()


def test_a_constant_reward_ends_the_run(runs: Any, plan_of: Any) -> None:
    rewards = [{"type": "Regex", "regex": {"pattern": "never"}}, {"type": "Length", "length": {"max": 100}}]
    plan = plan_of(grpo={"rewards": rewards, "constantSteps": 3}, training={"maxSteps": 50})
    with pytest.raises(TrainerError) as raised:
        runs.finish(plan)
    assert raised.value.code == "RewardConstant"
    assert raised.value.step == 3
    assert "in 3 steps no prompt's samples differed in their reward, which is 1 now" in raised.value.message


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def reward(**_):\n    while True: pass", "it computed longer than its limit"),
        ("import os\ndef reward(**_): os.fork()", "no attribute 'fork'"),
        ("import socket\ndef reward(**_): socket.socket().connect(('127.0.0.1', 80))", "Error"),
        ("import os\ndef reward(**_): os._exit(0)", "it ended before its result was known"),
        ("def reward(**_): return open('/etc/passwd').read()", "FileNotFoundError"),
    ],
)
def test_a_program_that_gives_no_number_is_refused_before_training(
    runs: Any, plan_of: Any, tmp_path: Path, source: str, words: str
) -> None:
    rewards = [{"type": "Python", "name": "vowels", "python": {"configMapName": "mine", "seconds": 1}}]
    few = {"datasets": [write(tmp_path / "few.jsonl", sums(2))]}
    plan = plan_of(grpo={"rewards": rewards}, rows=few, training={"batchSize": 8})
    (tmp_path / "reward.py").write_text(source)
    with pytest.raises(TrainerError) as raised:
        runs.finish(plan)
    assert raised.value.code == "RewardFailed"
    assert words in raised.value.message
    assert "line 1, 2" in raised.value.message


HOSTILE = """\
import os, socket

def reward(completion, answer, **_):
    if completion == answer:
        return 1
    attack = len(completion) % 4
    if attack == 0:
        while True:
            pass
    if attack == 1:
        os.fork()
    if attack == 2:
        os._exit(0)
    socket.socket().connect(("127.0.0.1", 80))
"""


@pytest.mark.parametrize(
    ("held_out", "words"),
    [
        (False, "none of 8 samples got a score; of"),
        pytest.param(True, "none of the 16 answers to sums/validation got a score; of", marks=pytest.mark.long),
    ],
)
def test_a_program_that_turns_on_the_models_own_answers_ends_the_run(
    runs: Any, plan_of: Any, tmp_path: Path, held_out: bool, words: str
) -> None:
    """It is good to the right answers, so it comes through the check; then not one sample has a score."""
    rewards = [{"type": "Python", "name": "vowels", "python": {"configMapName": "mine", "seconds": 1}}]
    plan = plan_of(grpo={"rewards": rewards}, held_out=held_out, training={"batchSize": 8, "maxSteps": 1})
    (tmp_path / "reward.py").write_text(HOSTILE)
    with pytest.raises(TrainerError, match=words) as raised:
        runs.finish(plan)
    assert raised.value.code == "RewardFailed"


def test_a_sandbox_that_cannot_start_is_reported_before_training(
    runs: Any, plan_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool.sys, "executable", "/nowhere/python")
    with pytest.raises(TrainerError, match="cannot start") as raised:
        runs.finish(plan_of())
    assert raised.value.code == "SandboxFailed"


def test_a_sandbox_that_breaks_in_training_ends_the_run(
    runs: Any, plan_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = gold.check

    def check_and_break(*args: Any) -> list[str]:
        found = check(*args)
        kill_workers()
        monkeypatch.setattr(pool.sys, "executable", "/nowhere/python")
        return found

    monkeypatch.setattr(gold, "check", check_and_break)
    with pytest.raises(TrainerError, match="none of 16 samples got a score") as raised:
        runs.finish(plan_of(held_out=False))
    assert raised.value.code == "SandboxFailed"


def kill_workers() -> None:
    """All workers of this process. Threads and children of others may end while they are listed."""
    children = []
    for entry in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            children += (entry / "children").read_text().split()
    for child in children:
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"hone_trainer.sandbox.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)


def test_a_reward_model_and_a_judge_score_together(runs: Any, plan_of: Any, tiny_model: Path, tmp_path: Path) -> None:
    grader = judging.Grader("strict")
    with modelserver.serve(grader) as url:
        rewards = [
            {"type": "RewardModel", "rewardModel": {"modelVersion": "taste-v1"}, "weight": "0.5"},
            {"type": "Judge", "judge": {"endpoint": url, "maxScore": 100}},
        ]
        plan = plan_of(
            grpo={"rewards": rewards},
            models={"taste-v1": {"path": str(judging.reward_model(tiny_model, tmp_path / "taste"))}},
            allowPrivateAddresses=True,
            held_out=False,
            training={"maxSteps": 2, "batchSize": 8},
        )
        runs.finish(plan)
    assert len(grader.asked) == 16
    for point in points(plan):
        assert point["reward"] == pytest.approx(0.5 * point["reward_rewardmodel"] + point["reward_judge"], abs=1e-3)


def test_zero_3_leaves_the_reward_model_and_the_export_whole(
    runs: Any, plan_of: Any, tiny_model: Path, tmp_path: Path
) -> None:
    """Each rank scores answers by itself, and the first one merges the adapter alone."""
    common = {
        "grpo": {"rewards": [{"type": "RewardModel", "rewardModel": {"modelVersion": "taste-v1"}}]},
        "models": {"taste-v1": {"path": str(judging.reward_model(tiny_model, tmp_path / "taste"))}},
        "output": {"modelName": "tiny", "merge": True},
        "training": {"maxSteps": 2, "batchSize": 8},
        "processesPerNode": 2,
    }
    plain, sharded = plan_of("plain", **common), plan_of("sharded", **common, deepspeed={"zeroStage": 3})
    expected, result = (runs.wait(plan, runs.start(runs.encoded(plan))).result for plan in (plain, sharded))
    for ours, theirs in zip(points(sharded), points(plain), strict=True):
        assert (ours["loss"], ours["reward"]) == pytest.approx((theirs["loss"], theirs["reward"]), abs=1e-4)
    assert float(result.numbers[0].tuned) == pytest.approx(float(expected.numbers[0].tuned), abs=1e-4)
    assert [artifact.format for artifact in result.artifacts] == ["Adapter", "Merged"]


def test_evaluation_also_scores_the_answers_of_its_own_number_by_other_rewards(runs: Any, plan_of: Any) -> None:
    vowels = {"type": "Python", "name": "vowels", "python": {"configMapName": "mine"}}
    evaluation = {**ONCE["evaluation"], "maxNewTokens": 4, "rewards": [vowels, {"type": "Number"}]}
    result = runs.finish(plan_of(evaluation=evaluation))
    trained, same = (next(n for n in result.numbers if n.name == name) for name in ("reward", "reward_vowels"))
    assert same.to_json() == {**trained.to_json(), "name": "reward_vowels"}
    number = next(n for n in result.numbers if n.name == "reward_number")
    assert float(number.tuned) <= 1
    rate = next(n for n in result.numbers if n.name == "win_rate_vowels")
    assert (float(rate.tuned) > 0.5) == (float(same.tuned) > float(same.base or 0))


def test_a_verifier_that_does_not_know_an_answer_is_refused(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    rows = sums(40)
    rows[4]["answer"] = "many"
    bad = write(tmp_path / "bad.jsonl", rows)
    with pytest.raises(TrainerError) as raised:
        runs.finish(plan_of(grpo={"rewards": [{"type": "Number"}]}, rows={"datasets": [bad]}))
    assert raised.value.code == "VerifierRejectsGold"
    assert "line 5" in raised.value.message


def test_samples_without_a_score_are_left_out(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    """Half of them, by the function's own choice: the others train as before."""
    plan = plan_of(held_out=False, training={"maxSteps": 4})
    (tmp_path / "reward.py").write_text(
        VOWELS.replace("    return", "    if len(completion) % 2: return None\n    return")
    )
    runs.finish(plan)
    shares = [point["masked_samples"] for point in points(plan)]
    assert all(0 < share < 1 for share in shares)
    assert {point["failed_samples"] for point in points(plan)} == {0}


def learned_from(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The batches that GRPO's loss gets from now on."""
    from trl import GRPOTrainer

    batches: list[dict[str, Any]] = []
    compute = GRPOTrainer._compute_loss

    def compute_and_keep(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        batches.append(inputs)
        return compute(self, model, inputs)

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", compute_and_keep)
    return batches


def test_samples_whose_reward_fails_count_nowhere(
    runs: Any, plan_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in their group's mean, not in the KL, not among the tokens that the loss is divided by."""
    batches = learned_from(monkeypatch)
    plan = plan_of(
        held_out=False, grpo={"beta": "0.1"}, training={"maxSteps": 3, "batchSize": 16, "microBatchSize": 16}
    )
    fails = "    if len(completion) % 2 and completion != answer: raise ValueError\n    return"
    (tmp_path / "reward.py").write_text(
        VOWELS.replace("completion,", "completion, answer,").replace("    return", fails)
    )
    runs.finish(plan)
    for point, batch in zip(points(plan), batches, strict=True):
        kept = batch["completion_mask"].any(1)
        assert 0 < point["failed_samples"] < 1
        assert point["failed_samples"] == point["masked_samples"] == pytest.approx(1 - kept.float().mean().item())
        assert not batch["advantages"][~kept].any()
        assert batch["advantages"].sum().item() == pytest.approx(0, abs=1e-4)
        assert batch["num_items_in_batch"] == batch["completion_mask"].sum()


@pytest.mark.parametrize("advantage", ["Group", pytest.param("LeaveOneOut", marks=pytest.mark.long)])
def test_answers_that_are_cut_and_left_out_get_no_reward(
    runs: Any, plan_of: Any, tmp_path: Path, advantage: str
) -> None:
    """The function is not even asked, and none of them is a failure."""
    grpo = {"maxCompletionLength": 24, "maskTruncatedCompletions": True, "advantage": advantage}
    plan = plan_of(grpo=grpo, held_out=False, training={"maxSteps": 4, "batchSize": 64, "microBatchSize": 16})
    runs.finish(plan)
    curve = points(plan)
    assert any(0 < point["masked_samples"] < 1 for point in curve)
    for point in curve:
        assert point["masked_samples"] == pytest.approx(point["completions/clipped_ratio"])
        assert point["failed_samples"] == 0


ONE_QUESTION: dict[str, Any] = {"held_out": False, "training": {"maxSteps": 8, "batchSize": 4}}
"""In each step."""


def test_a_step_whose_samples_are_all_left_out_on_purpose_teaches_nothing(
    runs: Any, plan_of: Any, tmp_path: Path
) -> None:
    plan = plan_of(**ONE_QUESTION)
    odd = "    if int(prompt.split()[2]) % 2: return None\n    return"
    source = VOWELS.replace("completion,", "prompt, completion,").replace("    return", odd)
    (tmp_path / "reward.py").write_text(source)
    result = runs.finish(plan)
    assert result.steps == 8
    steps = points(plan)
    assert {point["masked_samples"] for point in steps} == {0, 1}
    for point in steps:
        assert (point["reward"] is None) == bool(point["masked_samples"])
        assert bool(point["grad_norm"]) <= (not point["masked_samples"])


def test_a_reward_that_leaves_every_sample_out_ends_the_run(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    plan = plan_of(grpo={"constantSteps": 2}, **ONE_QUESTION)
    (tmp_path / "reward.py").write_text(
        "def reward(completion, answer, **_):\n    return 1 if completion == answer else None\n"
    )
    with pytest.raises(TrainerError, match="in 2 steps no sample got a score") as raised:
        runs.finish(plan)
    assert raised.value.code == "RewardFailed"


def test_a_question_without_a_score_on_one_rank_does_not_end_the_run(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    """Each step has both questions, a rank one each; one of them makes the function fail."""
    rows = {"datasets": [write(tmp_path / "few.jsonl", sums(2))]}
    plan = plan_of(rows=rows, held_out=False, processesPerNode=2, training={"maxSteps": 3, "batchSize": 8})
    fails = "    if prompt.startswith('What is 1 ') and completion != answer: raise ValueError\n    return"
    source = VOWELS.replace("completion,", "prompt, completion, answer,").replace("    return", fails)
    (tmp_path / "reward.py").write_text(source)
    assert runs.wait(plan, runs.start(runs.encoded(plan))).result.steps == 3
    assert {point["masked_samples"] for point in points(plan)} == {0.5}
    assert {point["failed_samples"] for point in points(plan)} == {0.5}


@pytest.mark.faults("T14")
def test_a_judge_that_goes_away_is_left_to_another_attempt(
    runs: Any, plan_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = judging.unreachable(monkeypatch)
    with pytest.raises(TrainerError, match="none of 4 samples got a score; of 4 the reason is judge: judge") as raised:
        runs.finish(plan_of(grpo={"rewards": [judge]}, **ONE_QUESTION))
    assert raised.value.code == "EndpointUnreachable"
