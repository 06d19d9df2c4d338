"""vLLM as the generator of GRPO and RLOO: its build for CPUs, in processes of its own Python, on a tiny model; next to
the model in training, and as a server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support.runs.curves import points

from hone_dev.models import vllm
from hone_dev.tools import paths
from hone_trainer.commands import ask
from hone_trainer.commands.exported import Exported
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.errors import TrainerError
from hone_trainer.methods.rl import rewarding, served

pytestmark = pytest.mark.trainer
RANK, LONGEST = 16, 128
"""Of the server."""
PLUGIN = '''"""The build for CPUs packs weights for its kernels, and then takes no new ones: here it keeps them."""


def register():
    from vllm.model_executor.layers.linear import LinearBase

    LinearBase._cpu_skip_gemm_dispatch = True
'''


@pytest.fixture(scope="session")
def python() -> Path:
    return vllm.python()


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that vLLM finds a plugin in."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "keeps_weights.py").write_text(PLUGIN)
    about = folder / "keeps_weights-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: keeps-weights\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[vllm.general_plugins]\nkeeps_weights = keeps_weights:register\n")
    return folder


@pytest.fixture(scope="session")
def wide_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with heads of 64: vLLM has no kernel for its own of 16."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wide")
    sizes = {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig.from_pretrained(tiny_model, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture
def plan_of(wide_model: Path, make_plan: Any) -> Any:
    """Makes a plan of six steps whose samples are vLLM's; keyword arguments replace fields, `grpo` is merged."""

    def make(name: str, grpo: dict[str, Any], **fields: Any) -> Any:
        rewards = [{"type": "Regex", "regex": {"pattern": "[aeiou].*[aeiou]", "match": "Search"}}]
        block = {"rewards": rewards, "generations": 4, "maxCompletionLength": 8, "generation": {"engine": "VLLM"}}
        training = {"maxSteps": 6, "batchSize": 16, "learningRate": "2e-2", **fields.pop("training", {})}
        fields |= {"method": "GRPO", "grpo": {**block, **grpo}, "training": training, "modelPath": str(wide_model)}
        return make_plan(name, evaluation={"everySteps": 1000, "samples": 0}, **fields)

    return make


