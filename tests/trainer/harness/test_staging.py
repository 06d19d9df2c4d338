"""evaluation.harness: tasks are staged from a hub by the real command, or refused with the reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.servers.harness_hub import FURTHER, SPLITS, TASKS, TOKEN, Stage, card, choices, write

from hone_api.blocks.evaluation import Harness
from hone_api.contract.report import TasksResult
from hone_api.contract.termination import TerminationMessage
from hone_trainer.errors import TrainerError
from hone_trainer.harness import catalogue, tasks

pytestmark = pytest.mark.trainer
BROKEN = ("baber/piqa", "allenai/sciq", "allenai/openbookqa")


def failed(outcome: TerminationMessage, code: str) -> str:
    assert outcome.failure is not None, outcome
    assert outcome.failure.code == code, outcome.failure.message
    return outcome.failure.message


def test_data_sets_are_pinned_and_a_second_time_not_fetched(staging_job: tuple[Stage, TasksResult]) -> None:
    stage, first = staging_job
    assert TOKEN not in stage.output
    names = [pinned.partition("@") for pinned in first.data_sets]
    assert [name for name, _, _ in names] == [
        "EleutherAI/wikitext_document_level",
        "Idavidrein/gpqa",
        "allenai/ai2_arc",
        "openai/gsm8k",
    ]
    assert all(len(commit) == 40 for _, _, commit in names)
    folder = stage.store / first.path
    index = json.loads((folder / "tasks.json").read_text())
    assert [w["name"] for w in index["benchmarks"]] == [*TASKS, *FURTHER]
    assert [d["splits"] for d in index["data"][:2]] == [list(SPLITS), ["train", "test"]]
    assert len(index["data"]) == 5, "the group and its task share one of them"
    assert {file.suffix for file in (folder / "data").rglob("*") if file.is_file()} == {".arrow", ".json"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing is left next to it"
    inode = (folder / "tasks.json").stat().st_ino
    assert stage.staged(*TASKS, *FURTHER, secret={"HF_TOKEN": TOKEN}) == first
    assert (folder / "tasks.json").stat().st_ino == inode
    assert "already in the store" in stage.output
    told = json.loads(stage.output.split("harnessTasks of a plan: ")[1].splitlines()[0])
    assert told == stage.inputs(first)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("arc_eazy", "arc_eazy is not a task of lm-eval 0.4.13; near to it: arc_easy"),
        ("humaneval", "humaneval runs code that the model writes (unsafe_code)"),
        ("mbpp", "evaluation.rewards of type Code, which has a sandbox"),
        ("squadv2", "squadv2 is a program that loads its own rows"),
        ("ruler", "(of group ruler)"),
        ("mmmu_val", "shows pictures"),
        ("flan_held_in", "is a group that changes its tasks: name the tasks themselves"),
        ("gsm8k_cot_self_consistency", "samples answers"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(task: str, words: str) -> None:
    with pytest.raises(TrainerError, match=re.escape(words)) as caught:
        catalogue.find([task])
    assert caught.value.code == "InvalidConfiguration"


def test_all_that_is_wrong_is_reported_at_once() -> None:
    with pytest.raises(TrainerError, match=r"arc_eazy is not a task.*; humaneval runs code"):
        catalogue.find(["arc_easy", "arc_eazy", "humaneval"])


@pytest.mark.parametrize("name", ["arc_easy", "hellaswag", "gsm8k", "mmlu", "truthfulqa_mc2", "winogrande", "piqa"])
def test_what_people_measure_most_can_be_staged(name: str) -> None:
    (wanted,) = catalogue.find([name])
    assert wanted.name == name
    assert all(task.splits and task.data.repository for task in wanted.tasks)
    assert len(wanted.tasks) == (57 if name == "mmlu" else 1)


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "gated": ({"tasks": ["gpqa_main_zeroshot"]}, "GatedModelAccessDenied", "Idavidrein/gpqa"),
    "no-secret": ({"tasks": ["gsm8k"], "secret": {}}, "SecretNotFound", "does not exist"),
    "too-large": ({"tasks": ["gsm8k"], "limits": {"maxSourceBytes": 100}}, "SourceTooLarge", "limit 100"),
    "absent": ({"tasks": ["hellaswag"]}, "DatasetSourceNotFound", "Rowan/hellaswag"),
    "program": ({"tasks": ["piqa"]}, "InvalidConfiguration", "piqa.py, and no code of a data set is run"),
    "split": ({"tasks": ["sciq"]}, "InvalidConfiguration", "has no split validation, test; it has train"),
    "damage": ({"tasks": ["openbookqa"]}, "DamagedFile", "allenai/openbookqa"),
    "examples": ({"tasks": ["gsm8k"], "fewShot": 64}, "InvalidConfiguration", "cannot be asked with 64 examples"),
}
"""Plan, code, words of the message."""


@pytest.fixture(scope="module")
def outcomes(
    repositories: Path, endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, TerminationMessage]:
    """Of all of them, with data sets that are a program, lack a split, or are damaged."""
    program, split, damage = (repositories / "datasets" / name / "main" for name in BROKEN)
    program.mkdir(parents=True)
    (program / "piqa.py").write_text("raise SystemExit")
    (program / "README.md").write_text("# Nothing")
    write(split / "train.parquet", choices(1, 4))
    damage.mkdir(parents=True)
    (damage / "main.parquet").write_bytes(b"PAR1 and nothing more PAR1")
    (damage / "README.md").write_text(card(main={s: "main.parquet" for s in SPLITS}))
    stage = Stage(tmp_path_factory.mktemp("refused"), endpoint)
    found = stage.many({name: plan for name, (plan, _, _) in REFUSED.items()})
    assert len(list(stage.store.rglob("manifest.json"))) == 1, "only the rows that too few examples were found in"
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_staged_says_why(outcomes: dict[str, TerminationMessage], name: str) -> None:
    _, code, words = REFUSED[name]
    assert words in failed(outcomes[name], code)


def test_what_a_task_does_not_take_is_reported(staged: dict[str, Any]) -> None:
    loaded = tasks.load(Path(staged["path"]), Harness(tasks=["gpqa_main_zeroshot"], few_shot=3))
    assert loaded.sentences == (
        "evaluation.harness.fewShot: gpqa_main_zeroshot takes no examples by its own definition",
    )


def test_tasks_that_were_not_staged_are_named(staged: dict[str, Any]) -> None:
    with pytest.raises(TrainerError, match="hellaswag was not staged"):
        tasks.load(Path(staged["path"]), Harness(tasks=["arc_easy", "hellaswag"]))
