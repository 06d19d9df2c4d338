"""`hone convert` for one configuration of each tool, as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone_cli.convert import reading
from hone_cli.convert.engine import Conversion, Converted, ConvertRequest, Fate, NoJobError, flat
from hone_cli.convert.tables import detected, tables

pytestmark = pytest.mark.pure
LLAMA_FACTORY = """
model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
stage: dpo
finetuning_type: lora
lora_rank: 16
lora_target: q_proj,v_proj
pref_loss: orpo
pref_beta: 0.2
dataset: pairs, own
template: qwen3_nothink
cutoff_len: 1024
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
num_train_epochs: 3.0
lr_scheduler_type: cosine
bf16: true
val_size: 0.1
"""
TORCHTUNE = """
# tune download meta-llama/Meta-Llama-3.1-8B-Instruct --output-dir /tmp/x
output_dir: /tmp/y
model: {_component_: torchtune.models.llama3_1.qlora_llama3_1_8b, lora_rank: 8, lora_alpha: 16}
tokenizer: {_component_: torchtune.models.llama3.llama3_tokenizer, path: /tmp/x/t.model, max_seq_len: 2048}
checkpointer: {_component_: torchtune.training.FullModelHFCheckpointer, output_dir: "${output_dir}"}
dataset: {_component_: torchtune.datasets.alpaca_cleaned_dataset, packed: true}
batch_size: 2
gradient_accumulation_steps: 8
epochs: 1
optimizer: {_component_: torch.optim.AdamW, lr: 3e-4, fused: true}
loss: {_component_: torchtune.modules.loss.LinearCrossEntropyLoss}
"""
AUTOMODEL = """
recipe: TrainFinetuneRecipeForNextTokenPrediction
step_scheduler: {global_batch_size: 64, local_batch_size: 8, max_steps: 100, num_epochs: 1}
model:
  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained
  pretrained_model_name_or_path: meta-llama/Llama-3.2-1B
peft: {_target_: nemo_automodel.components._peft.lora.PeftConfig, target_modules: "*_proj", dim: 8, alpha: 32}
dataset:
  _target_: nemo_automodel.components.datasets.llm.squad.make_squad_dataset
  dataset_name: rajpurkar/squad
  split: train
validation_dataset:
  _target_: nemo_automodel.components.datasets.llm.squad.make_squad_dataset
  dataset_name: rajpurkar/squad
  split: validation
  limit_dataset_samples: 64
packed_sequence: {packed_sequence_size: 1024}
optimizer: {_target_: torch.optim.Adam, lr: 1.0e-5, betas: [0.9, 0.999]}
lr_scheduler: {lr_decay_style: cosine, lr_warmup_steps: 10}
"""
TRL = """
model_name_or_path: Qwen/Qwen2.5-0.5B
dataset_name: trl-lib/ultrafeedback_binarized
dataset_train_split: train
use_peft: true
lora_r: 32
loss_type: ipo
beta: 0.05
learning_rate: 0.0001
"""
KAITO = """
apiVersion: v1
kind: ConfigMap
metadata: {name: params}
data:
  training_config.yaml: |
    training_config:
      QuantizationConfig: {load_in_4bit: true}
      LoraConfig: {r: 8, lora_alpha: 8}
      TrainingArguments: {per_device_train_batch_size: 2, save_strategy: epoch}
---
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: tuning}
resource: {instanceType: Standard_NC24ads_A100_v4, labelSelector: {matchLabels: {app: phi}}}
tuning:
  preset: {name: phi-3-mini-128k-instruct}
  method: qlora
  config: params
  input:
    urls: ["https://huggingface.co/datasets/philschmid/dolly/resolve/main/train.parquet?download=true"]
  output: {image: registry.example.org/phi:1, imagePushSecret: push}
"""
TRAIN_JOB = """
apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainJob
metadata: {name: tune, labels: {kueue.x-k8s.io/queue-name: team}}
spec:
  runtimeRef: {name: torchtune-llama3.2-1b}
  initializer:
    dataset: {storageUri: "hf://tatsu-lab/alpaca/data"}
    model: {storageUri: "hf://meta-llama/Llama-3.2-1B-Instruct", secretRef: {name: hone-hub}}
  trainer:
    numNodes: 1
    args: ["dataset.packed=True", "epochs=2", "batch_size=4", "optimizer.lr=1e-5", "model.use_dora=true"]
    resourcesPerNode: {requests: {nvidia.com/gpu: 2}}
