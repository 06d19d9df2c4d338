"""`hone convert`: every key of a configuration is accounted for, and what comes out is what the API takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from hone_api.base.reading import read_known
from hone_api.dataset.dataset import DatasetSpec
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_cli.__main__ import application
from hone_cli.convert import values
from hone_cli.convert.engine import flat
from hone_cli.convert.tables import ValueRow, tables
from hone_dev.generate import convert_tables
from hone_trainer.datasets.formats.expressions import evaluate

pytestmark = pytest.mark.pure
COMPUTED = {"x.micro", "x.accumulation", "x.total", "x.batch", "x.warmupSteps", "x.revision", "x.grader"}
"""Values that fields are computed from."""
AXOLOTL = """
base_model: NousResearch/Meta-Llama-3-8B
load_in_4bit: true
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_target_modules: [q_proj, v_proj]
datasets:
- {path: tatsu-lab/alpaca, type: alpaca, split: "train[:10%]"}
- {path: data/own.jsonl, type: chat_template, field_messages: conversations,
   message_property_mappings: {role: from, content: value}}
val_set_size: 0.05
sequence_len: 4096
sample_packing: true
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 3
max_steps: 100
optimizer: muon
lr_scheduler: cosine
learning_rate: 2e-4
warmup_steps: 10
wandb_project:
flash_attention: true
special_tokens: {pad_token: "<|end_of_text|>"}
"""


def convert(tmp_path: Path, text: str, *options: str, ending: str = "yaml") -> Any:
    """What the command prints, as JSON."""
    file = tmp_path / f"config.{ending}"
    file.write_text(text)
    result = CliRunner().invoke(application(["convert", "list"]), ["convert", str(file), "-o", "json", *options])
    assert result.exit_code in (0, 6), result.stderr
    return json.loads(result.stdout)


def spec(body: dict[str, Any], kind: str = "FineTuneJob", number: int = 0) -> dict[str, Any]:
    return [each["spec"] for each in body["objects"] if each["kind"] == kind][number]


def test_each_key_is_in_the_manifest_or_has_a_reason(tmp_path: Path) -> None:
    body = convert(tmp_path, AXOLOTL, "--gpus", "2")
    assert {*body["keys"]} == {key for key, _ in flat(yaml.safe_load(AXOLOTL))}
    job = spec(body)
    assert job["model"] == {"uri": "hf://NousResearch/Meta-Llama-3-8B"}
    assert job["adapter"] == {"type": "QLoRA", "rank": 32, "alpha": 16, "targets": ["q_proj", "v_proj"]}
    assert job["training"] == {
        "maxLength": 4096,
        "packing": True,
        "batchSize": 16,
        "microBatchSize": 2,
        "maxSteps": 100,
        "scheduler": "Cosine",
        "learningRate": "2e-4",
        "warmupRatio": "0.1",
    }
    assert [each["name"] for each in job["datasets"]] == ["config-1", "config-2"]
    first, second = spec(body, "Dataset"), spec(body, "Dataset", 1)
    assert first["source"] == {"uri": "hf://tatsu-lab/alpaca", "split": "train"}
    assert first["splits"] == second["splits"] == {"validation": "5%"}
    assert second["source"] == {"uri": "pvc://config-2/own.jsonl"}
    assert (second["format"], second["columns"]) == ("ShareGPT", {"conversations": "conversations"})
    assert body["uploads"] == ["hone upload data/own.jsonl config-2"]
    fates = {key: each["fate"] for key, each in body["keys"].items() if each["fate"] != "mapped"}
    assert fates == {
        "num_epochs": "dropped",
        "flash_attention": "dropped",
        "datasets[0].split": "differs",
        "optimizer": "differs",
        "special_tokens.pad_token": "differs",
    }


def test_the_manifest_is_yaml_that_says_where_each_field_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(AXOLOTL)
    result = CliRunner().invoke(application(["convert", "list"]), ["convert", str(file)])
    assert result.exit_code == 0
    *datasets, job = yaml.safe_load_all(result.stdout)
    assert [DatasetSpec.model_validate(each["spec"]) for each in datasets]
    assert FineTuneJobSpec.model_validate(job["spec"]).training.batch_size == 8
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "batchSize: 8  # micro_batch_size x gradient_accumulation_steps" in lines
    assert 'learningRate: "2e-4"  # learning_rate' in lines
    assert "#   optimizer: Hone trains with AdamW" in lines
    assert (
        "# First: hone upload data/own.jsonl config-2; if it prints another address than source.uri, write it there"
        in lines
    )


def test_an_unknown_key_is_listed_and_has_an_exit_code(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(AXOLOTL + "lora_rr: 8\n")
    result = CliRunner().invoke(application(["convert", "list"]), ["convert", str(file)])
    assert result.exit_code == 6
    assert "#   lora_rr: not a key that Hone knows" in result.stdout


@pytest.mark.parametrize(
    ("text", "words", "code"),
    [
        (AXOLOTL + "processor_type: AutoProcessor\n", "Hone trains on texts", 3),
        (AXOLOTL + "rl: ebft\n", "docs/guides/methods", 3),
        (AXOLOTL.replace("NousResearch/Meta-Llama-3-8B", "/models/llama"), "--model OWNER/NAME", 3),
        ("base_model: a/b\n", "names no rows", 3),
        ("model_name_or_path: a/b\ndataset_name:\ndataset_mixer: {a/rows: 1.0}\n", "but dataset_mixer", 3),
        ("apiVersion: v1\nkind: Pod\n", "name one by --from", 1),
        ("a: [", "is not YAML", 1),
        ("- 1\n- 2\n", "not one mapping", 1),
    ],
)
def test_what_no_job_does_is_refused_with_the_way_out(tmp_path: Path, text: str, words: str, code: int) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    result = CliRunner().invoke(application(["convert", "list"]), ["convert", str(file)])
    assert result.stdout == ""
    said = result.stderr if code == 3 else str(result.exception)
    assert (result.exit_code, words in said) == (code, True), said


def test_a_method_of_an_option_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(AXOLOTL)
    result = CliRunner().invoke(application(["convert", "list"]), ["convert", str(file), "--method", "dpo"])
    assert (result.exit_code, "--method dpo: Hone has SFT" in result.stderr) == (3, True)


def test_what_the_api_refuses_is_left_out_in_its_words(tmp_path: Path) -> None:
    body = convert(tmp_path, AXOLOTL.replace("lora_r: 32", "lora_r: 4000").replace("2e-4", "20"))
    assert "rank" not in spec(body)["adapter"]
    assert "less than or equal to 1024" in body["keys"]["lora_r"]["words"]
    assert body["keys"]["learning_rate"]["fate"] == "differs"
    assert "learningRate" not in spec(body)["training"]


def _rows() -> list[tuple[str, str, str, Any]]:
    """Tool, key, target and value (None: any) of each line of each table."""
    rows = []
    for tool, table in tables().items():
        rows += [(tool, "defaults", target, values.default(value)[0]) for target, value in table.defaults.items()]
        for key, row in table.keys.items():
            if not isinstance(row, ValueRow):
                pairs = [each.partition(" ") for each in ([row] if isinstance(row, str) else row)]
                assert {how for *_, how in pairs} <= {*values.CONVERSIONS}, (tool, key)
                rows += [(tool, key, to, None) for to, *_ in pairs]
                continue
            for result in row.values.values():
                if isinstance(result, dict):
                    targets = {to: value for to, value in result.items() if not to.startswith("unless ")}
                    rows += [(tool, key, to, values.typed(value)) for to, value in targets.items()]
                elif str(result).startswith("partly: "):
                    rows.append((tool, key, row.to, values.typed(result.split(": ")[1])))
                elif not str(result).startswith(("refused: ", "differs: ")) and values.typed(result) is not None:
                    rows.append((tool, key, row.to, values.typed(result)))
    return rows


def _has(model: type[BaseModel], path: str, value: Any) -> str:
    """Why the field cannot be, or its value; empty if it can."""
    body: Any = "any" if value is None else value
    for step in reversed(path.split(".")):
        body = {step: body}
    try:
        read_known(model, body)
    except ValidationError as error:
        here = [e for e in error.errors() if ".".join(map(str, e["loc"])).startswith(path)]
        unknown = [e for e in error.errors() if e["type"] == "extra_forbidden"]
        return str(unknown or (value is not None and here) or "")
    return ""


def test_every_target_of_a_table_is_a_field_and_every_value_is_one_of_it() -> None:
    wrong = []
    for tool, key, target, value in _rows():
        root, _, path = target.partition(".")
        if target in COMPUTED or target == "dropped":
            continue
        model, field = (DatasetSpec, path) if root in ("rows", "held") else (FineTuneJobSpec, target)
        if problem := _has(model, field, value):
            wrong.append((tool, key, target, value, problem))
    assert wrong == []


def _counts(target: str) -> bool:
    """Whether a field takes 8 and, in a manifest, no text "8"."""
    root, _, path = target.partition(".")
    model, field = (DatasetSpec, path) if root in ("rows", "held") else (FineTuneJobSpec, target)
    texts: Any = "8"
    for step in reversed(field.split(".")):
        texts = {step: texts}
    try:
        model.model_validate_json(json.dumps(texts), strict=True)
    except ValidationError as error:
        return not _has(model, field, 8) and "int_type" in [e["type"] for e in error.errors()]
    return False


def test_a_number_of_a_source_may_be_a_text_where_the_field_counts() -> None:
    assert _counts("adapter.rank")
    assert not _counts("training.epochs")
    assert [row for row in _plain() if _counts(row[2])] == []


def _plain() -> list[tuple[str, str, str]]:
    """Tool, key and target of each line without a conversion."""
    return [
        (tool, key, to)
        for tool, table in tables().items()
        for key, row in table.keys.items()
        if not isinstance(row, ValueRow)
        for to in ([row] if isinstance(row, str) else row)
        if " " not in to and to not in COMPUTED
    ]


PUBLISHED: dict[str, tuple[dict[str, Any], Any]] = {
    'pick(label, {"0": endings[0], "1": endings[1], "2": endings[2], "3": endings[3]})': (
        {"endings": ["a", "b", "c", "d"], "label": "2"},
        "c",
    ),
    "lines(context, question)": ({"context": "C.", "question": "Q?"}, "C.\n\nQ?"),
    "answers.text[0]": ({"answers": {"text": ["x", "y"], "answer_start": [1, 2]}}, "x"),
    "input.messages": (
        {"input": {"messages": [{"role": "user", "content": "Hi"}]}},
        [{"role": "user", "content": "Hi"}],
    ),
}
"""Expressions of the tables, with a row as HellaSwag, SQuAD and OpenAI publish it, and what is read from it."""


def test_each_expression_of_a_table_reads_rows_as_they_are_published() -> None:
    columns = {str(value) for _, _, target, value in _rows() if ".columns." in target and value is not None}
    assert {*PUBLISHED} == {column for column in columns if not column.isidentifier()}
    assert {text: evaluate(text, row) for text, (row, _) in PUBLISHED.items()} == {
        t: r for t, (_, r) in PUBLISHED.items()
    }


def test_no_key_is_in_a_table_twice() -> None:
    twice = []
    for tool, table in tables().items():
        own = [
            *table.keys,
            *(k for kind in ("dropped", "differs", "refused") for ks in getattr(table, kind).values() for k in ks),
        ]
        twice += [(tool, key) for key in {*own} if own.count(key) > 1]
    assert twice == []


def test_the_guide_is_made_of_the_tables() -> None:
    assert convert_tables.PAGE.read_text() == convert_tables.page(), "run python -m hone_dev.generate.convert_tables"


FULL = """
base_model: Qwen/Qwen3-8B
datasets: [{path: tatsu-lab/alpaca, type: alpaca}]
micro_batch_size: 2
gradient_accumulation_steps: 4
"""
YARN = (
    "overrides_of_model_config: {rope_scaling: {rope_type: yarn, factor: 4.0, original_max_position_embeddings: 32768}}"
)


def test_gpus_that_share_rows_are_one_rank_of_the_batch(tmp_path: Path) -> None:
    body = convert(tmp_path, f"{FULL}context_parallel_size: 4\n", "--gpus", "8")
    assert spec(body)["training"]["sequenceParallel"] == 4
    assert spec(body)["training"]["batchSize"] == 2 * 4 * 2


@pytest.mark.parametrize(
    ("lines", "options", "reason"),
    [
        ("", [], "--gpus 4 keeps it"),
        ("", ["--gpus", "6"], "--gpus 4 keeps it"),
        ("rl: dpo", ["--gpus", "4"], "is for methods SFT and DAPT"),
        ("neftune_noise_alpha: 5", ["--gpus", "4"], "does not go with sft.neftuneAlpha"),
    ],
)
def test_rows_are_not_shared_where_hone_refuses_it(tmp_path: Path, lines: str, options: list[str], reason: str) -> None:
    body = convert(tmp_path, f"{FULL}sequence_parallel_degree: 4\n{lines}\n", *options)
    assert "sequenceParallel" not in spec(body)["training"]
    assert body["keys"]["sequence_parallel_degree"]["fate"] == "dropped"
    assert reason in body["keys"]["sequence_parallel_degree"]["words"]


def test_scaled_positions_are_scaled(tmp_path: Path) -> None:
    body = convert(tmp_path, FULL + YARN)
    assert spec(body)["training"]["ropeScaling"] == {"type": "YaRN", "factor": 4}
    fates = [key["fate"] for name, key in body["keys"].items() if name.startswith("overrides_of_model_config")]
    assert sorted(fates) == ["dropped", "mapped", "mapped"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{YARN}\nadapter: lora", "with adapter.type None and not LoRA"),
        (YARN.replace("yarn", "linear"), "scales positions by YaRN"),
        (YARN.replace("factor: 4.0, ", ""), "needs a type, YaRN, and a factor"),
        (YARN.replace("4.0", "1.0"), "above 1"),
    ],
)
def test_other_scaling_is_named(tmp_path: Path, text: str, reason: str) -> None:
    body = convert(tmp_path, f"{FULL}{text}\n")
    assert "ropeScaling" not in spec(body)["training"]
    reasons = [key["words"] for key in body["keys"].values() if key["fate"] == "differs"]
    assert any(reason in each for each in reasons), reasons
