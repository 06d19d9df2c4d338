"""Distillation from a teacher behind an OpenAI-compatible API. The servers are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support.servers.teaching import Scripted

from hone_dev.models import modelserver
from hone_trainer.device import Device
from hone_trainer.errors import SourceError, TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.run import ask_teacher, launch, preflight
from hone_trainer.signals import Stop
from hone_trainer.teachers import sequence, skipped

pytestmark = pytest.mark.trainer
LENGTH = 16
KEY = "sk-test-key-0123456789"
LONG = "127.0.0.1 answers 400: This model's maximum context length is 8 tokens."


@pytest.fixture
def plan_of(make_plan: Any) -> Any:
    def make(url: str, name: str = "run", options: dict[str, Any] | None = None, **fields: Any) -> Any:
        block = {"teacherEndpoint": {"endpoint": url}, "maxCompletionLength": LENGTH, **(options or {})}
        fields = {"allowPrivateAddresses": True, **fields}
        return make_plan(name, method="Distillation", distillation=block, **fields)

    return make


def records(path: Path | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def question(row: dict[str, Any]) -> str:
    return str(row["messages"][0]["content"])


def source(file: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [{"name": "rows", "path": str(file), "digest": "sha256:" + "0" * 64}]


def test_the_answers_are_those_of_the_same_model_in_the_pod(
    plan_of: Any, make_plan: Any, teacher_model: Path, tmp_path: Path, rows_files: tuple[Path, Path]
) -> None:
    """Both are greedy."""
    rows = source(tmp_path / "few.jsonl", records(rows_files[0])[:12])
    block = {"teacherModelVersion": "large-v1", "maxCompletionLength": LENGTH}
    models = {"large-v1": {"path": str(teacher_model)}}
    local = make_plan("local", method="Distillation", distillation=block, models=models, datasets=rows, held_out=False)
    with modelserver.serve(modelserver.Model(str(teacher_model), "large")) as url:
        served = plan_of(url, "served", datasets=rows, held_out=False)
        sequence.write_answers(served)
    sequence.write_answers(local)
    ours, theirs = (Path(plan.work_path) / "teacher" / "0.jsonl" for plan in (served, local))
    assert records(ours)
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.usefixtures("forked_apart")
def test_a_student_learns_them_and_the_key_is_nowhere(
    plan_of: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A whole run, asked for at temperature 0. What was cut or is empty is left out and counted, in every split."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "API_KEY").write_text(f"{KEY}\n")
    model = Scripted()
    with modelserver.serve(model, KEY) as url:
        plan = plan_of(url, teacherSecretPath="secret")
        result = launch.run(plan, tmp_path)
    assert result is not None
    loss = next(number for number in result.numbers if number.name == "loss")
    assert float(loss.tuned) < float(loss.base or 0)
    assert {(temperature, length) for _, temperature, length in model.asked} == {(0.0, LENGTH)}
    assert len(model.asked) == 96
    rows = records(Path(plan.work_path) / "teacher" / "0.jsonl")
    asked = [question(row) for row in records(plan.datasets[0].path)]
    assert [question(row) for row in rows] == [q for q in asked if "Rome" not in q and "Oslo" not in q]
    assert all(row["messages"][1]["content"] == f"You ask: {question(row)}" for row in rows)
    said = "".join(capfd.readouterr())
    cut, empty = (sum(place in q for q in asked) for place in ("Rome", "Oslo"))
    assert f"the teacher answered {len(rows)} of 80 rows" in said
    assert f"{cut} left out: its answer is longer than maxCompletionLength" in said
    assert f"{empty} left out: its answer is empty" in said
    assert KEY not in said
    assert not [f for f in Path(plan.work_path).parent.rglob("*") if f.is_file() and KEY.encode() in f.read_bytes()]


@pytest.mark.faults("T14")
def test_a_resumed_run_asks_for_what_is_missing_alone(plan_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "PART", 10)

    class Mortal(Scripted):
        """Gives up in the fourth part."""

        def answer(self, *args: Any) -> dict[str, Any]:
            if len(self.asked) == 35:
                return {"choices": []}
            return super().answer(*args)

    first, second = Mortal(), Scripted()
    with modelserver.serve(first) as url:
        plan = plan_of(url)
        with pytest.raises(TrainerError, match="something else than a completion") as raised:
            sequence.write_answers(plan)
    assert raised.value.code == "EndpointRefused"
    folder = Path(plan.work_path) / "teacher"
    assert [file.name for file in sorted(folder.iterdir())] == [f"0-{start:08d}.part" for start in (0, 10, 20)]
    with modelserver.serve(second) as url:
        sequence.write_answers(plan_of(url))
    asked = [question(row) for row in records(plan.datasets[0].path)]
    held_out = [question(row) for row in records(plan.evaluation_datasets[0].path)]
    assert sorted(second.questions) == sorted(asked[30:] + held_out)
    assert [question(row) for row in records(folder / "0.jsonl")] == [
        q for q in asked if "Rome" not in q and "Oslo" not in q
    ]


def asked_of(plan: Any) -> list[str]:
    """The questions of training and validation, in their order."""
    return [question(row) for source in (*plan.datasets, *plan.evaluation_datasets) for row in records(source.path)]


@pytest.mark.usefixtures("forked_apart")
@pytest.mark.parametrize(
    ("fields", "wrong", "code"),
    [
        (
            {"training": {"maxLength": 100_000}},
            "training.maxLength 100000 is over the model's context",
            "ModelUnsuitable",
        ),
        (
            {"training": {"batchSize": 3}, "processesPerNode": 2},
            "batchSize 3 must be a multiple of 2 ranks",
            "ConflictingFields",
        ),
    ],
)
def test_a_job_that_is_refused_asks_nothing(
    plan_of: Any, tmp_path: Path, fields: dict[str, Any], wrong: str, code: str
) -> None:
    model = Scripted()
    with modelserver.serve(model) as url, pytest.raises(TrainerError, match=wrong) as raised:
        launch.run(plan_of(url, **fields), tmp_path)
    assert raised.value.code == code
    assert model.asked == []


def test_rows_without_a_prompt_are_refused_before_any_is_asked(plan_of: Any, tmp_path: Path) -> None:
    rows = source(tmp_path / "text.jsonl", [{"prompt": "Where is Rome?"}, {"text": "Rome is old."}])
    model = Scripted()
    with modelserver.serve(model) as url, pytest.raises(TrainerError, match="line 2: has neither") as raised:
        sequence.write_answers(plan_of(url, datasets=rows, held_out=False))
    assert raised.value.code == "DatasetFormatMismatch"
    assert model.asked == []


@pytest.mark.usefixtures("forked_apart")
def test_a_refused_prompt_is_left_out_and_named(plan_of: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "API_KEY").write_text(KEY)
    asked = asked_of(plan_of("http://127.0.0.1:9/v1"))
    refused = [asked[4], asked[70], asked[85]]
    with modelserver.serve(Scripted(*refused), KEY) as url:
        plan = plan_of(url, teacherSecretPath="secret", training={"maxSteps": 1})
        result = launch.run(plan, tmp_path)
    assert result is not None
    told = [
        "places/train: 2 of 80 prompts are left out, since the teacher's server refuses "
        f"row 5 ({LONG}), row 71 ({LONG})",
        f"places/validation: 1 of 16 prompts are left out, since the teacher's server refuses row 6 ({LONG})",
    ]
    assert [sentence for sentence in result.advice if "sample answers" not in sentence] == told
    report = json.loads((Path(plan.output_path) / "adapter" / "report.json").read_text())
    assert [sentence for sentence in report["advice"] if "sample answers" not in sentence] == told
    assert "2 left out: its prompt is refused by the teacher's server" in report["data"]["places/train"]
    folder = Path(plan.work_path) / "teacher"
    assert not {question(row) for row in records(folder / "0.jsonl")} & set(refused)
    left = {row["leftOut"]: row for row in records(folder / "0.left-out.jsonl")}
    assert (left[5]["words"], left[71]["words"]) == (LONG, LONG)
    assert {asked[row - 1] for row in left} == {q for q in asked[:80] if "Rome" in q or "Oslo" in q} | set(refused[:2])


def test_what_a_server_says_is_one_line_without_a_key() -> None:
    found = skipped.refused_prompt("No:\n\tBearer 0123456789abcdef  is not known.")
    assert found.words == "No: Bearer *** is not known."
    (told,) = skipped.warnings("rows/train", 100, {n: skipped.refused_prompt("long " * 60) for n in range(1, 100)})
    assert len(told) < 600
    assert told.endswith(", and 96 more")


def test_a_refused_prompt_is_not_asked_again(plan_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "PART", 10)
    plan = plan_of("http://127.0.0.1:9/v1")
    asked = asked_of(plan)

    class Mortal(Scripted):
        """Is unreachable from the third part on."""

        def answer(self, *args: Any) -> dict[str, Any]:
            return super().answer(*args) if len(self.asked) < 20 else {"choices": []}

    with modelserver.serve(Mortal(asked[4])) as url, pytest.raises(TrainerError):
        sequence.write_answers(plan_of(url))
    again = Scripted(asked[4])
    with modelserver.serve(again) as url:
        sequence.write_answers(plan_of(url))
    assert sorted(again.questions) == sorted(asked[20:])
    answers = Path(plan.work_path) / "teacher" / "0.jsonl"
    assert skipped.read(answers)[5].reason == skipped.REFUSED


def test_a_server_that_refuses_many_prompts_ends_the_attempt(plan_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 of 96. The next attempt goes on where this one was, if the server has been repaired."""
    monkeypatch.setattr(sequence, "PART", 10)
    asked = asked_of(plan_of("http://127.0.0.1:9/v1"))
    with modelserver.serve(Scripted(asked[4], asked[12], *asked[25:28])) as url:
        plan = plan_of(url)
        with pytest.raises(TrainerError) as raised:
            sequence.write_answers(plan)
    assert raised.value.code == "EndpointRefused"
    assert raised.value.message == (
        "the teacher's server refuses 5 of 30 prompts so far, and more than 5% end the run: places/train "
        f"row 5 ({LONG}), row 13 ({LONG}), row 26 ({LONG}), and 2 more. Remove or shorten such rows, or let the "
        "server take them: its context must hold a prompt and distillation.maxCompletionLength"
    )
    mended = Scripted()
    with modelserver.serve(mended) as url:
        sequence.write_answers(plan_of(url))
    assert sorted(mended.questions) == sorted(asked[20:])
    left = skipped.read(Path(plan.work_path) / "teacher" / "0.jsonl")
    assert [row for row, found in left.items() if found.reason == skipped.REFUSED] == [5, 13]


