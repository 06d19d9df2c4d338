"""`python -m hone_trainer ask`: one answer of an exported model, asked as a server asks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer.commands.exported import Exported
from hone_trainer.commands.options import TOKENS
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.scoring import heldout
from hone_trainer.scoring.endings import Answer

NOTES = {
    "Repeats": "note: the answer loops: it repeats the same words to its end.",
    "Cut": "note: the answer was cut; --max-new-tokens allows more.",
}


def main(options: argparse.Namespace) -> None:
    """Print the answer; how it ended, unless by itself, goes to stderr."""
    reply = answer(options.artifact, options.question, options.base, max(1, options.max_new_tokens))
    print(reply.text)
    if reply.ending:
        print(NOTES[reply.ending], file=sys.stderr)


def answer(artifact: Path, question: str, base: Path | None = None, max_new_tokens: int = TOKENS) -> Answer:
    """The model's greedy answer.

    Args:
        artifact: folder with report.json, as exported.
        base: folder of the base model; needed for an adapter unless it is where the run had it.

    Raises:
        TrainerError: FileNotFound when `artifact` is not one, or an adapter's base is not there; InvalidConfiguration
            for a reward model; RowTooLong for a question that leaves no room for an answer; InvalidRow for one that
            the chat template refuses.
    """
    exported = Exported.read(artifact, base)
    if METHODS[exported.plan.method].head != "LanguageModel":
        raise TrainerError(
            FailureCode.INVALID_CONFIGURATION, f"a model of method {exported.plan.method} cannot answer questions"
        )
    tokenizer = exported.opened.tokenizer
    if exported.plan.method == "DAPT":
        prompt, stop_ids = tokenizer(question)["input_ids"], exported.opened.stop_ids
    else:
        encoder = Encoder(tokenizer, "LastAssistant")
        prompt = exported.prompt(encoder, question)
        stop_ids = exported.opened.stop_ids | encoder.end_of_turn_ids
    most = exported.room(prompt, max_new_tokens)
    options: dict[str, Any] = {"tokenizer": tokenizer, "stop_ids": stop_ids, "max_new_tokens": most}
    return heldout.answers(exported.load(), [prompt], **options)[0]
