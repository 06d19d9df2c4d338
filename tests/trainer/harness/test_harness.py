"""evaluation.harness: staged from a hub by the real command, measured offline, and equal to lm-eval's own numbers."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hone_api.report import Outcome, TasksResult, parse_outcome
from hone_api.training import Harness
from hone_dev import hub
from hone_trainer.errors import StoreError, TrainerError
from hone_trainer.harness import catalogue, tasks

pytestmark = pytest.mark.trainer
TOKEN = "hf_canaryCanaryCanary42"
WORDS = ["river", "tower", "bridge", "market", "harbour", "garden", "Rome", "Oslo", "Lima", "Cairo", "Quito", "Tokyo"]
BROKEN = ("baber/piqa", "allenai/sciq", "allenai/openbookqa")
CARD = """\
---
license: cc-by-4.0
configs:
{configs}
---
# Made for tests
"""


def card(**files: dict[str, str]) -> str:
    """A card as the hub's data sets have it: configuration -> split -> glob."""
    lines = []
    for config, splits in files.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        lines += [f"  - split: {split}\n    path: {glob}" for split, glob in splits.items()]
    return CARD.format(configs="\n".join(lines))


def sentence(draw: random.Random, length: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(length))


def choices(seed: int, rows: int) -> list[dict[str, Any]]:
    """In the layout of allenai/ai2_arc."""
    draw = random.Random(seed)
    return [
        {
            "id": f"{seed}-{n}",
            "question": f"Where is the {sentence(draw, 4)}?",
            "choices": {"text": [sentence(draw, 1 + n % 4) for _ in range(4)], "label": ["A", "B", "C", "D"]},
            "answerKey": draw.choice("ABCD"),
        }
        for n in range(rows)
    ]


def sums(seed: int, rows: int) -> list[dict[str, Any]]:
    """In the layout of openai/gsm8k; half of the answers are 4."""
    draw = random.Random(seed)
    return [
        {"question": f"How many {sentence(draw, 2)}?", "answer": f"Count them.\n#### {4 if n % 2 else 7}"}
        for n in range(rows)
    ]


def pages(seed: int, rows: int) -> list[dict[str, Any]]:
    """In the layout of EleutherAI/wikitext_document_level."""
    draw = random.Random(seed)
    return [{"page": f" = {sentence(draw, 1)} = \n\n {sentence(draw, 5 + n)} . \n"} for n in range(rows)]


def hard(seed: int, rows: int) -> list[dict[str, Any]]:
    """In the layout of Idavidrein/gpqa, whose task shuffles the choices."""
    draw = random.Random(seed)
    names = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
    return [
        {"Question": sentence(draw, 6), **{name: f"{sentence(draw, 2)} {i}" for i, name in enumerate(names)}}
        for _ in range(rows)
    ]