@pytest.mark.parametrize(
    ("prompts", "parts", "ends"),
    [
        (100, [(64, 5), (36, 0)], False),
        (100, [(64, 5), (36, 1)], True),
        (50_000, [(64, 25), (64, 0)], False),  # too few to judge by
        (50_000, [(64, 26)], True),
        (50_000, [(64, 3)] * 782, False),
        (50_000, [(64, 4)] * 6, False),
        (50_000, [(64, 4)] * 7, True),  # long before half of the answers are paid for
    ],
)
def test_a_share_of_refused_prompts_ends_the_run(prompts: int, parts: list[tuple[int, int]], ends: bool) -> None:
    refusals = skipped.RefusedPrompts(prompts)

    def add_all() -> None:
        for rows, refused in parts:
            refusals.add("rows/train", rows, {row: skipped.refused_prompt("No.") for row in range(1, refused + 1)})

    if not ends:
        return add_all()
    with pytest.raises(SourceError):
        add_all()


def test_the_log_says_how_far_the_teacher_is(
    plan_of: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sequence, "PART", 30)
    monkeypatch.setattr(sequence, "SAID_EVERY", 0.0)
    with modelserver.serve(Scripted()) as url:
        sequence.write_answers(plan_of(url))
    said = capfd.readouterr().err
    assert [f"places/train: the teacher was asked {n} of 80 rows" in said for n in (30, 60, 80)] == [True] * 3


