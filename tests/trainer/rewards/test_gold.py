"""Before training, each reward is asked about the right answers of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hone_api.blocks.rewards import Reward as RewardSpec
from hone_trainer import rewards
from hone_trainer.encoding.prompts import Prompt
from hone_trainer.errors import TrainerError
from hone_trainer.rewards import gold
from hone_trainer.sandbox import SandboxWorkers

pytestmark = pytest.mark.trainer


@pytest.fixture(scope="module")
def workers() -> Iterator[SandboxWorkers]:
    with SandboxWorkers(2) as made:
        yield made


def check(
    workers: SandboxWorkers, spec: Mapping[str, Any], *records: Mapping[str, Any], path: Path | None = None
) -> list[str]:
    reward = RewardSpec.model_validate(spec)
    made = rewards.make([reward], {reward.title: str(path)} if path else {}, workers)
    rows = [Prompt([1], {"prompt": "?", **record}, number) for number, record in enumerate(records, 1)]
    return gold.check(made, [reward.type], rows)


def test_a_verifier_must_know_the_gold_answers(workers: SandboxWorkers) -> None:
    solved = {"tests": "assert f() == 1", "solution": "def f(): return 1"}
    assert check(workers, {"type": "Number"}, {"answer": "4"}, {"answer": "#### 5"}) == [
        "reward number: 1 for the answers of 2 rows"
    ]
    assert check(workers, {"type": "Code"}, solved, {"tests": "assert False"})[0].endswith("the answers of 1 row")
    assert check(workers, {"type": "Code"}, {"tests": "x"}) == [
        "reward code: no row has a right answer to check it with"
    ]
    for spec, bad in (
        ({"type": "Number"}, {"answer": "none"}),
        ({"type": "Math"}, {"answer": ""}),
        ({"type": "Code"}, {**solved, "tests": "assert f() == 2"}),
    ):
        good = {"answer": "4", **solved}
        with pytest.raises(TrainerError) as raised:
            check(workers, spec, good, bad, good)
        assert raised.value.code == "VerifierRejectsGold"
        assert "0 and not 1 for the row's own answer in 1 of 3 rows checked: line 2" in raised.value.message


def test_a_users_function_must_give_a_number_for_the_gold_answers(workers: SandboxWorkers, tmp_path: Path) -> None:
    spec = {"type": "Python", "python": {"configMapName": "mine", "seconds": 1}}
    file = tmp_path / "reward.py"
    file.write_text("def reward(**_): return 0.25")
    assert check(workers, spec, {"answer": "4"}, path=file) == ["reward python: a number for the answers of 1 row"]
    file.write_text("def reward(**_):\n while True: pass")
    with pytest.raises(TrainerError) as raised:
        check(workers, spec, {"answer": "4"}, path=file)
    assert raised.value.code == "RewardFailed"
    assert "no score (it computed longer than its limit)" in raised.value.message
