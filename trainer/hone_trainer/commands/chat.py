"""`python -m hone_trainer chat`: talk to an exported model and compare its answers with those of its base."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

from hone_api.words.failures import FailureCode
from hone_trainer.commands.ask import NOTES
from hone_trainer.commands.exported import Exported
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS
from hone_trainer.models.network import Generating
from hone_trainer.scoring import heldout
from hone_trainer.scoring.endings import Answer

Message = Mapping[str, str]
BASE, TUNED = "base", "tuned"
WAYS = "Empty line or Ctrl-D: end. /new: a new conversation."


@dataclass
class Chat:
    """An exported model and its base, loaded; an adapter shares the base's weights."""

    exported: Exported
    max_new_tokens: int
    _tuned: Generating = field(init=False)
    _base: Generating | None = field(init=False)
    _encoder: Encoder = field(init=False)

    def __post_init__(self) -> None:
        plan = self.exported.plan
        if METHODS[plan.method].head != "LanguageModel" or plan.method == "DAPT":
            raise TrainerError(FailureCode.INVALID_CONFIGURATION, f"a model of method {plan.method} cannot chat")
        self._tuned = self.exported.load()
        has_base = self.exported.is_adapter or (self.exported.base / "config.json").is_file()
        self._base = None if self.exported.is_adapter or not has_base else self.exported.load_base()
        self._encoder = Encoder(self.exported.opened.tokenizer, "LastAssistant")

    def answers(self, messages: Sequence[Message]) -> dict[str, Answer]:
        """What base and tuned model answer to the conversation, greedily; base only where its weights are there.

        Args:
            messages: {role, content}, the last one of the user.

        Raises:
            TrainerError: the chat template refuses the conversation, or it is too long for the model.
        """
        prompt = self.exported.prompt(self._encoder, [dict(message) for message in messages])
        most = self.exported.room(prompt, self.max_new_tokens, "conversation")
        answers_by_model = {}
        if self._base is not None or self.exported.is_adapter:
            with self._without_adapter():
                answers_by_model[BASE] = self._generate(self._base or self._tuned, prompt, most)
        answers_by_model[TUNED] = self._generate(self._tuned, prompt, most)
        return answers_by_model

    def _generate(self, network: Generating, prompt: Sequence[int], most: int) -> Answer:
        (answer,) = heldout.answers(
            network,
            [prompt],
            tokenizer=self.exported.opened.tokenizer,
            stop_ids=self.exported.opened.stop_ids | self._encoder.end_of_turn_ids,
            max_new_tokens=most,
        )
        return answer

    def _without_adapter(self) -> AbstractContextManager[Any]:
        tuned: Any = self._tuned
        return tuned.disable_adapter() if self.exported.is_adapter else nullcontext()


def main(options: argparse.Namespace) -> None:
    """Converse on the terminal, or answer lines of JSON."""
    out = sys.stdout
    with redirect_stdout(sys.stderr):  # whatever a library prints is not a line of the protocol
        chat = Chat(Exported.read(options.artifact, options.base), max(1, options.max_new_tokens))
        (answer_lines if options.json else converse)(chat, sys.stdin, out)


def answer_lines(chat: Chat, asked: Iterable[str], out: TextIO) -> None:
    """One line {messages} in, one line {base, tuned} or {error} out. The first line says that the model is loaded."""
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in asked:
        try:
            replies = chat.answers(json.loads(line)["messages"])
            line_out: dict[str, Any] = {name: asdict(answer) for name, answer in replies.items()}
        except TrainerError as error:
            line_out = {"error": str(error)}
        print(json.dumps(line_out), file=out, flush=True)


def converse(chat: Chat, asked: TextIO, out: TextIO) -> None:
    """Ask until an empty line or the end of input; the conversation goes on with the tuned model's answers."""
    messages: list[Message] = []
    print(WAYS, file=out)
    while True:
        print("> ", end="", file=out, flush=True)
        question = asked.readline().strip()
        if not question:
            return
        if question == "/new":
            messages = []
            continue
        messages.append({"role": "user", "content": question})
        replies = chat.answers(messages)
        for name, answer in replies.items():
            print(f"{name:>5}: {answer.text}", file=out)
            if answer.ending:
                print(NOTES[answer.ending], file=sys.stderr)
        messages.append({"role": "assistant", "content": replies[TUNED].text})