ARC = {
    (config, split): choices(number, 12)
    for number, (config, split) in enumerate(
        (c, s) for c in ("ARC-Challenge", "ARC-Easy") for s in ("train", "validation", "test")
    )
}
SPLITS = ("train", "validation", "test")
GSM = {split: sums(number, 10) for number, split in enumerate(("train", "test"))}


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a hub with data sets in the layout of the real ones."""
    root = tmp_path_factory.mktemp("hub")
    arc = root / "datasets" / "allenai" / "ai2_arc" / "main"
    for (config, split), rows in ARC.items():
        write(arc / config / f"{split}-00000-of-00001.parquet", rows)
    described = {c: {s: f"{c}/{s}-*" for s in SPLITS} for c in ("ARC-Challenge", "ARC-Easy")}
    (arc / "README.md").write_text(card(**described))
    gsm = root / "datasets" / "openai" / "gsm8k" / "main"
    for split, rows in GSM.items():
        write(gsm / "main" / f"{split}-00000-of-00001.parquet", rows)
    (gsm / "README.md").write_text(card(main={s: f"main/{s}-*" for s in GSM}))
    wiki = root / "datasets" / "EleutherAI" / "wikitext_document_level" / "main"
    for number, split in enumerate(SPLITS):
        write(wiki / "wikitext-2-raw-v1" / f"{split}-00000-of-00001.parquet", pages(number, 6))
    config = "wikitext-2-raw-v1"
    (wiki / "README.md").write_text(card(**{config: {s: f"{config}/{s}-*" for s in SPLITS}}))
    gpqa = root / "datasets" / "Idavidrein" / "gpqa" / "main"
    gpqa.mkdir(parents=True)
    import pandas

    pandas.DataFrame(hard(3, 12)).to_csv(gpqa / "gpqa_main.csv", index=False)
    (gpqa / "README.md").write_text(card(gpqa_main={"train": "gpqa_main.csv"}))
    (gpqa.parent / "hub.json").write_text(json.dumps({"gated": True, "tokens": [TOKEN]}))
    return root


@pytest.fixture(scope="module")
def endpoint(repositories: Path) -> Iterator[str]:
    with hub.serve(repositories) as url:
        yield url


MANY = """\
import os, sys
from hone_trainer.__main__ import main
for name in sys.argv[1:]:
    os.environ["HONE_TERMINATION_LOG"] = f"{name}.log"
    main(["tasks", f"{name}.json"])
"""
"""Commands one after the other in one process: lm-eval's index is read once."""


class Stage:
    """Runs `python -m hone_trainer tasks` in a folder."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.endpoint, self.store, self.output = folder, endpoint, folder / "store", ""

    def __call__(self, *tasks: str, **fields: Any) -> Outcome:
        self._write("plan", list(tasks), **fields)
        self._run("-m", "hone_trainer", "tasks", "plan.json")
        return self._outcome("plan")

    def many(self, plans: dict[str, dict[str, Any]]) -> dict[str, Outcome]:
        """The outcome of each plan, by name."""
        for name, fields in plans.items():
            self._write(name, **fields)
        self._run("-c", MANY, *plans)
        return {name: self._outcome(name) for name in plans}

    def _write(self, name: str, tasks: list[str], secret: dict[str, str] | None = None, **fields: Any) -> None:
        limits = fields.pop("limits", {})
        plan = {"kind": "Tasks", "harness": {"tasks": tasks, **fields}, "store": "store", "limits": limits}
        if secret is not None:
            plan["secretPath"] = f"secret-{name}"
            (self.folder / f"secret-{name}").mkdir(exist_ok=True)
            for key, value in secret.items():
                (self.folder / f"secret-{name}" / key).write_text(value)
        (self.folder / f"{name}.json").write_text(json.dumps(plan))

    def _run(self, *arguments: str) -> None:
        home = {"HOME": str(self.folder), "HF_HOME": str(self.folder / "hf"), "HF_HUB_OFFLINE": "1"}
        log = {"HF_ENDPOINT": self.endpoint, "HONE_TERMINATION_LOG": "plan.log"}
        environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"} | home | log
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        self.output = done.stdout + done.stderr

    def _outcome(self, name: str) -> Outcome:
        outcome = parse_outcome((self.folder / f"{name}.log").read_text())
        assert outcome is not None, self.output
        return outcome

    def staged(self, *tasks: str, **fields: Any) -> TasksResult:
        outcome = self(*tasks, **fields)
        assert isinstance(outcome.result, TasksResult), f"{outcome}\n{self.output}"
        return outcome.result

    def inputs(self, result: TasksResult) -> dict[str, Any]:
        """As `harnessTasks` of a training plan."""
        told = result.to_json()
        return {
            "path": str(self.store / result.path),
            **{name: told[name] for name in ("digest", "version", "dataSets")},
        }


TASKS = ("arc_easy", "gsm8k", "wikitext")
FURTHER = ("ai2_arc", "gpqa_main_zeroshot")
"""A group, and a task whose data set is gated and whose choices are shuffled."""


@pytest.fixture(scope="module")
def staging_job(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> tuple[Stage, TasksResult]:
    """All of these, staged once."""
    stage = Stage(tmp_path_factory.mktemp("staged"), endpoint)
    return stage, stage.staged(*TASKS, *FURTHER, secret={"HF_TOKEN": TOKEN})


@pytest.fixture(scope="module")
def staged(staging_job: tuple[Stage, TasksResult]) -> dict[str, Any]:
    """`harnessTasks` of a plan."""
    stage, result = staging_job
    return stage.inputs(result)


@pytest.fixture(scope="module")
def long_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with room for questions with examples."""
    folder = tmp_path_factory.mktemp("long") / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    return folder