def test_several_are_asked_at_a_time() -> None:
    """Were they asked one after the other, the first would wait for the others for ever."""
    from hone_trainer.endpoints.client import Access, Endpoint, ModelReply
    from hone_trainer.teachers.from_endpoint import PARALLEL, EndpointTeacher

    together = threading.Barrier(PARALLEL, timeout=600)

    class Meeting(Endpoint):
        def chat(self, *_args: Any, **_options: Any) -> ModelReply:
            together.wait()
            return ModelReply("Here.", whole=True)

    made = EndpointTeacher(Meeting("http://teacher.models.svc/v1", Access()), "large", LENGTH)
    found = list(made.rows([{"prompt": "Where?"}] * PARALLEL))
    assert found == [{"prompt": "Where?", "completion": "Here."}] * PARALLEL


def test_what_a_teacher_cannot_be_asked_is_left_out(plan_of: Any, tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "now", "arguments": "{}"}}]}
    asks, says = {"role": "user", "content": "What time is it?"}, {"role": "assistant", "content": "Noon."}
    rows = [
        {"messages": [asks, call, {"role": "tool", "content": "12:00"}, says]},
        {"messages": [asks, says], "tools": [{"type": "function", "function": {"name": "now"}}]},
        {"messages": [says]},
        {"messages": [{"role": "system", "content": "Be brief."}, asks, says]},
        {"prompt": "What is 2 + 2?", "answer": "4"},
    ]
    model = Scripted()
    with modelserver.serve(model) as url:
        plan = plan_of(url, datasets=source(tmp_path / "rows.jsonl", rows), held_out=False)
        ask_teacher.ask(plan)
        answered = ask_teacher.prepare(plan, Stop(), first=True)
    assert [turn["content"] for turn in records(answered.datasets[0].path)[0]["messages"]] == [
        "Be brief.",
        "What time is it?",
        "You ask: What time is it?",
    ]
    assert records(answered.datasets[0].path)[1:] == [
        {"prompt": "What is 2 + 2?", "completion": "You ask: What is 2 + 2?", "answer": "4"}
    ]
    assert sorted(model.questions) == ["What is 2 + 2?", "What time is it?"]


