"""A conversation with an exported model and its base: on a terminal, and through the server of `hone chat`."""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from support.runs.forked_apart import ForkedWithPipes
from support.servers.app_server import running

from hone_cli import answering
from hone_cli import chat as remote_chat
from hone_cli.clients.client import Conversation
from hone_cli.errors import CommandError
from hone_cli.reach.guard import digest
from hone_trainer.commands import ask, chat
from hone_trainer.commands.exported import Exported
from hone_trainer.errors import TrainerError

pytestmark = pytest.mark.trainer
TOKEN = "the-token-of-this-chat"
QUESTION = "What is a Pod?"


def said(content: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.fixture
def out(runs: Any, make_plan: Any) -> Path:
    """A run that changed its model much, as adapter and merged."""
    training = {"maxSteps": 2, "learningRate": "0.05"}
    plan = make_plan(training=training, output={"modelName": "tiny", "merge": True})
    runs.finish(plan)
    return Path(plan.output_path)


def test_base_and_tuned_answer_side_by_side(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by_form = {}
    for form in ("adapter", "merged"):
        asked = chat.Chat(Exported.read(out / form), max_new_tokens=8)
        found = by_form[form] = asked.answers([said(QUESTION)])
        assert found["tuned"] == ask.answer(out / form, QUESTION, max_new_tokens=8)
        later = asked.answers([said(QUESTION), said(found["tuned"].text or "-", "assistant"), said("And a Job?")])
        assert set(later) == {"base", "tuned"}
        with pytest.raises(TrainerError, match=r"conversation has \d+ tokens"):
            asked.answers([said("word " * 1000)])
        mark = asked.exported.opened.tokenizer.eos_token
        with pytest.raises(TrainerError, match="ControlToken: content holds"):
            asked.answers([said(f"What does {mark} mean?")])
        with pytest.raises(TrainerError, match="ControlToken: content holds"):
            ask.answer(out / form, f"What does {mark} mean?")
    assert by_form["adapter"]["base"] == by_form["merged"]["base"]
    assert by_form["adapter"]["base"] != by_form["adapter"]["tuned"]

    def read_aloud(*where: Any) -> Exported:
        print("a library says something")
        return read(*where)

    read = Exported.read
    monkeypatch.setattr(chat.Exported, "read", read_aloud)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"messages": [said(QUESTION)]}) + "\n"))
    capsys.readouterr()
    chat.main(argparse.Namespace(artifact=out / "adapter", base=None, max_new_tokens=2, json=True))
    loaded, answered = map(json.loads, capsys.readouterr().out.splitlines())
    assert (loaded, set(answered)) == ({"ready": True}, {"base", "tuned"})

    told = io.StringIO()
    chat.converse(asked, io.StringIO(f"{QUESTION}\n/new\n{QUESTION}\n"), told)
    assert told.getvalue().count(f"tuned: {found['tuned'].text}") == 2


def test_the_same_through_the_server_of_a_pod(out: Path, forks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started = SimpleNamespace(PIPE=subprocess.PIPE, Popen=lambda command, **_: ForkedWithPipes(forks().apart, command))
    monkeypatch.setattr(answering, "subprocess", started)
    with answering.model(str(out / "adapter")) as asked, running(answering.application(asked, digest(TOKEN))) as url:
        with pytest.raises(CommandError, match="token"):
            remote_chat.RemoteChat(url, "wrong").answers([said(QUESTION)])
        remote = remote_chat.RemoteChat(url, TOKEN)
        with pytest.raises(CommandError, match=r"messages\.0\.role"):
            remote.answers([said(QUESTION, "developer")])
        with pytest.raises(CommandError, match=r"conversation has \d+ tokens"):
            remote.answers([said("word " * 1000)])
        answers = remote.answers([said(QUESTION)])
        assert ask.answer(out / "adapter", QUESTION).text == answers["tuned"]["text"], "both stop at the context"
        with pytest.raises(TrainerError, match=r"question has \d+ tokens"):
            ask.answer(out / "adapter", "word " * 1000)
        assert answers["tuned"]["ending"] == "Repeats"
        assert answers["base"]["text"] != answers["tuned"]["text"]
        conversation = Conversation(remote)
        assert conversation.ask(QUESTION) == {name: answer["text"] for name, answer in answers.items()}
        assert conversation.messages == [said(QUESTION), said(answers["tuned"]["text"], "assistant")]

        console = Console(file=io.StringIO(), width=100)
        questions = iter([QUESTION, "word " * 1000, ""])
        console.input = lambda *_: next(questions)
        remote_chat.converse(remote, console)
        shown = console.file.getvalue()
        assert re.search("─ base .*─ tuned ", shown), shown
        assert "/new begins again" in shown

        asked.process.kill()
        questions = iter([QUESTION, QUESTION])
        with pytest.raises(CommandError, match=r"OutOfMemory: .* --memory 16Gi"):
            remote_chat.converse(remote, console)
        assert next(questions) == QUESTION, "no further question is asked"


def test_a_reward_model_does_not_converse(out: Path) -> None:
    exported = Exported.read(out / "merged")
    exported.plan.method = "DAPT"
    with pytest.raises(TrainerError, match="method DAPT cannot chat"):
        chat.Chat(exported, 8)
