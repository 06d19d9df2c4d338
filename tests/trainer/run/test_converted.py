"""What `hone convert` makes of configurations of other tools trains to the end."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Sequence
from functools import cache
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from support.models import families, tiny
from support.runs.converted import STEPS, Namespace
from support.runs.sampled_sums import write
from typer.testing import CliRunner

from hone_cli.__main__ import application
from hone_cli.convert.migrate import parity_lines
from hone_trainer.datasets.formats import detect

pytestmark = pytest.mark.trainer
CORPUS = Path(__file__).parents[2] / "corpus/configurations"
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
NOT_THINKING = "{% if add_generation_prompt and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
"""The switch of Qwen3's template."""
OPENAI = {"model": "gpt-4.1-nano-2025-04-14", "training_file": "file-abc123", "seed": 7, "status": "succeeded"}
"""A job as the API returns it, without its method."""


class Source(NamedTuple):
    """A configuration, the family of its base, and rows of the data set that it names."""

    configuration: str | dict[str, Any]
    """A text means the end of the path of one in tests/corpus/configurations."""
    family: str
    rows: Callable[[str, str], dict[str, Any]]
    """A row as its data set has them, by question and answer."""
    options: Sequence[str] = ()
    """Of `hone convert`."""
    form: str = "Adapter"


def alpaca(question: str, answer: str) -> dict[str, Any]:
    return {"instruction": question, "input": "", "output": answer}


def messages(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [user(question), assistant(answer)]}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SOURCES = {
    "axolotl": Source("llama-3/lora-1b.yml", "llama", alpaca),
    "axolotl-qlora": Source("examples/mistral/qlora.yml", "mistral", alpaca),
    "axolotl-conv1d": Source("archived/cerebras/qlora.yml", "gpt2", alpaca),
    "axolotl-dpo": Source(
        "llama-3/instruct-dpo-lora-8b.yml",
        "llama",
        lambda q, a: {"conversation": [user(q)], "chosen": assistant(a), "rejected": assistant("No idea.")},
    ),
    "llamafactory": Source("train_lora/qwen3_lora_sft.yaml", "qwen3", alpaca),
    "llamafactory-reward": Source(
        "train_lora/qwen3_lora_reward.yaml", "qwen3", lambda q, a: {"prompt": q, "chosen": a, "rejected": "No idea."}
    ),
    "torchtune": Source(
        "llama3_2/1B_full_single_device.yaml", "llama", alpaca, ["-m", "meta-llama/Llama-3.2-1B-Instruct"], "Full"
    ),
    "torchtune-dpo": Source(
        "llama3_1/8B_lora_dpo_single_device.yaml",
        "llama",
        lambda q, a: {"question": q, "response_j": a, "response_k": "No idea."},
    ),
    "automodel": Source(
        "llama3_2/llama3_2_1b_squad_peft.yaml",
        "llama",
        lambda q, a: {"context": "On a map.", "question": q, "answers": {"text": [a], "answer_start": [0]}},
    ),
    "openai": Source(
        {**OPENAI, "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}}},
        "qwen3",
        messages,
        ["-m", "Qwen/Qwen3-8B"],
    ),
    "openai-dpo": Source(
        {**OPENAI, "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "batch_size": "auto"}}}},
        "qwen3",
        lambda q, a: {
            "input": {"messages": [user(q)], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [assistant(a)],
            "non_preferred_output": [assistant("No idea.")],
        },
        ["-m", "Qwen/Qwen3-8B"],
    ),
    "openai-reinforcement": Source(
        {
            **OPENAI,
            "model": "o4-mini-2025-04-16",
            "method": {
                "type": "reinforcement",
                "reinforcement": {
                    "grader": {
                        "type": "multi",
                        "name": "all",
                        "graders": GRADERS,
                        "calculate_output": "0.5 * vowels + near",
                    },
                    "hyperparameters": {"n_epochs": 1, "batch_size": 8, "reasoning_effort": "medium"},
                },
            },
        },
        "qwen3",
        lambda q, a: {"messages": [user(q)], "best": a, "wanted": "aeiou"},
        ["-m", "Qwen/Qwen3-8B"],
    ),
    "trl": Source(
        {
            "model_name_or_path": "Qwen/Qwen2.5-0.5B",
            "dataset_name": "trl-lib/Capybara",
            "learning_rate": 2.0e-5,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "output_dir": "./sft_output",
            "use_peft": True,
            "lora_r": 16,
            "lora_alpha": 16,
            "report_to": "trackio",
        },
        "qwen2",
        messages,
    ),
    "kaito": Source(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "workspace-tuning-phi-3"},
            "resource": {
                "instanceType": "Standard_NC24ads_A100_v4",
                "labelSelector": {"matchLabels": {"app": "tuning-phi-3"}},
            },
            "tuning": {
                "preset": {"name": "phi-3-mini-128k-instruct"},
                "method": "qlora",
                "input": {
                    "urls": ["https://huggingface.co/datasets/philschmid/dolly-15k-oai-style/resolve/main/a.parquet"]
                },
                "output": {"image": "registry.example.org/tuned:0.0.1", "imagePushSecret": "push"},
            },
        },
        "phi3",
        messages,
    ),
    "trainjob": Source(
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {"name": "tune"},
            "spec": {
                "runtimeRef": {"name": "torchtune-llama3.2-1b"},
                "initializer": {
                    "dataset": {"storageUri": "hf://tatsu-lab/alpaca/data"},
                    "model": {"storageUri": "hf://meta-llama/Llama-3.2-1B-Instruct"},
                },
                "trainer": {
                    "args": ["dataset.source=parquet", "dataset.split=train[:1000]", "epochs=1", "batch_size=4"],
                    "resourcesPerNode": {"requests": {"memory": "200G", "nvidia.com/gpu": 1}},
                },
            },
        },
        "llama",
        alpaca,
        form="Full",
    ),
}


