"""What is done with all rows before the first step needs neither an example nor a Python object of each."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.runs.memory import peak_bytes

from hone_api.words.failures import FailureCode
from hone_trainer.encoding import columns, mapped, writing
from hone_trainer.encoding.mapped import Examples, Joined, Mapped, Picked
from hone_trainer.encoding.preferences import Judged, Pair
from hone_trainer.encoding.prompts import Prompt
from hone_trainer.encoding.row import Row
from hone_trainer.encoding.split_file import Policy
from hone_trainer.errors import DataError
from hone_trainer.methods import METHODS, kto
from hone_trainer.rewards import gold
from hone_trainer.training.batches import indexed

pytestmark = pytest.mark.trainer
MANY = 60_000
ENCODED: Any = None
"""In place of an encoder: the rows of these tests are encoded already."""


def _judged(folder: Path, labels: list[bool]) -> Mapped:
    """Answers on the disk."""
    rows = [Judged([1, 2], [3, 4 + number % 90], label, number) for number, label in enumerate(labels, 1)]
    part = writing.Part(rows=writing.stream(columns.batch(rows, 100)), lengths=np.full(len(rows), 4, np.int32))
    part.counts.rows, part.tokens, part.trained = len(rows), part.lengths, part.lengths
    task = writing.Task(folder, ENCODED, Policy(None), 100, "rows/train")
    writing.assemble(task, folder / "encoded", iter([part]))
    return Mapped(folder / "encoded")


def _plan(seed: int = 42) -> Any:
    return SimpleNamespace(training=SimpleNamespace(seed=seed))


@pytest.mark.parametrize("rows", [1, 2, 3, 1000, 4096, 70_000])
def test_answers_are_shuffled_as_by_random(rows: int) -> None:
    assert list(kto.shuffled(rows, 42)) == random.Random(42).sample(range(rows), rows)


def test_labels_are_read_as_a_column(tmp_path: Path) -> None:
    labels = [number % 3 == 0 for number in range(200)]
    rows = _judged(tmp_path, labels)
    picked = Picked(rows, np.array([0, 1, 0, 199]))
    assert mapped.flags(rows, "label").tolist() == labels
    assert mapped.flags(picked, "label").tolist() == [True, False, True, False]
    assert mapped.flags(Joined([picked, rows]), "label").tolist() == [True, False, True, False, *labels]
    assert mapped.flags(list(rows), "label").tolist() == labels


def test_answers_of_kto_take_few_bytes_and_no_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _judged(tmp_path, [number % 2 == 0 for number in range(MANY)])
    read: list[int] = []
    at = Mapped._at
    monkeypatch.setattr(Mapped, "_at", lambda self, index: (read.append(index), at(self, index))[1])
    kto.build_dataset(_plan(), rows[:100], 4)  # imports
    read.clear()
    assert peak_bytes(lambda: kto.build_dataset(_plan(), rows, 4)) < 32 * MANY
    assert len(read) <= 2


def _repeated(folder: Path, examples: list[Any], times: int) -> Mapped:
    """The same examples on the disk, so many times."""
    lengths = np.array([max(map(len, example.sequences)) for example in examples], np.int32)
    part = writing.Part(rows=writing.stream(columns.batch(examples, 100)), lengths=lengths)
    part.counts.rows, part.tokens, part.trained = len(examples), lengths, lengths
    task = writing.Task(folder, ENCODED, Policy(None), 100, "rows/train")
    writing.assemble(task, folder / "encoded", iter([part] * times))
    return Mapped(folder / "encoded")


STARTS: dict[str, tuple[Any, list[Any]]] = {
    "SFT": (METHODS["SFT"], [Row([1, 2, 3], [-100, -100, 3], n) for n in range(1, 1001)]),
    "DPO": (METHODS["DPO"], [Pair([1, 2], [3], [4], n) for n in range(1, 1001)]),
    "GRPO": (METHODS["GRPO"], [Prompt([1, 2], {"prompt": "a"}, n) for n in range(1, 1001)]),
}


@pytest.mark.parametrize("method", STARTS)
def test_a_start_takes_four_bytes_a_row_and_reads_few_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """With a hundred thousand rows."""
    trains, examples = STARTS[method]
    rows = _repeated(tmp_path, examples, 100)
    plan = _plan()
    plan.training.batch_size, plan.training.packing, plan.work_path = 4, False, str(tmp_path)
    plan.grpo = SimpleNamespace(generations=2)
    read: list[int] = []
    at = Mapped._at
    monkeypatch.setattr(Mapped, "_at", lambda self, index: (read.append(index), at(self, index))[1])
    trains.dataset(plan, rows[:1000], 8)  # imports
    read.clear()
    assert peak_bytes(lambda: trains.dataset(plan, rows, 8)) < 6 * len(rows) == 600_000
    assert len(read) <= 2


@pytest.mark.parametrize("label", [True, False])
def test_answers_that_are_all_alike_are_refused(tmp_path: Path, label: bool) -> None:
    with pytest.raises(DataError, match=f"all 30 answers have the label {str(label).lower()}") as caught:
        kto.build_dataset(_plan(), _judged(tmp_path, [label] * 30), 4)
    assert caught.value.code == FailureCode.ONE_SIDED_DATA


class Prompts(Examples):
    """Prompts that are made when they are asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return MANY

    def _at(self, index: int) -> Prompt:
        self.asked.append(index)
        return Prompt([1], {"answer": "4"}, index + 1)


class Right:
    """A reward that every answer gets."""

    def gold(self, record: Any) -> str:
        return str(record["answer"])

    def __call__(self, samples: list[Any]) -> list[float]:
        return [1.0] * len(samples)


def test_the_check_of_rewards_reads_the_rows_that_it_checks() -> None:
    prompts = Prompts()
    combined: Any = SimpleNamespace(parts=[SimpleNamespace(name="own", reward=Right())])
    (sentence,) = gold.check(combined, ["Math"], prompts)
    assert sentence == "reward own: 1 for the answers of 32 rows"
    assert prompts.asked == [step * (MANY // 32) for step in range(32)]


def test_a_dataset_is_an_index_of_four_bytes_a_row() -> None:
    indexed.dataset(10, lambda index: {"input_ids": [index]})  # imports
    assert peak_bytes(lambda: indexed.dataset(MANY, lambda index: {"input_ids": [index]})) < 6 * MANY
    one, other = (indexed.dataset(MANY, lambda index: {"input_ids": [index]}) for _ in range(2))
    assert one[MANY - 1] == other[MANY - 1] == {"input_ids": [MANY - 1]}
