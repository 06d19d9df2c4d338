"""Distillation at level Logits: the student learns the teacher's distribution over the rows' own answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.device import Device
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.run import ask_teacher, preflight
from hone_trainer.signals import Stop

pytestmark = pytest.mark.trainer
PADDED = 520
"""Rows of the teacher's embedding; the student's has 512."""
STEPS, SEED = 12, 42
UNEQUAL = [
    ("Where is Rome?", "Near."),
    ("Where is the river of Oslo?", "The river of Oslo is near the tower of Oslo, and the bridge of Lima."),
    ("Who?", "Nobody."),
    ("Where is the market of Delhi?", "The market of Delhi is near the garden."),
]
TEMPLATE = (
    "{% for m in messages %}{% if not loop.first %}\n{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}\n<|im_start|>assistant\n{% endif %}"
)


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def chats(file: Path) -> list[list[dict[str, str]]]:
    return [json.loads(line)["messages"] for line in file.read_text().splitlines()]


def other_model(folder: Path, base: Path, **options: Any) -> Any:
    """A model of another size with the same tokenizer, and a larger embedding; not yet written."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    torch.manual_seed(3)
    sizes = {"hidden_size": 96, "intermediate_size": 192, "num_attention_heads": 6, "num_key_value_heads": 6}
    config = LlamaConfig.from_pretrained(base, **{**sizes, "vocab_size": PADDED, **options})
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def large(tiny_model: Path, rows_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that has learned the rows."""
    import torch
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("teacher") / "model"
    model, tokenizer = other_model(folder, tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    rows = chats(rows_files[0])
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for step in range(60):
        batch = tokenizer.apply_chat_template(
            rows[step % 5 :: 5], return_dict=True, return_tensors="pt", padding=True, padding_side="right"
        )
        model(**batch, labels=batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def plan_of(make_plan: Any, large: Path) -> Any:
    def make(name: str = "run", path: Path = large, options: dict[str, Any] | None = None, **fields: Any) -> Any:
        block = {"teacherModelVersion": "large-v1", "level": "Logits", **(options or {})}
        models = {"large-v1": {"path": str(path)}}
        return make_plan(name, method="Distillation", distillation=block, models=models, **fields)

    return make


def source(file: Path, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return [{"name": "rows", "path": str(file), "digest": "sha256:" + "0" * 64}]


def divergence(student: Path, of: Path, rows: list[list[dict[str, str]]], temperature: float = 1) -> float:
    """KL(teacher || student) in nats, a mean over the answers' tokens: a row at a time, in double precision."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(student)
    ours, theirs = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (student, of))
    total, tokens = 0.0, 0
    for row in rows:
        text = tokenizer.apply_chat_template(row, tokenize=False).removesuffix("\n")
        prompt = tokenizer.apply_chat_template(row[:-1], tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        start = len(tokenizer(prompt)["input_ids"])
        with torch.no_grad():
            p, q = (
                (model(ids).logits[0, start - 1 : -1, :512].double() / temperature).softmax(-1)
                for model in (theirs, ours)
            )
        total += float((p * (p / q).log()).sum())
        tokens += len(p)
    return total / tokens


@pytest.mark.parametrize("micro_batch", [2, 4])
@pytest.mark.parametrize("temperature", ["1", "2.5"])
def test_the_loss_is_the_divergence_of_each_counted_token(
    runs: Any, plan_of: Any, tiny_model: Path, large: Path, tmp_path: Path, temperature: str, micro_batch: int
) -> None:
    """With rows of unequal length, which are padded in one micro batch, or lie in two."""
    rows = [turns(*pair) for pair in UNEQUAL]
    plan = plan_of(
        held_out=False,
        options={"temperature": temperature},
        datasets=source(tmp_path / "rows.jsonl", [{"messages": row} for row in rows]),
        training={"maxSteps": 1, "batchSize": 4, "microBatchSize": micro_batch},
    )
    runs.finish(plan)
    ((_, loss, _),) = runs.curve(plan)
    t = float(temperature)
    assert loss == pytest.approx(t * t * divergence(tiny_model, large, rows, t), rel=1e-5)


@pytest.mark.parametrize("adapter", ["LoRA", "None"])
def test_the_curve_is_that_of_trls_gkd(
    runs: Any, plan_of: Any, tiny_model: Path, rows_files: tuple[Path, Path], tmp_path: Path, adapter: str
) -> None:
    """On the rows alone (lambda 0) with the forward divergence (beta 0). Its collator trains what the template has
    after the last end-of-turn token, so there is none; and it wants equal embeddings."""
    student, theirs = tmp_path / "student", tmp_path / "teacher"
    student.mkdir()
    for file in tiny_model.iterdir():
        (student / file.name).write_bytes(file.read_bytes())
    (student / "chat_template.jinja").write_text(TEMPLATE)
    other_model(theirs, student, vocab_size=512, initializer_range=0.2).save_pretrained(theirs)
    plan = plan_of(
        path=theirs,
        held_out=False,
        modelPath=str(student),
        adapter={"type": adapter},
        training={"maxSteps": STEPS, "learningRate": "1e-3", "seed": SEED},
    )
    runs.finish(plan)
    ours = [loss for _, loss, _ in runs.curve(plan, "adapter" if adapter == "LoRA" else "full")]
    expected = gkd(student, theirs, chats(rows_files[0]), tmp_path / "gkd", adapter)
    assert len(ours) == STEPS
    assert ours == pytest.approx(expected, rel=1e-3)


def gkd(student: Path, theirs: Path, rows: list[Any], out: Path, adapter: str) -> list[float]:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    model, large = (AutoModelForCausalLM.from_pretrained(path, dtype="float32") for path in (student, theirs))
    args = GKDConfig(
        str(out),
        lmbda=0.0,
        beta=0.0,
        temperature=1.0,
        max_steps=STEPS,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        lr_scheduler_type="linear",
        warmup_steps=0,
        optim="adamw_torch",
        seed=SEED,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    trainer = GKDTrainer(
        model,
        large,
        args,
        train_dataset=Dataset.from_list([{"messages": row} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(student),
        peft_config=lora if adapter == "LoRA" else None,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_training_brings_the_student_near_on_rows_that_it_never_saw(
    runs: Any, plan_of: Any, tiny_model: Path, large: Path, rows_files: tuple[Path, Path]
) -> None:
    """By half of the divergence at least; what is exported is a student alone."""
    from safetensors.numpy import load_file

    plan = plan_of(adapter={"type": "None"}, training={"maxSteps": 40})
    result = runs.finish(plan)
    exported = Path(plan.output_path) / "full"
    unseen = chats(rows_files[1])
    assert divergence(exported, large, unseen) < 0.5 * divergence(tiny_model, large, unseen)
    assert result.numbers[0].name == "loss"
    assert float(result.numbers[0].tuned) < float(result.numbers[0].base or 0)
    shapes = {
        path: {name: weight.shape for name, weight in load_file(path / "model.safetensors").items()}
        for path in (exported, tiny_model)
    }
    assert shapes[exported] == shapes[tiny_model]


def test_a_student_that_is_its_teacher_has_nothing_to_learn(runs: Any, plan_of: Any, tiny_model: Path) -> None:
    plan = plan_of(path=tiny_model, held_out=False, training={"maxSteps": 1})
    runs.finish(plan)
    ((_, loss, _),) = runs.curve(plan)
    assert abs(loss) < 1e-6


def test_experts_are_kept_in_balance_as_in_sft(
    runs: Any, plan_of: Any, experts_model: Path, rows_files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Of a student that is its teacher the balance of the experts is the whole loss."""
    import torch
    from transformers import AutoTokenizer, MixtralForCausalLM

    folder, tokenizer = experts_model, AutoTokenizer.from_pretrained(experts_model)
    model = MixtralForCausalLM.from_pretrained(folder).eval()
    record = {"messages": chats(rows_files[0])[0]}
    plan = plan_of(
        path=folder,
        held_out=False,
        modelPath=str(folder),
        datasets=source(tmp_path / "rows.jsonl", [record]),
        training={"maxSteps": 1, "batchSize": 1},
    )
    runs.finish(plan)
    ((_, loss, _),) = runs.curve(plan)
    text = tokenizer.apply_chat_template(record["messages"], tokenize=False).removesuffix("\n")
    with torch.no_grad():
        balance = model(**tokenizer(text, return_tensors="pt"), output_router_logits=True).aux_loss
    assert loss == pytest.approx(model.config.router_aux_loss_coef * float(balance), rel=1e-4)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(runs: Any, plan_of: Any, interrupt: Any) -> None:
    whole, broken = plan_of("whole", training={"maxSteps": 7}), plan_of("broken", training={"maxSteps": 7})
    runs.finish(whole)
    interrupt(broken, 4)
    step = Path(broken.work_path) / "checkpoints" / "step-000004"
    assert not [file.name for file in step.iterdir() if "teacher" in file.name]
    assert (step / "adapter_model.safetensors").stat().st_size + (step / "optimizer.pt").stat().st_size < 500_000
    runs.finish(broken)
    assert runs.curve(broken) == runs.curve(whole)


def test_two_ranks_average_over_the_tokens_of_both(runs: Any, plan_of: Any) -> None:
    fields = {"training": {"maxSteps": 3}, "evaluation": {"samples": 0}, "held_out": False}
    alone, pair = plan_of("alone", **fields), plan_of("pair", processesPerNode=2, **fields)
    runs.wait(pair, runs.start(runs.encoded(pair)))
    runs.finish(alone)
    ours, theirs = ([loss for _, loss, _ in runs.curve(plan)] for plan in (pair, alone))
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_no_teacher_answers_beforehand(plan_of: Any) -> None:
    plan = plan_of()
    assert ask_teacher.prepare(plan, Stop(), first=True) == plan
    assert not Path(plan.work_path).exists()


def refused(runs: Any, plan: Any) -> TrainerError:
    with pytest.raises(TrainerError) as raised:
        runs.finish(plan)
    return raised.value


def test_a_teacher_of_other_tokens_is_refused_with_the_way_out(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    theirs = tmp_path / "teacher"
    plan = plan_of(path=theirs)
    other_model(theirs, Path(plan.model_path)).save_pretrained(theirs)
    tokenizer = AutoTokenizer.from_pretrained(theirs)
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained(theirs)
    error = refused(runs, plan)
    assert error.code == "UnsupportedModel"
    assert "large-v1 has another vocabulary than hf://tests/tiny@main" in error.message
    assert "use level Sequence" in error.message


def test_another_chat_template_is_no_other_vocabulary(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    theirs = tmp_path / "teacher"
    plan = plan_of(path=theirs, held_out=False, training={"maxSteps": 1})
    other_model(theirs, Path(plan.model_path)).save_pretrained(theirs)
    (theirs / "chat_template.jinja").write_text(TEMPLATE)
    assert runs.finish(plan).steps == 1


def test_rows_without_answers_are_refused_with_the_way_out(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    rows = source(tmp_path / "rows.jsonl", [{"prompt": "What is 2 + 2?", "answer": "4"}])
    error = refused(runs, plan_of(datasets=rows, held_out=False))
    assert error.code == "DatasetFormatMismatch"
    assert "use level Sequence" in error.message


def test_rows_that_the_teacher_cannot_read_are_refused(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    theirs = tmp_path / "teacher"
    plan = plan_of(path=theirs)
    other_model(theirs, Path(plan.model_path), max_position_embeddings=16).save_pretrained(theirs)
    error = refused(runs, plan)
    assert error.code == "InvalidConfiguration"
    assert "large-v1 reads 16 tokens, and the longest row has" in error.message
    assert "set training.maxLength to 16" in error.message


def test_a_head_that_cannot_be_asked_alone_is_refused_in_the_first_pass(
    runs: Any, plan_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a family whose forward pass does more with the states than its head does."""
    from hone_trainer.methods.divergence import Head

    alone = Head.logits
    monkeypatch.setattr(Head, "logits", lambda self, states: alone(self, states) * 1.1)
    error = refused(runs, plan_of(training={"maxSteps": 1}))
    assert error.code == "UnsupportedModel"
    assert "the head of a llama" in error.message
    assert "use level Sequence" in error.message


def test_sharded_weights_are_refused_with_the_way_out(plan_of: Any) -> None:
    plan, two = plan_of(processesPerNode=2, deepspeed={"zeroStage": 3}), Device(2, cuda=True, bf16=True)
    with pytest.raises(TrainerError, match="use zeroStage 2, or level Sequence"):
        preflight.check_plan(plan, two, methods=METHODS)
    preflight.check_plan(plan_of(processesPerNode=2, deepspeed={"zeroStage": 2}), two, methods=METHODS)