@cache
def corpus(tool: str) -> dict[str, str]:
    """Configurations by their path."""
    lines = lzma.decompress((CORPUS / f"{tool}.jsonl.xz").read_bytes()).splitlines()
    return {row["path"]: row["text"] for row in map(json.loads, lines)}


def converted(folder: Path, tool: str, source: Source) -> list[dict[str, Any]]:
    """The objects that `hone convert` prints."""
    text = source.configuration
    if isinstance(text, str):
        (text,) = (each for path, each in corpus(tool).items() if path.endswith(text))
    file = folder / "config.yaml"
    file.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    done = CliRunner().invoke(
        application(["convert", "plan"]), ["convert", str(file), "--name", "tiny", *source.options]
    )
    assert done.exit_code == 0, done.output
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model of a family, with the context of a large one."""

    from transformers import GPT2Config

    @cache
    def made(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        if family == "gpt2":
            sizes = GPT2Config(n_layer=2, n_embd=64, n_head=2, vocab_size=512, n_positions=2048)
        else:
            sizes = families.config(family)
            sizes.max_position_embeddings = 131_072
        families.build(family, sizes).save_pretrained(folder)
        tokenizer = tiny.tokenizer()
        if family == "qwen3":
            tokenizer.chat_template += NOT_THINKING
        tokenizer.save_pretrained(folder)
        return folder

    return made


def conversations() -> list[dict[str, Any]]:
    return [messages(f"Where is {n}?", f"Near the tower of {n}.") for n in range(12)]


@pytest.mark.parametrize("name", SOURCES)
def test_a_converted_job_trains_to_the_end(base: Any, tmp_path: Path, name: str) -> None:
    source = SOURCES[name]
    objects = converted(tmp_path, name.partition("-")[0], source)
    done = Namespace(tmp_path, base(source.family), starmap(source.rows, tiny.sentences())).finish(objects)
    assert (done.reason, done.steps, [artifact.format for artifact in done.artifacts]) == (
        "Completed",
        STEPS,
        [source.form],
    )


def test_a_migrated_job_ends_with_a_comparison_with_the_recorded_answers(
    runs: Any, make_plan: Any, tmp_path: Path
) -> None:
    """The old model answered as the references do, which a few steps of a tiny model cannot: parity is refuted."""
    turns = conversations()
    (tmp_path / "tiny.json").write_text(json.dumps({**OPENAI, "model": "o4-mini"}))
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
    assert all("parity within 0.05: no, worse" in line for line in lines)