@pytest.fixture
def train(python: Path, plugin: Path, plan_of: Any, tmp_path: Path) -> Any:
    """Runs a plan as a pod of the image with vLLM would; the points of its curve."""
    sources = [paths.SOURCE / part for part in ("crds", "trainer")]

    def run(name: str, grpo: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
        plan = plan_of(name, grpo, **fields)
        file = tmp_path / f"{name}.json"
        file.write_text(plan.model_dump_json(by_alias=True))
        env = {**os.environ, **vllm.EAGER, "PYTHONPATH": ":".join(map(str, [plugin, *sources])), "OMP_NUM_THREADS": "1"}
        env["HONE_TERMINATION_LOG"] = str(tmp_path / f"{name}.termination")
        done = subprocess.run([python, "-m", "hone_trainer", "run", file], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        return points(plan)

    return run


def test_bytecode_is_next_to_the_packages_for_pods_that_mount_them(python: Path) -> None:
    packages = python.parents[1] / "lib" / "python3.11" / "site-packages"
    for name in ("torch/__init__", "vllm/v1/engine/core"):
        folder, _, module = name.rpartition("/")
        assert (packages / folder / "__pycache__" / f"{module}.cpython-311.pyc").is_file()


@pytest.mark.long
@pytest.mark.parametrize(("type_", "ranks"), [("LoRA", 1), ("LoRA", 2), ("DoRA", 1)])
def test_vllm_samples_from_the_weights_of_the_newest_step(train: Any, type_: str, ranks: int) -> None:
    """Its log-probabilities are the trainer's within rounding, while the model moves far from where it began."""
    curve = train("newest", {"beta": "0.001"}, adapter={"type": type_}, processesPerNode=ranks)
    samples_are_of_the_newest_step(curve)


def samples_are_of_the_newest_step(curve: list[dict[str, Any]]) -> None:
    assert len(curve) == 6
    assert curve[0]["kl"] == 0
    assert max(point["kl"] for point in curve) > 0.02
    for point in curve:
        assert 0 < point["sampling/sampling_logp_difference/mean"] < 0.01


@pytest.mark.long
def test_rloo_by_vllm(train: Any) -> None:
    training = {"learningRate": "5e-3"}
    curve = train("rloo", {"advantage": "LeaveOneOut", "beta": "0.001"}, training=training, adapter={"type": "None"})
    assert len(curve) == 6
    assert curve[-1]["kl"] != 0


# -- a server --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with vllm.serve(wide_model, tmp_path_factory.mktemp("vllm") / "log", rank=RANK, longest=LONGEST) as url:
        yield url


@pytest.fixture
def served_plan(plan_of: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same with the samples of a server, which is asked again without a pause."""
    monkeypatch.setattr("hone_trainer.endpoints.client.pause_after", lambda *_: 0)

    def make(name: str, url: str, grpo: dict[str, Any] | None = None, **fields: Any) -> Any:
        block = {"generation": {"engine": "VLLM", "endpoint": url}, "beta": "0.001", **(grpo or {})}
        return plan_of(name, block, allowPrivateAddresses=True, **fields)

    return make


def adapters(url: str) -> list[str]:
    return [model["id"] for model in requests.get(f"{url}/v1/models", timeout=600).json()["data"] if model["parent"]]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_server_samples_from_the_adapter_of_the_newest_step(
    server: str, served_plan: Any, runs: Any, ranks: int
) -> None:
    plan = served_plan("lora", server, processesPerNode=ranks)
    runs.wait(plan, runs.start(plan))
    samples_are_of_the_newest_step(points(plan))
    assert adapters(server) == []
    assert not list(Path(plan.work_path).glob("served*"))


def test_a_server_that_has_forgotten_the_adapter_gets_it_again(
    server: str, served_plan: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was restarted."""
    load = served.ServedGeneration._load

    def load_and_forget(self: served.ServedGeneration) -> str:
        name = load(self)
        requests.post(f"{server}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=600).raise_for_status()
        return name

    monkeypatch.setattr(served.ServedGeneration, "_load", load_and_forget)
    plan = served_plan("forgotten", server)
    runs.finish(plan)
    samples_are_of_the_newest_step(points(plan))


def test_a_sample_from_the_nucleus_keeps_its_weight(server: str, served_plan: Any, runs: Any) -> None:
    """vLLM's probabilities are of the nucleus, and so larger by 1 / topP at most: of each token, not of its sample."""
    plan = served_plan("nucleus", server, {"topP": "0.7"})
    runs.finish(plan)
    for point in points(plan):
        assert 0.69 < point["sampling/importance_sampling_ratio/mean"] < 1


def test_a_server_answers_a_conversation_as_ask_does(server: str, wide_model: Path, make_plan: Any, runs: Any) -> None:
    plan, question = make_plan("asked", modelPath=str(wide_model)), "Where is the river of Rome?"
    runs.finish(plan)
    adapter, tokens = Path(plan.output_path) / "adapter", 24
    name = {"lora_name": "asked"}
    loaded = requests.post(f"{server}/v1/load_lora_adapter", json={**name, "lora_path": str(adapter)}, timeout=600)
    assert loaded.ok, loaded.text
    asked = {"model": "asked", "messages": [{"role": "user", "content": question}], "return_token_ids": True}
    said = requests.post(
        f"{server}/v1/chat/completions", json={**asked, "temperature": 0, "max_tokens": tokens}, timeout=600
    ).json()
    requests.post(f"{server}/v1/unload_lora_adapter", json=name, timeout=600).raise_for_status()
    exported = Exported.read(adapter)
    assert said["prompt_token_ids"] == exported.prompt(Encoder(exported.opened.tokenizer), question)
    assert said["choices"][0]["message"]["content"].strip() == ask.answer(adapter, question, None, tokens).text


def test_a_run_that_fails_leaves_nothing_at_the_server(
    server: str, served_plan: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(*_: Any, **__: Any) -> None:
        assert adapters(server) != []
        raise RuntimeError("no memory")

    monkeypatch.setattr(served.ServedGeneration, "generate", generate)
    plan = served_plan("fails", server)
    with pytest.raises(RuntimeError, match="no memory"):
        runs.finish(plan)
    assert adapters(server) == []
    assert not list(Path(plan.work_path).glob("served*"))


def test_rloo_by_a_server(server: str, served_plan: Any, runs: Any) -> None:
    plan = served_plan("rloo", server, {"advantage": "LeaveOneOut"})
    runs.finish(plan)
    curve = points(plan)
    assert len(curve) == 6
    assert curve[-1]["kl"] != 0


@pytest.mark.parametrize(
    ("grpo", "fields", "words"),
    [
        ({"maxCompletionLength": 120}, {}, "takes 128 tokens, prompt and sample are up to 1.*--max-model-len"),
        ({}, {"adapter": {"type": "LoRA", "rank": 32}}, "LoRA rank 32 is greater than max_lora_rank 16.*--enable-lora"),
    ],
)
def test_a_server_that_does_not_fit_is_reported(
    server: str, served_plan: Any, runs: Any, grpo: dict[str, Any], fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(TrainerError, match=words):
        runs.finish(served_plan("wrong", server, grpo, **fields))


def test_a_server_that_sees_another_store_is_reported(
    server: str, served_plan: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.ServedGeneration, "_write", lambda *_: None)
    plan = served_plan("elsewhere", server)
    with pytest.raises(TrainerError, match=f"the store mounted so that it sees {plan.work_path}/served/") as raised:
        runs.finish(plan)
    assert raised.value.code == "EndpointRefused"


def test_an_absent_server_is_reported(served_plan: Any, runs: Any) -> None:
    with pytest.raises(TrainerError, match=r"grpo\.generation\.endpoint: 127\.0\.0\.1, after 6 tries") as raised:
        runs.finish(served_plan("absent", "http://127.0.0.1:9"))
    assert raised.value.code == "EndpointUnreachable"


@pytest.mark.parametrize(("type_", "what"), [("None", "whole weights"), ("DoRA", "DoRA")])
def test_what_a_server_does_not_take_is_refused(served_plan: Any, runs: Any, type_: str, what: str) -> None:
    with pytest.raises(TrainerError, match=f"not {what}: use adapter type LoRA, or remove endpoint") as raised:
        runs.finish(served_plan("wrong", "http://vllm:8000", adapter={"type": type_}))
    assert raised.value.code == "ConflictingFields"


# -- samples of the next step while one is trained --------------------------------------------------------------


def test_overlapped_samples_of_a_model_that_stays_are_those_without_overlap(
    server: str, served_plan: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a learning rate that moves no weight, and one seed for all samples of a prompt."""
    monkeypatch.setitem(served.NEUTRAL, "seed", 7)
    curves = []
    for overlap in (False, True):
        generation = {"engine": "VLLM", "endpoint": server, "overlap": overlap}
        plan = served_plan(f"stays-{overlap}", server, {"generation": generation}, training={"learningRate": "1e-30"})
        runs.finish(plan)
        curves.append(points(plan))
    plain, overlapped = curves
    for name in ("loss", "grad_norm", "reward", "completions/mean_length", "sampling/importance_sampling_ratio/mean"):
        assert [point[name] for point in overlapped] == pytest.approx([point[name] for point in plain], abs=1e-5), name
    assert any(point["grad_norm"] for point in plain)
    assert [point["staleness"] for point in plain] == [0] * 6
    assert [point["staleness"] for point in overlapped] == [0, *[1] * 5]


def test_samples_of_an_older_model_are_weighted_for_it(
    server: str, served_plan: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, loss and gradient of each step against plain passes of the model that sampled and of the one that
    learns."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    weights: list[dict[str, torch.Tensor]] = []
    batches: list[dict[str, torch.Tensor]] = []
    generate, leave_out = served.ServedGeneration.generate, rewarding.leave_out

    def noting_weights(self: served.ServedGeneration, *args: Any, **named: Any) -> Any:
        state = self._network.state_dict().items()
        weights.append({name: value.clone() for name, value in state if "lora_" in name})
        return generate(self, *args, **named)

    def noting_batch(*args: Any) -> dict[str, Any]:
        batches.append(leave_out(*args))
        return batches[-1]

    monkeypatch.setattr(served.ServedGeneration, "generate", noting_weights)
    monkeypatch.setattr(rewarding, "leave_out", noting_batch)
    block = {"generation": {"engine": "VLLM", "endpoint": server, "overlap": True}, "beta": "0"}
    plan = served_plan("weighted", server, block, training={"scheduler": "Constant", "warmupRatio": "0"})
    runs.finish(plan)

    base = AutoModelForCausalLM.from_pretrained(plan.model_path, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(Path(plan.output_path) / "adapter"), is_trainable=True)

    def log_probs(state: dict[str, torch.Tensor], batch: dict[str, torch.Tensor], row: int) -> torch.Tensor:
        model.load_state_dict(state, strict=False)
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        answer = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
        logits = model(torch.cat([prompt, answer])[None]).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1).gather(1, answer[:, None])[:, 0]

    curve = points(plan)
    assert len(curve) == len(weights) == len(batches) == 6
    farthest = 0.0
    for step, (batch, point) in enumerate(zip(batches, curve, strict=True)):
        model.zero_grad()
        total = 0.0
        tokens = batch["completion_mask"].sum()
        for row, advantage in enumerate(batch["advantages"]):
            with torch.no_grad():
                sampled = log_probs(weights[max(step - 1, 0)], batch, row)
            learned = log_probs(weights[step], batch, row)
            weight = (learned.detach() - sampled).exp()
            ours = batch["importance_sampling_ratio"][row][: len(weight)]
            assert ours.tolist() == pytest.approx(weight.clamp(max=3).tolist(), abs=2e-3)
            farthest = max(farthest, float((weight - 1).abs().max()))
            loss = -(weight.clamp(max=3) * advantage * (learned - learned.detach()).exp()).sum() / tokens
            loss.backward()
            total += loss.item()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item()
        assert (point["loss"], point["grad_norm"]) == pytest.approx((total, gradient), rel=1e-2, abs=1e-4)
    assert farthest > 0.2, "the model that learns is far from the one that sampled"
