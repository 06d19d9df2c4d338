"""A tiny random model with a real tokenizer and a ChatML template, rows, and plans: a whole run takes seconds."""

from __future__ import annotations

import compileall
import functools
import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.models import tiny
from support.runs.forks import RUN, Fork, Forks, name_of_rank

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

HANG = 30 * 60.0
"""Seconds; a guard against hanging on a busy machine, not an expectation."""
Process = Fork | subprocess.Popen[bytes]


@pytest.fixture(scope="session", autouse=True)
def packages_read_once() -> Iterator[None]:
    """accelerate parses the metadata of a package each time it asks whether the package is there: 20 times a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "metadata", functools.cache(importlib.metadata.metadata))
        yield


@pytest.fixture(scope="session", autouse=True)
def services_read_once() -> Iterator[None]:
    """botocore lists all services of AWS, and parses their addresses and its description of S3, for each session."""
    from botocore.loaders import JSONFileLoader, Loader

    load, every = JSONFileLoader.load_file, Loader.list_available_services
    read = functools.cache(lambda path: load(JSONFileLoader(), path))
    listed = functools.cache(lambda kind: every(Loader(), kind))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: read(path))
        patch.setattr(Loader, "list_available_services", lambda _, type_name: listed(type_name))
        yield


@pytest.fixture(scope="session", autouse=True)
def sandbox_compiled_once() -> None:
    """What workers of the sandbox alone import: they cannot write bytecode, and would compile it at each start: 2 s."""
    for name in ("antlr4", "latex2sympy2_extended", "math_verify", "wasmtime"):
        spec = importlib.util.find_spec(name)
        for folder in (spec and spec.submodule_search_locations) or ():
            assert compileall.compile_dir(folder, quiet=1), folder


@pytest.fixture(scope="session")
def thawed() -> Iterator[None]:
    """At the end all garbage is collected: nanobind reports what is left."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def frozen(thawed: None) -> None:
    """Leaves what is there before a file's tests out of later collections of garbage.

    accelerate collects it in each run: half a second for the objects of torch, transformers and their like alone,
    as much as all steps of a tiny model.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_start() -> Iterator[None]:
    """Runs in this process are not the start of an attempt that a test made here."""
    yield
    os.environ.pop("HONE_START", None)


@pytest.fixture(scope="session")
def experts_model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Folder of a Mixtral of one layer with four experts, with the tokenizer of the tiny model."""
    import torch
    from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

    folder, tokenizer = tmp_path_factory.mktemp("experts"), AutoTokenizer.from_pretrained(tiny_model)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(3)
    config = MixtralConfig(vocab_size=512, num_hidden_layers=1, num_local_experts=4, **sizes, **ends)
    MixtralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Llama of 2 layers and about 150,000 random weights, vocabulary of at most 512."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    tokenizer = tiny.tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Any]:
    """One tokenizer of each family of chat templates, by name."""
    from support.models.chat_templates import TOKENIZERS

    return {name: make() for name, (make, _) in TOKENIZERS.items()}


@pytest.fixture(scope="session")
def rows_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """train.jsonl with 80 conversations and validation.jsonl with 16 others."""
    folder = tmp_path_factory.mktemp("rows")
    pairs = tiny.sentences()
    random.Random(7).shuffle(pairs)
    records = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in pairs]
    train, validation = folder / "train.jsonl", folder / "validation.jsonl"
    train.write_text("".join(json.dumps(r) + "\n" for r in records[:80]))
    validation.write_text("".join(json.dumps(r) + "\n" for r in records[80:]))
    return train, validation