"""
OPENAI = {
    "model": "gpt-4.1-nano-2025-04-14",
    "training_file": "file-train",
    "validation_file": "file-valid",
    "method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2, "beta": 0.3, "batch_size": "auto"}}},
    "seed": 7,
    "status": "succeeded",
}


def converted(folder: Path, text: str, **request: Any) -> Converted:
    file = folder / "config.yaml"
    file.write_text(text)
    document = reading.read(file)
    tool = detected(key for key, _ in flat(document))
    assert tool
    result = Conversion(tables()[tool], ConvertRequest("x", **request)).convert(document)
    assert Fate.UNKNOWN not in [key.fate for key in result.keys.values()], result.keys
    return result


def job(result: Converted) -> dict[str, Any]:
    spec: dict[str, Any] = result.objects[-1]["spec"]
    return spec


def test_llama_factory(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    info = {
        "pairs": {"hf_hub_url": "team/pairs", "formatting": "sharegpt", "ranking": True, "columns": {"chosen": "good"}},
        "own": {"file_name": "own.json", "columns": {"messages": "conversations", "chosen": "good"}, "ranking": True},
    }
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(info))
    result = converted(tmp_path, LLAMA_FACTORY)
    first, second = (each["spec"] for each in result.objects[:2])
    assert first["source"] == {"uri": "hf://team/pairs"}
    assert (first["format"], first["columns"], first["splits"]) == (
        "Preference",
        {"chosen": "good"},
        {"validation": "10%"},
    )
    assert second["source"] == {"uri": "pvc://x-2/own.json"}
    spec = job(result)
    assert (spec["method"], spec["orpo"], "dpo" in spec) == ("ORPO", {"weight": "0.2"}, False)
    assert spec["adapter"] == {"type": "LoRA", "rank": 16, "targets": ["q_proj", "v_proj"]}
    assert spec["training"]["batchSize"] == 8
    assert spec["training"]["truncation"] == "Truncate"


def test_torchtune(tmp_path: Path) -> None:
    result = converted(tmp_path, TORCHTUNE)
    spec = job(result)
    assert spec["model"]["uri"] == "hf://meta-llama/Meta-Llama-3.1-8B-Instruct"
    assert spec["adapter"] == {"type": "QLoRA", "rank": 8, "alpha": 16}
    assert spec["training"]["scheduler"] == "Constant"
    assert (spec["training"]["batchSize"], spec["training"]["packing"]) == (16, True)
    assert result.objects[0]["spec"]["source"]["uri"] == "hf://yahma/alpaca-cleaned"
    assert "trains on prompts too" in result.keys["dataset._component_"].words
    masked = converted(tmp_path, TORCHTUNE.replace("packed: true", "packed: true, train_on_input: false"))
    assert masked.keys["dataset._component_"].fate == Fate.MAPPED


def test_automodel(tmp_path: Path) -> None:
    result = converted(tmp_path, AUTOMODEL, gpus=4)
    rows, held = (each["spec"] for each in result.objects[:2])
    assert rows["columns"] == held["columns"] == {"prompt": "lines(context, question)", "completion": "answers.text[0]"}
    assert (rows["source"]["split"], held["source"]["split"]) == ("train", "validation")
    spec = job(result)
    assert spec["evaluationDatasets"] == [{"name": "x-held", "split": "train"}]
    assert spec["evaluation"] == {"maxRows": 64}
    assert spec["training"] == {
        "batchSize": 64,
        "microBatchSize": 8,
        "maxSteps": 100,
        "learningRate": "1e-05",
        "scheduler": "Cosine",
        "warmupRatio": "0.1",
        "packing": True,
        "maxLength": 1024,
    }


def test_trl_takes_the_method_from_the_command(tmp_path: Path) -> None:
    spec = job(converted(tmp_path, TRL, method="DPO"))
    assert (spec["method"], spec["dpo"]) == ("DPO", {"loss": "IPO", "beta": "0.05"})
    assert "kto" not in spec


def test_kaito(tmp_path: Path) -> None:
    result = converted(tmp_path, KAITO)
    assert result.objects[0]["spec"]["source"]["uri"] == (
        "https://huggingface.co/datasets/philschmid/dolly/resolve/main/train.parquet"
    )
    spec = job(result)
    assert spec["model"]["uri"] == "hf://microsoft/Phi-3-mini-128k-instruct"
    assert spec["adapter"] == {"type": "QLoRA", "rank": 8, "alpha": 8}
    assert spec["training"]["batchSize"] == 2


def test_a_train_job(tmp_path: Path) -> None:
    result = converted(tmp_path, TRAIN_JOB)
    spec = job(result)
    assert spec["model"] == {"uri": "hf://meta-llama/Llama-3.2-1B-Instruct", "secretName": "hone-hub"}
    assert spec["resources"]["gpusPerNode"] == 2
    assert spec["scheduling"] == {"queueName": "team"}
    assert spec["adapter"] == {"type": "DoRA"}
    assert (spec["training"]["epochs"], spec["training"]["learningRate"], spec["training"]["packing"]) == (
        2,
        "1e-5",
        True,
    )
    assert result.keys["spec.initializer.dataset.storageUri"].fate == Fate.DIFFERS
    own = TRAIN_JOB.replace('args: ["dataset', 'command: [torchrun, train.py]\n    args: ["dataset')
    with pytest.raises(NoJobError, match="code of your own"):
        converted(tmp_path, own)


def test_openai(tmp_path: Path) -> None:
    result = converted(tmp_path, json.dumps(OPENAI), model="Qwen/Qwen3-8B")
    rows, held = (each["spec"] for each in result.objects[:2])
    assert (
        rows["columns"]
        == held["columns"]
        == {
            "prompt": "input.messages",
            "chosen": "preferred_output",
            "rejected": "non_preferred_output",
        }
    )
    assert result.uploads == ["hone upload file-train x", "hone upload file-valid x-held"]
    spec = job(result)
    assert (spec["method"], spec["dpo"], spec["training"]) == ("DPO", {"beta": "0.3"}, {"epochs": 2, "seed": 7})
    assert result.keys["model"].fate == Fate.MAPPED
    with pytest.raises(NoJobError, match="--model"):
        converted(tmp_path, json.dumps(OPENAI))


def test_a_reference_of_omegaconf_is_resolved(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({"a": {"b": 2}, "c": "${a.b}", "d": "x/${a.b}", "e": "${env:HOME}"}))
    assert reading.read(file) == {"a": {"b": 2}, "c": 2, "d": "x/2", "e": "${env:HOME}"}


def test_the_older_name_of_a_length_is_known(tmp_path: Path) -> None:
    assert job(converted(tmp_path, TRL + "max_seq_length: 512\n"))["training"]["maxLength"] == 512


def test_null_is_not_the_default_where_it_means_no_limit(tmp_path: Path) -> None:
    training = job(converted(tmp_path, TRL + "max_length: null\nwarmup_ratio: null\n"))["training"]
    assert {"maxLength", "truncation"}.isdisjoint(training)
    assert training["warmupRatio"] == 0


AXOLOTL = """
base_model: a/b
datasets: [{path: a/rows, type: chat_template}]
micro_batch_size: 2
gradient_accumulation_steps: 4
learning_rate: 2e-4
"""


@pytest.mark.parametrize("key", ["val_set_size", "warmup_steps", "micro_batch_size", "max_steps"])
@pytest.mark.parametrize("value", ["${SHARE}", "10%", [1, 2], float("nan"), float("inf")])
def test_a_value_other_than_a_number_is_a_reason(tmp_path: Path, key: str, value: Any) -> None:
    result = converted(tmp_path, yaml.safe_dump({**yaml.safe_load(AXOLOTL), key: value}))
    assert result.keys[key] == (Fate.DIFFERS, f"{value} is not a number")


def test_what_axolotl_does_where_the_source_says_nothing(tmp_path: Path) -> None:
    result = converted(tmp_path, AXOLOTL)
    training = job(result)["training"]
    assert (training["warmupRatio"], training["scheduler"], training["maxLength"]) == ("0.03", "Cosine", 512)
    assert result.origins[-1]["spec.training.warmupRatio"] == "there at most 100 steps"


def test_a_batch_of_axolotl_is_accumulated(tmp_path: Path) -> None:
    text = AXOLOTL.replace("gradient_accumulation_steps: 4", "batch_size: 8")
    first = converted(tmp_path, text)
    second = converted(tmp_path, text + "gradient_accumulation_steps: null\n", gpus=2)
    assert [job(each)["training"]["batchSize"] for each in (first, second)] == [8, 16]
    assert [each.keys["batch_size"].fate for each in (first, second)] == [Fate.DIFFERS, Fate.MAPPED]
    third = converted(tmp_path, AXOLOTL + "batch_size: 8\n")
    assert third.keys["batch_size"].fate == Fate.DIFFERS


@pytest.mark.parametrize(("kind", "format_"), [("alpaca", "Alpaca"), ("completion", "Text"), ("sharegpt", "ShareGPT")])
def test_roles_are_those_of_conversations_alone(tmp_path: Path, kind: str, format_: str) -> None:
    rows = f"{{path: a/rows, message_property_mappings: {{role: from, content: value}}, type: {kind}}}"
    result = converted(tmp_path, AXOLOTL.replace("{path: a/rows, type: chat_template}", rows))
    assert result.objects[0]["spec"]["format"] == format_
    fate = result.keys["datasets[0].message_property_mappings.role"].fate
    assert fate == (Fate.MAPPED if format_ == "ShareGPT" else Fate.DROPPED)


def test_accumulation_has_the_micro_batch_of_transformers(tmp_path: Path) -> None:
    training = job(converted(tmp_path, TRL + "gradient_accumulation_steps: 4\n", gpus=2))["training"]
    assert (training["batchSize"], "microBatchSize" in training) == (64, False)


@pytest.mark.parametrize(("micro", "words"), [("0", "no field follows"), ("-2", "Hone refuses it")])
def test_a_key_without_a_field_is_not_mapped(tmp_path: Path, micro: str, words: str) -> None:
    result = converted(tmp_path, AXOLOTL.replace("micro_batch_size: 2", f"micro_batch_size: {micro}"))
    assert "batchSize" not in job(result)["training"]
    for key in ("micro_batch_size", "gradient_accumulation_steps"):
        assert (result.keys[key].fate, words in result.keys[key].words) == (Fate.DIFFERS, True), result.keys[key]


def test_settings_of_transformers_and_llama_factory(tmp_path: Path) -> None:
    text = LLAMA_FACTORY.replace("lora_rank: 16", "lora_rank: '16'\nneat_packing: true\nsave_total_limit: 1")
    text = text.replace("cosine", "cosine_with_min_lr").replace("stage: dpo", "stage: sft")
    result = converted(tmp_path, text.replace("pref_loss: orpo\n", ""))
    training = job(result)["training"]
    assert (job(result)["adapter"]["rank"], training["packing"], training["scheduler"]) == (16, True, "Cosine")
    assert result.keys["lr_scheduler_type"] == (Fate.DIFFERS, "the schedule ends at 0")
    assert result.keys["save_total_limit"].fate == Fate.DROPPED


@pytest.mark.parametrize(
    ("fields", "turns"),
    [({}, "messages"), ({"field_messages": "conversation", "field_chosen": "good"}, "conversation")],
)
def test_the_turns_before_a_preference_are_its_prompt(tmp_path: Path, fields: dict[str, str], turns: str) -> None:
    rows = {"path": "a/rows", "type": "chat_template.default", **fields}
    result = converted(tmp_path, yaml.safe_dump({"base_model": "a/b", "rl": "dpo", "datasets": [rows]}))
    columns = result.objects[0]["spec"]["columns"]
    assert (columns["conversations"], "messages" in columns) == (turns, False)


def test_layers_have_the_names_of_transformers(tmp_path: Path) -> None:
    own = '["*wq_a", "*wq_b", "*wkv", "*wo_b", "*.mlp.gate_proj", "*.mlp.experts"]'
    result = converted(tmp_path, AUTOMODEL.replace('"*_proj"', own))
    names = ["q_a_proj", "q_b_proj", "kv_proj", "o_b_proj", "gate_proj", "up_proj", "down_proj"]
    assert job(result)["adapter"]["targets"] == names


def test_rows_of_llama_factory_v1_are_those_that_its_file_describes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    described = {
        "identity": {"file_name": "identity.json", "dataset_dir": "data", "converter": "alpaca", "num_samples": 500},
        "pairs": {"path": "HuggingFaceH4/orca_dpo_pairs", "split": "train_prefs", "converter": "pair"},
    }
    source = {"model": "Qwen/Qwen3-4B", "model_class": "llm", "train_dataset": "data/rows.yaml", "max_steps": 10}
    for names, method in ((["identity"], None), (["pairs"], "DPO")):
        (tmp_path / "data/rows.yaml").write_text(yaml.safe_dump({name: described[name] for name in names}))
        result = converted(tmp_path, yaml.safe_dump(source))
        assert job(result).get("method") == method
        spec = result.objects[0]["spec"]
        if method:
            assert spec["source"] == {"uri": "hf://HuggingFaceH4/orca_dpo_pairs", "split": "train_prefs"}
            assert spec["format"] == "Preference"
        else:
            assert (spec["source"], spec["format"]) == ({"uri": "pvc://x/identity.json"}, "Alpaca")
            assert result.keys["train_dataset[0].num_samples"].fate == Fate.DIFFERS