def test_a_row_may_hold_what_unicode_calls_the_end_of_a_line(plan_of: Any, tmp_path: Path) -> None:
    """A Dataset writes such characters as they are."""
    file, asked = tmp_path / "rows.jsonl", ["Where is\u2028the river?", "Where is\x85the tower?"]
    datasets = source(file, [])
    file.write_text("".join(json.dumps({"prompt": q}, ensure_ascii=False) + "\n" for q in asked), encoding="utf-8")
    with modelserver.serve(Scripted()) as url:
        plan = plan_of(url, datasets=datasets, held_out=False)
        ask_teacher.ask(plan)
        answered = ask_teacher.prepare(plan, Stop(), first=True)
    assert [row["prompt"] for row in records(answered.datasets[0].path)] == asked


def failure(plan: Any) -> TrainerError:
    """What the teacher's process ends with, here."""
    with pytest.raises(TrainerError) as raised:
        ask_teacher.ask(plan)
    return raised.value


def test_an_endpoint_that_refuses_the_key_is_the_runs_own_failure(plan_of: Any, tmp_path: Path) -> None:
    """As its process reports it."""
    (tmp_path / "API_KEY").write_text("sk-another-key-987654")
    with modelserver.serve(Scripted(), KEY) as url, pytest.raises(TrainerError) as raised:
        ask_teacher.prepare(plan_of(url, teacherSecretPath=str(tmp_path)), Stop(), first=True)
    error = raised.value
    assert error.code == "EndpointRefused"
    assert "Incorrect API key provided" in error.message
    assert "sk-another" not in error.message


def test_a_model_that_is_not_served_ends_the_attempt_at_once(plan_of: Any) -> None:
    model = Scripted()
    with modelserver.serve(model) as url:
        plan = plan_of(url, options={"teacherEndpoint": {"endpoint": url, "model": "larger"}})
        error = failure(plan)
    assert (error.code, model.asked) == ("EndpointRefused", [])
    assert error.message == "127.0.0.1 answers 404: The model `larger` does not exist"


@pytest.mark.parametrize(("file", "code"), [("TOKEN", "SecretKeyNotFound"), (None, "SecretNotFound")])
def test_a_key_that_is_not_there_is_named(plan_of: Any, tmp_path: Path, file: str | None, code: str) -> None:
    folder = tmp_path / "secret"
    if file:
        folder.mkdir()
        (folder / file).write_text(KEY)
    assert failure(plan_of("http://127.0.0.1:9/v1", teacherSecretPath=str(folder))).code == code


@pytest.mark.faults("T14")
def test_an_unreachable_endpoint_is_tried_again_and_named(plan_of: Any, tmp_path: Path) -> None:
    """The pauses are skipped, in a process of its own, as the trainer's."""
    plan = plan_of("http://127.0.0.1:9/v1")
    (tmp_path / "plan.json").write_text(plan.model_dump_json(by_alias=True))
    program = (
        "import sys, time; time.sleep = lambda seconds: print('pause', flush=True)\n"
        "from hone_trainer.run import apart, ask_teacher\n"
        "sys.exit(apart.main(ask_teacher.ask))"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "plan.json"), str(tmp_path / "outcome.json")]
    done = subprocess.run(arguments, capture_output=True, text=True, env={**os.environ}, check=False)
    found = json.loads((tmp_path / "outcome.json").read_text())["failure"]
    assert (done.returncode, found["code"], done.stdout.count("pause")) == (74, "EndpointUnreachable", 5), done.stderr
    assert "after 6 tries" in found["message"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": "Logits", "maxCompletionLength": None}, "use level Sequence, or teacherModelVersion"),
        ({"teacherModelVersion": "large-v1"}, "set exactly one of teacherModelVersion and teacherEndpoint"),
        ({"teacherEndpoint": None}, "set exactly one of teacherModelVersion and teacherEndpoint"),
    ],
)
def test_what_an_api_cannot_do_is_refused(plan_of: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainerError, match=words):
        preflight.check_plan(
            plan_of("https://models.example/v1", options=options), Device(1, cuda=True, bf16=True), methods=METHODS
        )
