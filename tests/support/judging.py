"""Models that judge answers: a random reward model, and a judge whose grade is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hone_dev import modelserver


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
    """Grades by the length of the answer, as a model would that was told to."""

    def __init__(self, served_as: str) -> None:
        self.served_as = served_as
        self.asked: list[tuple[list[dict[str, str]], float]] = []

    def answer(self, messages: list[dict[str, str]], temperature: float, length: int, seed: int) -> dict[str, Any]:
        self.asked.append((messages, temperature))
        text = messages[1]["content"].split("<answer>\n")[1].split("\n</answer>")[0]
        said = f"Grade: {len(text)}" if text != "?" else "I cannot say."
        return {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}
