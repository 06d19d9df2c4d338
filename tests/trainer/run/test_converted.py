"""What `hone convert` makes of configurations of other tools trains to the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.runs.sampled_sums import write
from typer.testing import CliRunner

from hone_cli.__main__ import application
from hone_cli.convert import reading
from hone_cli.convert.engine import Conversion, Converted, ConvertRequest, flat
from hone_cli.convert.migrate import parity_lines
from hone_cli.convert.tables import detected, tables
from hone_trainer.datasets.formats import detect

pytestmark = pytest.mark.trainer
GRADERS = {
    "vowels": {
        "type": "python",
        "name": "vowels",
        "source": "def grade(sample, item):\n    return sum(c in item['wanted'] for c in sample['output_text'])",
    },
    "near": {
        "type": "text_similarity",
        "name": "near",
        "input": "{{sample.output_text}}",
        "reference": "{{item.best}}",
        "evaluation_metric": "fuzzy_match",
    },
}
SOURCES: dict[str, dict[str, Any]] = {
    "axolotl": {
        "base_model": "team/tiny",
        "datasets": [{"path": "team/rows", "type": "chat_template"}],
        "adapter": "lora",
        "lora_r": 4,
        "lora_alpha": 8,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "lr_scheduler": "cosine",
        "warmup_steps": 1,
        "sequence_len": 64,
        "sample_packing": False,
        "optimizer": "adamw_torch",
    },
    "torchtune": {
        "checkpointer": {"_component_": "torchtune.training.FullModelHFCheckpointer"},
        "model": {"_component_": "torchtune.models.llama3_2.llama3_2_1b"},
        "dataset": {"_component_": "torchtune.datasets.chat_dataset", "source": "team/rows"},
        "tokenizer": {"max_seq_len": 64},
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "epochs": 1,
        "optimizer": {"_component_": "torch.optim.AdamW", "lr": "2e-5"},
    },
    "openai": {
        "model": "o4-mini",
        "training_file": "file-1",
        "method": {
            "type": "reinforcement",
            "reinforcement": {
                "grader": {
                    "type": "multi",
                    "name": "all",
                    "graders": GRADERS,
                    "calculate_output": "0.5 * vowels + near",
                },
                "hyperparameters": {"n_epochs": 1, "batch_size": 8},
            },
        },
        "seed": 7,
    },
    "llamafactory": {
        "model_name_or_path": "team/tiny",
        "stage": "sft",
        "finetuning_type": "lora",
        "lora_rank": 4,
        "dataset": "team/rows",
        "cutoff_len": 64,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "max_steps": 3,
    },
    "automodel": {
        "recipe": "TrainFinetuneRecipeForNextTokenPrediction",
        "step_scheduler": {"global_batch_size": 8, "local_batch_size": 2, "max_steps": 3},
        "model": {
            "_target_": "nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained",
            "pretrained_model_name_or_path": "team/tiny",
        },
        "peft": {"_target_": "nemo_automodel.components._peft.lora.PeftConfig", "dim": 4, "alpha": 8},
        "dataset": {
            "_target_": "nemo_automodel.components.datasets.llm.chat_dataset.ChatDataset",
            "path_or_dataset_id": "team/rows",
        },
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-5},
    },
    "trl": {
        "model_name_or_path": "team/tiny",
        "dataset_name": "team/rows",
        "use_peft": True,
        "lora_r": 4,
        "max_length": 64,
        "max_steps": 3,
        "per_device_train_batch_size": 4,
    },
    "kaito": {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "tuning"},
        "resource": {"instanceType": "Standard_NC24ads_A100_v4"},
        "tuning": {
            "preset": {"name": "phi-3-mini-128k-instruct"},
            "method": "lora",
            "input": {"urls": ["https://huggingface.co/datasets/team/rows/resolve/main/train.parquet"]},
            "output": {"image": "registry.example.org/phi:1"},
        },
    },
    "trainjob": {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "tune"},
        "spec": {
            "runtimeRef": {"name": "torchtune-llama3.2-1b"},
            "initializer": {
                "dataset": {"storageUri": "hf://team/rows"},
                "model": {"storageUri": "hf://team/tiny"},
            },
            "trainer": {"args": ["epochs=1", "batch_size=4", "optimizer.lr=1e-5"]},
        },
    },
}


def converted(folder: Path, source: dict[str, Any]) -> Converted:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(source))
    document = reading.read(file)
    tool = detected(key for key, _ in flat(document))
    assert tool
    return Conversion(tables()[tool], ConvertRequest("tiny", model="team/tiny", gpus=1)).convert(document)


def rows(method: str) -> list[dict[str, Any]]:
    if method == "GRPO":  # as the columns of the Dataset make them
        answer = json.dumps({"best": "a tower", "wanted": "aeiou"})
        return [{"prompt": f"Where is {n}?", "answer": answer} for n in range(8)]
    turns = ({"role": "user", "content": "Where is {}?"}, {"role": "assistant", "content": "Near the tower of {}."})
    return [{"messages": [{**turn, "content": turn["content"].format(n)} for turn in turns]} for n in range(12)]


@pytest.mark.parametrize("tool", SOURCES)
def test_a_converted_job_trains_to_the_end(runs: Any, make_plan: Any, tmp_path: Path, tool: str) -> None:
    result = converted(tmp_path, SOURCES[tool])
    spec = result.objects[-1]["spec"]
    blocks = {name: spec[name] for name in ("method", "adapter", "sft", "grpo") if name in spec}
    files = {}
    if "grpo" in blocks:  # small, as the other runs of the tests
        blocks["grpo"] |= {"generations": 4, "maxCompletionLength": 6, "constantSteps": 1000}
        (config_map, *_) = result.objects
        for key, text in config_map["data"].items():
            (tmp_path / key).write_text(text)
        files = {each["name"]: str(tmp_path / each["python"]["key"]) for each in blocks["grpo"]["rewards"]}
    data = [write(tmp_path / "rows.jsonl", rows(spec.get("method", "SFT")))]
    run = make_plan(
        "run",
        **blocks,
        training={"maxSteps": None, **spec["training"]},
        datasets=data,
        evaluationDatasets=[],
        rewardPaths=files,
    )
    done = runs.finish(run)
    assert done.reason == "Completed"
    assert done.steps >= 2
    assert [artifact.format for artifact in done.artifacts] == [
        "Full" if tool in ("torchtune", "trainjob") else "Adapter"
    ]


def test_a_migrated_job_ends_with_a_comparison_with_the_recorded_answers(
    runs: Any, make_plan: Any, tmp_path: Path
) -> None:
    """The old model answered as the references do, which a few steps of a tiny model cannot: parity is refuted."""
    turns, job = rows("SFT"), {key: SOURCES["openai"][key] for key in ("model", "training_file", "seed")}
    (tmp_path / "tiny.json").write_text(json.dumps(job))
    for name, chosen in (("train", turns[:8]), ("held", turns[8:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    held = str(tmp_path / "held.jsonl")
    files = ["-t", str(tmp_path / "train.jsonl"), "--validation", held, "-r", held, "-o", str(tmp_path / "out")]
    command = ["migrate", "openai", str(tmp_path / "tiny.json"), "-m", "team/tiny", *files]
    assert CliRunner().invoke(application(), command).exit_code == 0
    made = {
        f"{b['kind']}/{b['metadata']['name']}": b for b in yaml.safe_load_all((tmp_path / "out/manifest.yaml").open())
    }
    spec, code = made["FineTuneJob/tiny-1"]["spec"], made["ConfigMap/tiny-evals"]["data"]
    for key, text in code.items():
        (tmp_path / key).write_text(text)
    dataset = made["Dataset/tiny-held"]["spec"]
    raw = [json.loads(line) for line in (tmp_path / "out/tiny-held.jsonl").read_text().splitlines()]
    detected = detect.choose(dataset["format"], dataset["columns"], raw)
    evaluation = {**spec["evaluation"], "maxNewTokens": 8}
    plan = make_plan(
        training={"maxSteps": 2},
        datasets=[write(tmp_path / "rows.jsonl", turns[:8])],
        evaluationDatasets=[write(tmp_path / "asked.jsonl", [detected.normalise(row) for row in raw])],
        evaluation=evaluation,
        rewardPaths={each["name"]: str(tmp_path / each["python"]["key"]) for each in evaluation["rewards"]},
    )
    numbers = [number.to_json() for number in runs.finish(plan).numbers]
    parity = {n["name"]: n for n in numbers if n["name"].startswith("parity_")}
    assert {name: (n["against"], n["rows"]) for name, n in parity.items()} == {
        "parity_exact": ("1.000000", 4),
        "parity_chrf": ("1.000000", 4),
    }
    lines, is_shown = parity_lines(numbers, ["exact", "chrf"], 0.05)
    assert not is_shown
    assert all("parity within 0.05 worse" in line for line in lines)
