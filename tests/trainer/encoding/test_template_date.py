"""Chat templates that print the date of today print that of the run."""

from __future__ import annotations

import ast
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trl
from support.models.chat_templates import IM, byte_level, chat
from support.runs import clock

from hone_trainer.encoding import rendering
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.prompts import PromptEncoder
from hone_trainer.harness.language_model import TunedModel

pytestmark = pytest.mark.trainer

ROOT = Path(__file__).resolve().parents[3]
HARMONY = ["<|endoftext|>", "<|start|>", "<|return|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>"]
HOUR = clock.LLAMA_3.replace("%d %b %Y", "%H:%M on %A")


def llama(template: str = clock.LLAMA_3) -> Any:
    return byte_level(IM, template, eos_token="<|im_end|>", bos_token="<|endoftext|>")


def gpt_oss() -> Any:
    template = (Path(trl.__file__).parent / "chat_templates" / "gptoss.jinja").read_text(encoding="utf-8")
    return byte_level(HARMONY, template, eos_token="<|return|>", pad_token="<|endoftext|>")


def row(tokenizer: Any) -> str:
    (found,) = Encoder(tokenizer).encode(chat("Where is Bern?", "In Europe."))
    return str(tokenizer.decode(found.input_ids))


def prompt(tokenizer: Any) -> str:
    record = {"prompt": "Where is Bern?", "answer": "In Europe."}
    return str(tokenizer.decode(PromptEncoder(tokenizer, 10_000).encode(record)[0].prompt_ids))


def question(tokenizer: Any) -> str:
    """Of a task of lm-evaluation-harness."""
    model = TunedModel(SimpleNamespace(run=SimpleNamespace(base=SimpleNamespace(tokenizer=tokenizer, context=0))), None)
    return model.apply_chat_template([{"role": "user", "content": "Where is Bern?"}])


@pytest.mark.parametrize("text", [row, prompt, question])
@pytest.mark.parametrize(
    ("tokenizer", "shown"),
    [
        (llama, "Today Date: 27 Nov 2026<|im_end|>"),
        (lambda: llama(HOUR), "Today Date: 00:00 on Friday<|im_end|>"),
        (gpt_oss, "Current date: 2026-11-27\n"),
    ],
    ids=["Llama 3", "the time", "gpt-oss"],
)
def test_the_date_is_that_of_the_run(monkeypatch: pytest.MonkeyPatch, tokenizer: Any, shown: str, text: Any) -> None:
    clock.stands_at(monkeypatch, "2031-02-03")
    with rendering.of_run(date(2026, 11, 27), "Auto"):
        assert shown in text(tokenizer())
    assert shown not in text(tokenizer())


@pytest.mark.parametrize(("tokenizer", "shown"), [(llama, "Today Date: 03 Feb 2031<"), (gpt_oss, "date: 2031-02-03\n")])
def test_without_a_run_it_is_today(monkeypatch: pytest.MonkeyPatch, tokenizer: Any, shown: str) -> None:
    clock.stands_at(monkeypatch, "2031-02-03")
    assert shown in row(tokenizer())


def test_templates_are_applied_in_one_place_alone() -> None:
    """Who calls the tokenizer instead prints another date, and is not bounded."""
    used = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "trainer").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr == "apply_chat_template"
        and not ast.unparse(node.value).endswith("options")  # of the harness: a field of the API
    }
    assert used == {"trainer/hone_trainer/encoding/rendering.py"}
