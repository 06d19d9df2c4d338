"""What vLLM answers, and what `ask` does: tiny models on a CPU, with chat templates as models ship them.

vLLM renders conversations by the same code in its server and in a process that asks it directly, as here;
`test_vllm.py` asks a server.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.models import families
from support.models.family_templates import record, tokenizer

from hone_dev.models import vllm
from hone_trainer.commands import ask
from hone_trainer.commands.exported import Exported
from hone_trainer.encoding import harmony
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.errors import TrainerError
from hone_trainer.models import generate
from hone_trainer.run import pipeline
from hone_trainer.signals import Stop
from hone_trainer.store import contents

pytestmark = pytest.mark.trainer
DOCS = Path(__file__).parents[3] / "docs"
PROGRAM = Path(__file__).parents[2] / "support" / "models" / "vllm_answers.py"
QUESTION = "What is the capital of France?"
NEW = 24
Case = tuple[str, str, str]
"""Template, family and `training.thinking`."""
CASES: list[Case] = [
    ("llama3_2", "llama", "Auto"),
    ("mistral_v7_tekken", "mistral", "Auto"),
    ("qwen2_5", "qwen2", "Auto"),
    ("qwen3", "qwen3", "Disabled"),
    ("gemma3", "gemma3_text", "Auto"),
    ("phi3", "phi3", "Auto"),
]
PROMPTS = [("Plain", "three"), ("System", "two")]
"""Conversations whose prompts are compared as well, up to their last answer."""


def trained(case: Case, folder: Path, make_plan: Any) -> Path:
    """A model of a few steps: its folder, as exported."""
    template, family, thinking = case
    tok, base = tokenizer(template), folder / "base"
    folder.mkdir()
    sizes = families.config(family)
    sizes.vocab_size = -(-len(tok) // 64) * 64
    sizes.eos_token_id = sizes.pad_token_id = tok.eos_token_id
    sizes.bos_token_id = tok.bos_token_id
    families.build(family, sizes).save_pretrained(base)
    tok.save_pretrained(base)
    rows, kind = folder / "rows.jsonl", "Reasoning" if template == "deepseek_r1_distill" else "Plain"
    rows.write_text("".join(json.dumps(record(kind, title)) + "\n" for title in ("one", "unicode") * 8))
    source = {"name": "rows", "split": "train", "path": str(rows), "digest": contents.UNKNOWN}
    plan = make_plan(
        "-".join(case),
        held_out=False,
        modelPath=str(base),
        datasets=[source],
        adapter={"type": "None"},
        training={"maxSteps": 8, "learningRate": "2e-3", "thinking": thinking},
    )
    pipeline.run_plan(plan, Stop())
    return Path(plan.output_path) / "full"


@pytest.mark.outside
@pytest.mark.long
def test_vllm_answers_as_ask_does_with_every_template(tmp_path: Path, make_plan: Any) -> None:
    tasks: list[dict[str, Any]] = []
    expected: list[tuple[list[list[int]], list[int], str]] = []
    for case in CASES:
        model = trained(case, tmp_path / "-".join(case), make_plan)
        asked, prompts = conversations(exported := Exported.read(model))
        encoder = Encoder(exported.opened.tokenizer, "LastAssistant")
        exported.prompt(encoder, QUESTION)
        stop_ids = exported.stop_ids | encoder.end_of_turn_ids
        pad_id = exported.opened.tokenizer.pad_token_id
        answer = generate.greedy(exported.load().eval(), prompts[:1], pad_id=pad_id, stop_ids=stop_ids, longest=NEW)[0]
        tasks.append({"model": str(model), "chats": asked, "new": NEW})
        expected.append((prompts, answer, ask.answer(model, QUESTION, max_new_tokens=NEW).text))
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    compared = 0
    for case, found, (prompts, answer, text) in zip(CASES, served(tmp_path), expected, strict=True):
        assert [prompt for prompt, _ in found] == prompts, case
        assert found[0][1] == answer, case
        assert harmony.decoded(tokenizer(case[0]), *found[0]).strip() == text, case
        compared += len(found)
    print(len(CASES), compared)
    page = (DOCS / "outside.md").read_text()
    assert f"| {len(CASES)} models, {compared} prompts | {len(CASES)} models, {compared} prompts |" in page


def conversations(exported: Exported) -> tuple[list[list[Any]], list[list[int]]]:
    """The question and other conversations that the template takes, and the prompts that Hone makes of them."""
    asked: list[list[Any]] = [[{"role": "user", "content": QUESTION}]]
    asked += [record(*conversation)["messages"][:-1] for conversation in PROMPTS]
    found = []
    for turns in asked:
        with suppress(TrainerError):
            found.append((turns, exported.prompt(Encoder(exported.opened.tokenizer), turns)))
    return [turns for turns, _ in found], [prompt for _, prompt in found]


def served(folder: Path) -> list[Any]:
    """What vLLM, in a process of its own Python, makes of each task."""
    env = {**os.environ, **vllm.EAGER, "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    env |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING"}
    answers = folder / "answers.jsonl"
    done = subprocess.run(
        [vllm.python(), PROGRAM, "chats", folder / "tasks.json", answers], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in answers.read_text().splitlines()]