@pytest.fixture
def measured(make_plan: Any, long_model: Path, tmp_path: Path, staged: dict[str, Any]) -> Any:
    """Makes a plan that learns to answer the questions of gsm8k with 4, and measures tasks."""
    import hashlib

    rows = tmp_path / "rows.jsonl"
    asked = [f"Question: {row['question']}\nAnswer:" for row in sums(9, 64)]
    rows.write_text("".join(json.dumps({"prompt": q, "completion": " Count them.\n#### 4"}) + "\n" for q in asked))
    digest = f"sha256:{hashlib.sha256(rows.read_bytes()).hexdigest()}"

    def make(name: str = "run", tasks: Any = TASKS, **fields: Any) -> Any:
        harness = {"tasks": list(tasks), "fewShot": 0, **fields.pop("harness", {})}
        body = {
            "modelPath": str(long_model),
            "datasets": [{"name": "sums", "path": str(rows), "digest": digest}],
            "harnessTasks": staged,
            "evaluation": {"samples": 0, "everySteps": 1000, "harness": harness},
            "training": {"maxSteps": 24, "learningRate": "1e-2"},
            "held_out": False,
        }
        return make_plan(name, **{**body, **fields})

    return make


@cache
def task_manager() -> Any:
    """lm-eval's own, of all its tasks."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def reference(
    network: Any, tokenizer: Any, task: str, rows: dict[str, Any], folder: Path, **options: Any
) -> dict[str, float]:
    """What lm-eval itself finds: its own model class, its own definition of the task, rows that we never saw.

    Args:
        folder: for the rows: lm-eval counts on cache files, which rows in memory do not have.
    """
    import lm_eval
    from datasets import Dataset, DatasetDict, load_from_disk
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks._yaml_loader import load_yaml

    DatasetDict({split: Dataset.from_list(r) for split, r in rows.items()}).save_to_disk(folder / task)
    found, manager = load_from_disk(folder / task), task_manager()
    definition = load_yaml(manager.task_index[task].yaml_path, resolve_func=True)
    definition |= {"custom_dataset": lambda **_: found}
    for key in ("tag", "group"):
        definition.pop(key, None)
    lm = HFLM(pretrained=network.eval(), tokenizer=tokenizer, batch_size=3)
    results = lm_eval.simple_evaluate(
        lm, tasks=[definition], task_manager=manager, bootstrap_iters=0, log_samples=False, **options
    )
    return {name: value for name, value in results["results"][task].items() if isinstance(value, float)}


@pytest.fixture
def networks() -> Any:
    """(base, tuned) of a plan whose run has ended, and the tokenizer."""

    def load(plan: Any) -> tuple[Any, Any, Any]:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        base, other = (AutoModelForCausalLM.from_pretrained(plan.model_path) for _ in range(2))
        tuned = PeftModel.from_pretrained(other, Path(plan.output_path) / "adapter")
        return base, tuned.merge_and_unload(), AutoTokenizer.from_pretrained(plan.model_path)

    return load


def by_name(result: Any) -> dict[tuple[str | None, str], Any]:
    return {(n.dataset, n.name): n for n in result.numbers if n.purpose == "Harness"}


def test_the_numbers_are_those_of_lm_eval_itself(
    runs: Any, measured: Any, networks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a run asks for nothing of the network")

    plan = measured()
    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect", refuse)
        result = runs.finish(plan)
    found = by_name(result)
    assert list(found) == [
        ("arc_easy", "acc"),
        ("arc_easy", "acc_norm"),
        ("gsm8k", "exact_match_strict_match"),
        ("gsm8k", "exact_match_flexible_extract"),
        ("wikitext", "word_perplexity"),
        ("wikitext", "byte_perplexity"),
        ("wikitext", "bits_per_byte"),
    ]
    base, tuned, tokenizer = networks(plan)
    data = {
        "arc_easy": {split: ARC["ARC-Easy", split] for split in SPLITS},
        "gsm8k": GSM,
        "wikitext": {split: pages(number, 6) for number, split in enumerate(SPLITS)},
    }
    names = {
        "exact_match,strict-match": "exact_match_strict_match",
        "exact_match,flexible-extract": "exact_match_flexible_extract",
    }
    for side, network in (("base", base), ("tuned", tuned)):
        for task, rows in data.items():
            for key, value in reference(network, tokenizer, task, rows, tmp_path / side, num_fewshot=0).items():
                number = found[task, names.get(key, key.removesuffix(",none"))]
                close = 1e-4 if task == "wikitext" else 0
                assert float(getattr(number, side)) == pytest.approx(value, rel=close, abs=1e-6), (side, task, key)
    assert float(found["gsm8k", "exact_match_strict_match"].base) == 0
    assert float(found["gsm8k", "exact_match_strict_match"].tuned) == 0.5, "half of the answers are 4"
    for number in found.values():
        assert float(number.low) <= float(number.tuned) <= float(number.high)
        assert float(number.change_low) <= float(number.tuned) - float(number.base) + 1e-6
    assert (found["arc_easy", "acc"].rows, found["gsm8k", "exact_match_strict_match"].rows) == (12, 10)

    folder = Path(plan.output_path) / "adapter"
    report = json.loads((folder / "report.json").read_text())
    assert report["lowest"] == [f"{n} on wikitext" for n in ("word_perplexity", "byte_perplexity", "bits_per_byte")]
    assert "| acc_norm (lm-evaluation-harness) | arc_easy (12) |" in (folder / "README.md").read_text()
    assert f"`{plan.harness_tasks.data_sets[0]}`" in (folder / "README.md").read_text()
    assert "arc_easy (12)" in (folder / "report.html").read_text()


def test_examples_and_the_chat_template_are_those_of_lm_eval(
    runs: Any, measured: Any, networks: Any, tmp_path: Path
) -> None:
    options = {"fewShot": 2, "limit": 5, "applyChatTemplate": True}
    plan = measured(tasks=("arc_easy",), harness=options, training={"maxSteps": 2})
    found = by_name(runs.finish(plan))
    base, _, tokenizer = networks(plan)
    told = {"num_fewshot": 2, "limit": 5, "apply_chat_template": True}
    rows = {split: ARC["ARC-Easy", split] for split in SPLITS}
    expected = reference(base, tokenizer, "arc_easy", rows, tmp_path, **told)
    assert float(found["arc_easy", "acc"].base) == pytest.approx(expected["acc,none"], abs=1e-6)
    assert float(found["arc_easy", "acc_norm"].base) == pytest.approx(expected["acc_norm,none"], abs=1e-6)
    assert {number.rows for number in found.values()} == {5}


def test_a_run_is_the_same_whether_it_is_measured_or_not(runs: Any, measured: Any) -> None:
    """Dropout draws from the random numbers that lm-eval seeds anew."""
    common = {"adapter": {"type": "LoRA", "dropout": "0.1"}, "training": {"maxSteps": 4}}
    plan = measured("measured", tasks=("arc_easy",), **common)
    other = measured("plain", **{**common, "harnessTasks": None, "evaluation": {"samples": 0, "everySteps": 1000}})
    runs.finish(plan)
    runs.finish(other)
    assert runs.curve(plan) == runs.curve(other)


def test_a_resumed_run_compares_with_the_base_of_its_first_attempt(runs: Any, measured: Any, interrupt: Any) -> None:
    fields = {"training": {"maxSteps": 8, "learningRate": "1e-2"}, "harness": {"limit": 2}}
    whole = runs.finish(measured("whole", **fields))
    plan = measured("broken", **fields)
    interrupt(plan, 4)
    assert runs.finish(plan).numbers == whole.numbers


@pytest.mark.attack("network of a rank")
def test_tasks_need_no_network(run_alone: Any, measured: Any) -> None:
    outcome, attempts = run_alone(measured("alone", training={"maxSteps": 1}).to_json())
    assert outcome.failure is None
    assert attempts == []


def test_two_ranks_find_the_same_numbers_as_one(runs: Any, measured: Any) -> None:
    fields = {"training": {"maxSteps": 2}, "harness": {"limit": 3}}
    alone = runs.finish(measured("alone", **fields))
    plan = measured("pair", processesPerNode=2, **fields)
    pair = runs.wait(plan, runs.start(plan)).result
    for ours, theirs in zip(pair.numbers, alone.numbers, strict=True):
        assert (ours.dataset, ours.name, ours.rows) == (theirs.dataset, theirs.name, theirs.rows)
        assert float(ours.base) == pytest.approx(float(theirs.base), abs=1e-4)
        assert float(ours.tuned) == pytest.approx(float(theirs.tuned), rel=1e-3)


def test_zero_3_finds_the_same_numbers_as_one_process(runs: Any, measured: Any) -> None:
    """Weights are gathered by all ranks at each layer, so all must run as many forward passes."""
    fields = {"tasks": ("arc_easy", "wikitext"), "training": {"maxSteps": 2}, "harness": {"limit": 3}}
    alone = runs.finish(measured("alone", **fields))
    plan = measured("sharded", processesPerNode=2, deepspeed={"zeroStage": 3}, **fields)
    sharded = runs.wait(plan, runs.start(plan)).result
    for ours, theirs in zip(sharded.numbers, alone.numbers, strict=True):
        assert float(ours.base) == pytest.approx(float(theirs.base), rel=1e-3, abs=1e-4)


def test_the_gate_names_what_became_worse(runs: Any, measured: Any) -> None:
    plan = measured(tasks=("wikitext",), harness={"maxRegression": "1%"}, training={"maxSteps": 16})
    result = runs.finish(plan)
    assert result.rejected is not None
    assert result.rejected.startswith("evaluation.harness: worse than the base model beyond 1.0%: ")
    assert "word_perplexity on wikitext by" in result.rejected
    assert (Path(plan.output_path) / "adapter" / "manifest.json").exists()
    assert runs.finish(measured("open", harness={"maxRegression": "99%"}, tasks=("arc_easy",))).rejected is None


def test_full_weights_and_a_method_without_a_fused_head(runs: Any, measured: Any, tmp_path: Path) -> None:
    rows = tmp_path / "pairs.jsonl"
    pair = {"prompt": [{"role": "user", "content": "Is 2 small?"}]}
    pair |= {key: [{"role": "assistant", "content": text}] for key, text in (("chosen", "yes"), ("rejected", "no"))}
    rows.write_text((json.dumps(pair) + "\n") * 16)
    dataset = {"name": "pairs", "path": str(rows), "digest": "sha256:" + "0" * 64}
    fields = {"tasks": ("arc_easy",), "training": {"maxSteps": 2}, "adapter": {"type": "None"}}
    plain = by_name(runs.finish(measured("sft", **fields)))
    preferred = by_name(runs.finish(measured("dpo", method="DPO", datasets=[dataset], **fields)))
    assert [n.base for n in plain.values()] == [n.base for n in preferred.values()]


def test_tasks_that_the_model_cannot_read_are_refused_before_its_weights(
    runs: Any, measured: Any, tiny_model: Path
) -> None:
    with pytest.raises(TrainerError, match=r"gsm8k has answers of up to 256 tokens, the model reads 256"):
        runs.finish(measured(modelPath=str(tiny_model)))


def test_a_chat_template_that_is_not_there_is_refused(
    runs: Any, measured: Any, long_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(long_model, folder)
    (folder / "chat_template.jinja").unlink()
    plan = measured(modelPath=str(folder), harness={"applyChatTemplate": True})
    with pytest.raises(TrainerError, match="tokenizer has no chat template: remove it"):
        runs.finish(plan)


def test_a_plan_without_staged_tasks_says_how_to_stage_them(runs: Any, measured: Any) -> None:
    with pytest.raises(TrainerError, match="stage them by `python -m hone_trainer tasks`"):
        runs.finish(measured(harnessTasks=None))


def test_damaged_rows_are_not_measured_on(runs: Any, measured: Any, staged: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(staged["path"], folder)
    file = next((folder / "data").rglob("*.arrow"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreError) as caught:
        runs.finish(measured(harnessTasks={**staged, "path": str(folder)}))
    assert caught.value.code == "ManifestMismatch"


def test_a_group_is_measured_over_the_rows_of_all_its_tasks(
    runs: Any, measured: Any, networks: Any, tmp_path: Path
) -> None:
    plan = measured(tasks=("ai2_arc", "arc_easy"), training={"maxSteps": 1})
    found = by_name(runs.finish(plan))
    assert (found["ai2_arc", "acc"].rows, found["arc_easy", "acc"].rows) == (24, 12)
    base, _, tokenizer = networks(plan)
    right = 0.0
    for task, config in (("arc_easy", "ARC-Easy"), ("arc_challenge", "ARC-Challenge")):
        rows = {split: ARC[config, split] for split in SPLITS}
        right += 12 * reference(base, tokenizer, task, rows, tmp_path, num_fewshot=0)["acc,none"]
    assert float(found["ai2_arc", "acc"].base) == pytest.approx(right / 24, abs=1e-6)


def test_choices_that_a_task_shuffles_stay_as_they_were_asked(
    runs: Any, measured: Any, networks: Any, tmp_path: Path
) -> None:
    plan = measured(tasks=("gpqa_main_zeroshot",), training={"maxSteps": 1})
    found = by_name(runs.finish(plan))
    base, _, tokenizer = networks(plan)
    expected = reference(base, tokenizer, "gpqa_main_zeroshot", {"train": hard(3, 12)}, tmp_path)
    assert float(found["gpqa_main_zeroshot", "acc"].base) == pytest.approx(expected["acc,none"], abs=1e-6)


# -- staging -------------------------------------------------------------------------------------


def failed(outcome: Outcome, code: str) -> str:
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
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing is left beside it"
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


def test_all_that_is_wrong_is_told_at_once() -> None:
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
def outcomes(repositories: Path, endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
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
def test_what_cannot_be_staged_says_why(outcomes: dict[str, Outcome], name: str) -> None:
    _, code, words = REFUSED[name]
    assert words in failed(outcomes[name], code)


def test_people_are_told_what_a_task_does_not_take(staged: dict[str, Any]) -> None:
    loaded = tasks.load(Path(staged["path"]), Harness(tasks=["gpqa_main_zeroshot"], few_shot=3))
    assert loaded.sentences == (
        "evaluation.harness.fewShot: gpqa_main_zeroshot takes no examples by its own definition",
    )


def test_tasks_that_were_not_staged_are_named(staged: dict[str, Any]) -> None:
    with pytest.raises(TrainerError, match="hellaswag was not staged"):
        tasks.load(Path(staged["path"]), Harness(tasks=["arc_easy", "hellaswag"]))
