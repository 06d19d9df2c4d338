"""Distillation: the student learns the teacher's answers, and not the rows' own."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.encoding import harmony
from hone_trainer.encoding.prompts import PromptEncoder
from hone_trainer.errors import TrainerError
from hone_trainer.run import ask_teacher, launch
from hone_trainer.signals import Stop
from hone_trainer.teachers import from_model as local
from hone_trainer.teachers import sequence
from hone_trainer.teachers.skipped import LeftOut

pytestmark = pytest.mark.trainer
LENGTH = 16


@pytest.fixture
def plan_of(make_plan: Any, teacher_model: Path) -> Any:
    def make(name: str = "run", path: Path = teacher_model, **fields: Any) -> Any:
        block = {"teacherModelVersion": "large-v1", "maxCompletionLength": LENGTH}
        return make_plan(
            name, method="Distillation", distillation=block, models={"large-v1": {"path": str(path)}}, **fields
        )

    return make


@pytest.mark.usefixtures("forked_apart")
def test_the_rows_become_the_teachers_own_greedy_answers(plan_of: Any, teacher_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plan = plan_of()
    answered = ask_teacher.prepare(plan, Stop(), first=True)
    assert answered.datasets[0].digest == plan.datasets[0].digest
    rows = [json.loads(line) for line in Path(answered.datasets[0].path).read_text().splitlines()]
    asked = {
        json.loads(line)["messages"][0]["content"] for line in Path(plan.datasets[0].path).read_text().splitlines()
    }
    assert rows
    tokenizer = AutoTokenizer.from_pretrained(teacher_model)
    model = AutoModelForCausalLM.from_pretrained(teacher_model).eval()
    for row in rows[:6]:
        question, answer = row["messages"]
        assert question["content"] in asked
        ids = tokenizer.apply_chat_template([question], add_generation_prompt=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            out = model.generate(ids, do_sample=False, max_new_tokens=LENGTH, pad_token_id=tokenizer.pad_token_id)
        assert answer["content"] == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.usefixtures("forked_apart")
def test_the_student_learns_them(runs: Any, plan_of: Any, tmp_path: Path) -> None:
    plan = plan_of()
    result = launch.run(plan, tmp_path)
    assert result is not None
    loss = next(n for n in result.numbers if n.name == "loss")
    assert float(loss.tuned) < float(loss.base or 0)


def test_a_resumed_run_asks_for_what_is_missing_alone(plan_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = plan_of("whole"), plan_of("broken")
    sequence.write_answers(whole)
    sequence.write_answers(broken)
    folder = Path(broken.work_path) / "teacher"
    (folder / "1.jsonl").unlink()
    kept = (folder / "0.jsonl").stat().st_mtime_ns
    sequence.write_answers(broken)
    assert (folder / "0.jsonl").stat().st_mtime_ns == kept
    for number in (0, 1):
        theirs = Path(whole.work_path) / "teacher" / f"{number}.jsonl"
        assert (folder / f"{number}.jsonl").read_bytes() == theirs.read_bytes()
    assert sorted(file.name for file in folder.iterdir()) == ["0.jsonl", "1.jsonl"]


@pytest.mark.usefixtures("forked_apart")
def test_a_teacher_that_finishes_no_answer_is_reported(plan_of: Any, tiny_model: Path) -> None:
    plan = plan_of(path=tiny_model)
    block = plan.distillation.model_copy(update={"max_completion_length": 1})
    with pytest.raises(TrainerError, match="the teacher finished no answer to 80 rows") as raised:
        ask_teacher.prepare(plan.model_copy(update={"distillation": block}), Stop(), first=True)
    assert raised.value.code == "NoTrainableRows"


def test_rows_with_tools_are_left_out(tiny_model: Path) -> None:
    """The written row keeps no tools: the student would learn calls of what it is not shown."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{% for t in tools or () %}{{ t | tojson }}{% endfor %}" + tokenizer.chat_template
    encoder = PromptEncoder(tokenizer, 200)
    asks = [{"role": "user", "content": "What time is it?"}]
    tools = [{"type": "function", "function": {"name": "now"}}]
    assert encoder.encode({"messages": asks, "tools": tools})  # the template shows them
    end = tokenizer.eos_token_id
    answer = [*tokenizer.encode("Late."), end]
    told = local.ModelTeacher(
        encoder, lambda prompts, _: [answer] * len(prompts), partial(harmony.decoded, tokenizer), frozenset({end})
    )
    with_tools, plain = told.rows([{"messages": asks, "tools": tools}, {"messages": asks}])
    assert with_tools == LeftOut("it has tools, which are not sent to the teacher")
    assert isinstance(plain, dict)


def test_the_end_of_turn_token_of_the_chat_template_also_ends_an_answer(
    plan_of: Any, teacher_model: Path, tmp_path: Path
) -> None:
    """As of bases whose files name the end of a document alone."""
    folder = shutil.copytree(teacher_model, tmp_path / "other")
    document = 0  # <|endoftext|>
    for file in ("config.json", "generation_config.json"):
        body = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**body, "eos_token_id": document}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|endoftext|>"}))
    (answered,) = local.load(plan_of(path=folder)).rows(
        [{"messages": [{"role": "user", "content": "Where is the tower of Rome?"}]}]
    )
    assert isinstance(answered, dict)
    assert answered["messages"][1]["content"] == "Ask me again."


def test_a_stop_ends_the_teacher(plan_of: Any) -> None:
    stop = Stop()
    stop.requested = True
    with pytest.raises(TrainerError) as raised:
        ask_teacher.prepare(plan_of(), stop, first=True)
    assert raised.value.code == "Interrupted"