@pytest.fixture(scope="session")
def teacher_model(tiny_model: Path, rows_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that has learned to answer in a few words, and to end."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tiny_model), AutoModelForCausalLM.from_pretrained(tiny_model)
    questions = [json.loads(line)["messages"][0] for file in rows_files for line in file.read_text().splitlines()]
    turns = [[question, {"role": "assistant", "content": "Ask me again."}] for question in questions]
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for step in range(30):
        batch = tokenizer.apply_chat_template(
            turns[step % 6 :: 6], return_dict=True, return_tensors="pt", padding=True, padding_side="right"
        )
        model(**batch, labels=batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("teacher") / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


MakePlan = Callable[..., Any]


def plans_in(folder: Path, model: Path, rows_files: tuple[Path, Path]) -> MakePlan:
    """See `make_plan`; all files of the runs are in the folder."""
    from hone_api.plan import TrainingPlan

    def digest(path: Path) -> str:
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"

    def make(name: str = "run", held_out: bool = True, **fields: Any) -> TrainingPlan:
        train, validation = rows_files
        training = {"maxSteps": 8, "batchSize": 8, "learningRate": "5e-3", **fields.pop("training", {})}
        training = {"precision": "Float32", **training}  # the same figures on every machine
        # An answer is 96 passes through the model: tests that look at answers ask for some.
        evaluation = {"everySteps": 4, "samples": 0, **fields.pop("evaluation", {})}
        body: dict[str, Any] = {
            "run": name,
            "modelPath": str(model),
            "modelUri": "hf://tests/tiny@main",
            "modelCommit": "0123abcd",
            "datasets": [{"name": "places", "split": "train", "path": str(train), "digest": digest(train)}],
            "evaluationDatasets": [
                {"name": "places", "split": "validation", "path": str(validation), "digest": digest(validation)}
            ]
            if held_out
            else [],
            "adapter": {"type": "LoRA"},
            "training": training,
            "evaluation": evaluation,
            "checkpoints": {"everySteps": 4},
            "output": {"modelName": "tiny"},
            "workPath": str(folder / name / "work"),
            "outputPath": str(folder / name / "out"),
            **fields,
        }
        return TrainingPlan.model_validate(body)

    return make


@pytest.fixture
def make_plan(tmp_path: Path, tiny_model: Path, rows_files: tuple[Path, Path]) -> MakePlan:
    """Makes a TrainingPlan of 8 steps; keyword arguments replace fields, `training` and `evaluation` are merged."""
    return plans_in(tmp_path, tiny_model, rows_files)


@pytest.fixture(scope="session")
def compared_runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows_files: tuple[Path, Path]) -> Any:
    """Runs of a method that were made once, see `comparable.Pair`; for tests that only read them."""
    from support.runs import comparable

    def made(method: str) -> comparable.Pair:
        folder = tmp_path_factory.mktemp(f"compared-{method}")
        return comparable.pair(plans_in(folder, tiny_model, rows_files), folder, tiny_model, method)

    return functools.cache(made)


class Runs:
    """Runs plans in this process and in others, and reads what they left."""

    def finish(self, plan: Any) -> Any:
        """Run in this process, to the end."""
        from hone_trainer.run import pipeline
        from hone_trainer.signals import Stop

        result = pipeline.run_plan(plan, Stop())
        assert result is not None
        return result

    def encoded(self, plan: Any) -> Any:
        """The plan, once its rows are encoded here; else its launcher starts a process for that before the ranks."""
        from hone_trainer.run import encode, preflight, template_date
        from hone_trainer.signals import Stop

        dated = template_date.fixed(plan, Stop(), first=True)
        encode.ready(dated, preflight.before_ranks(dated))
        return plan

    def __init__(self, forks: Callable[[], Forks]) -> None:
        self._forks = forks

    def start(self, plan: Any, *, before: str = "", **environment: str) -> Fork:
        """`python -m hone_trainer run`, as in a pod, by a fork of a process that has imported what a run imports.

        Args:
            before: Python to execute first, which changes what the run does.
        """
        arguments, env, log = self._command(plan, environment)
        return self._forks().start(arguments, env, log, before=before)

    def start_program(self, plan: Any, **environment: str) -> subprocess.Popen[bytes]:
        """The same by a process that imports everything itself: 8 s of processor time."""
        arguments, env, log = self._command(plan, environment)
        with open(log, "wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "hone_trainer", *arguments], env=env, stdout=output, stderr=subprocess.STDOUT
            )

    def _command(self, plan: Any, environment: dict[str, str]) -> tuple[list[str], dict[str, str], Path]:
        folder = Path(plan.work_path).parent
        folder.mkdir(parents=True, exist_ok=True)
        # Another node's process may be reading the same file: it must never find half of it.
        written = folder / f"plan-{uuid.uuid4().hex}.json"
        written.write_text(plan.model_dump_json(by_alias=True))
        written.replace(folder / "plan.json")
        node = environment.get("JOB_COMPLETION_INDEX", "0")
        own = {"HONE_TERMINATION_LOG": str(folder / f"termination-log-{node}"), "OMP_NUM_THREADS": "1"}
        return ["run", str(folder / "plan.json")], {**os.environ, **own, **environment}, folder / f"log-{node}"

    def wait(self, plan: Any, process: Process, exit_code: int = 0, node: int = 0) -> Any:
        """The outcome of a process that must end with `exit_code`."""
        from hone_api.contract.termination import TerminationMessage

        folder = Path(plan.work_path).parent
        try:
            code = process.wait(timeout=HANG)
        except subprocess.TimeoutExpired:
            process.kill()
            code = -1
        assert code == exit_code, (folder / f"log-{node}").read_text()[-4000:]
        termination = folder / f"termination-log-{node}"
        return TerminationMessage.model_validate_json(termination.read_text()) if termination.exists() else None

    def wait_for(self, path: Path, process: Process) -> None:
        """Until `path` exists; the process must live until then."""
        deadline = time.monotonic() + HANG
        while not path.exists():
            assert process.poll() is None, f"the run ended with {process.returncode} before {path} appeared"
            assert time.monotonic() < deadline, f"{path} did not appear"
            time.sleep(0.01)

    def pid_of_rank(self, process: Fork, rank: int) -> int:
        """Of a run that `start` started: ranks are the launcher's children."""
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == name_of_rank(rank):
                return int(child)
        raise AssertionError(f"rank {rank} does not run")

    def curve(self, plan: Any, form: str = "adapter") -> list[tuple[int, float, float]]:
        """Step, loss and gradient norm of every step, from the artifact."""
        lines = (Path(plan.output_path) / form / "metrics.jsonl").read_text().splitlines()
        return [(p["step"], p["loss"], p["grad_norm"]) for p in map(json.loads, lines) if "loss" in p]


@pytest.fixture(scope="session")
def forks() -> Iterator[Callable[[], Forks]]:
    """What commands are forked from; it starts with the first of them."""
    environment, made = {**os.environ, "OMP_NUM_THREADS": "1"}, []

    @functools.cache
    def get() -> Forks:
        made.append(Forks(*RUN, environment=environment))
        return made[0]

    yield get
    for each in made:
        each.close()


@pytest.fixture
def forked_apart(forks: Callable[[], Forks], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run in this process does apart, it does in forks; see `forked_apart`."""
    from support.runs import forked_apart

    from hone_trainer.run import apart

    def start(command: list[str], env: dict[str, str]) -> forked_apart.ForkedApart:
        return forked_apart.ForkedApart(forks().apart, command, env)

    monkeypatch.setattr(apart, "subprocess", SimpleNamespace(Popen=start))


@pytest.fixture
def runs(forks: Callable[[], Forks]) -> Runs:
    return Runs(forks)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, int], Any]:
    """Runs a plan until the signal that comes right after the checkpoint of a step was written; gives the error."""
    from hone_trainer.errors import TrainerError
    from hone_trainer.run import pipeline
    from hone_trainer.signals import Stop
    from hone_trainer.training.loop import Loop

    def until(plan: Any, step: int) -> TrainerError:
        stop, save = Stop(), Loop._save_checkpoint

        def save_and_stop(loop: Any, *args: Any) -> None:
            save(loop, *args)
            stop.requested = stop.requested or loop.state.global_step == step

        with monkeypatch.context() as patch:
            patch.setattr(Loop, "_save_checkpoint", save_and_stop)
            with pytest.raises(TrainerError) as caught:
                pipeline.run_plan(plan, stop)
        assert (caught.value.code, caught.value.exit_code) == ("Interrupted", 75)
        return caught.value

    return until


@pytest.fixture(scope="session")
def without_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Runs Python where there is no network but loopback; see `alone`."""
    from support.runs import alone

    if not alone.possible():
        pytest.skip("this machine does not allow network namespaces")
    found = alone.Alone(tmp_path_factory.mktemp("alone"))
    yield found
    found.close()


@pytest.fixture
def run_alone(without_network: Any, tmp_path: Path) -> Callable[[dict[str, Any]], Any]:
    """Runs a plan, given as its JSON, without a network: the outcome, and the attempts to leave this machine."""

    def run(body: dict[str, Any]) -> Any:
        (tmp_path / "alone").mkdir()
        return without_network(body, tmp_path / "alone")

    return run
