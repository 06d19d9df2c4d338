"""Judges of answers: a random reward model, one whose grade is known, one that is unreachable, a wrong reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone_dev.models import modelserver


def reward_model(base: Path, folder: Path) -> Path:
    """Write a reward model with a random head to `folder`."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Grader(modelserver.Model):
    """Grades by the length of the answer, as a model would that was asked to."""

    def __init__(self, served_as: str) -> None:
        self.served_as = served_as
        self.asked: list[tuple[list[dict[str, str]], float]] = []

    def answer(self, messages: list[dict[str, str]], temperature: float, length: int, seed: int) -> dict[str, Any]:
        self.asked.append((messages, temperature))
        text = messages[1]["content"].split("<answer>\n")[1].split("\n</answer>")[0]
        said = f"Grade: {len(text)}" if text != "?" else "I cannot say."
        return {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}


def unreachable(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A reward by a judge whose server does not answer."""
    from hone_trainer.endpoints.client import Endpoint
    from hone_trainer.errors import SourceError

    def refused(*_: Any, **__: Any) -> None:
        raise SourceError("EndpointUnreachable", "judge.example, after 6 tries: refused")

    monkeypatch.setattr(Endpoint, "chat", refused)
    return {"type": "Judge", "judge": {"endpoint": "https://judge.example/v1", "model": "strict"}}


def wrong_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let adapters not begin at zero: the model without one is not where training starts."""
    from hone_trainer.models import adapters

    to_peft = adapters.to_peft

    def not_at_zero(*args: Any) -> Any:
        config = to_peft(*args)
        config.init_lora_weights = False
        return config

    monkeypatch.setattr(adapters, "to_peft", not_at_zero)
