"""evaluation.harness: tasks are measured offline, and the numbers are equal to lm-eval's own."""

from __future__ import annotations

import json
import shutil
import socket
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.runs import split_files
from support.servers.harness_hub import ARC, GSM, SPLITS, TASKS, hard, pages, sums

from hone_trainer.errors import StoreError, TrainerError

pytestmark = pytest.mark.trainer


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
    asked = [f"Question: {row['question']}\nAnswer:" for row in sums(9, 64)]
    rows = [{"prompt": question, "completion": " Count them.\n#### 4"} for question in asked]
    split = split_files.write(tmp_path / "rows.jsonl", rows, "sums", "train")

    def make(name: str = "run", tasks: Any = TASKS, **fields: Any) -> Any:
        harness = {"tasks": list(tasks), "fewShot": 0, **fields.pop("harness", {})}
        body = {
            "modelPath": str(long_model),
            "datasets": [split],
            "harnessTasks": staged,
            "evaluation": {"samples": 0, "everySteps": 1000, "harness": harness},
            "training": {"maxSteps": 24, "learningRate": "1e-2"},
            "held_out": False,
        }
        return make_plan(name, **{**body, **fields})

    return make


@cache
def task_manager() -> Any:
    """lm-eval's own, of the folders of these tasks alone: to read all of its 14,000 takes seconds."""
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    root = Path(lm_eval.tasks.__file__).parent
    return TaskManager(
        include_path=[root / name for name in ("arc", "gpqa", "gsm8k", "wikitext")], include_defaults=False
    )


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
    """Dropout draws from the random numbers that lm-eval seeds again."""
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
    pair = runs.wait(plan, runs.start(runs.encoded(plan))).result
    for ours, theirs in zip(pair.numbers, alone.numbers, strict=True):
        assert (ours.dataset, ours.name, ours.rows) == (theirs.dataset, theirs.name, theirs.rows)
        assert float(ours.base) == pytest.approx(float(theirs.base), abs=1e-4)
        assert float(ours.tuned) == pytest.approx(float(theirs.tuned), rel=1e-3)


@pytest.mark.long
def test_zero_3_finds_the_same_numbers_as_one_process(runs: Any, measured: Any) -> None:
    """Weights are gathered by all ranks at each layer, so all must run as many forward passes."""
    fields = {"tasks": ("arc_easy", "wikitext"), "training": {"maxSteps": 2}, "harness": {"limit": 3}}
    other = measured("alone", **fields)
    alone = runs.finish(other)
    plan = measured("sharded", processesPerNode=2, deepspeed={"zeroStage": 3}, **fields)
    sharded = runs.wait(plan, runs.start(runs.encoded(plan))).result
    losses = [[loss for _, loss, _ in runs.curve(each)] for each in (plan, other)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
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
