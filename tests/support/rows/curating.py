"""Rows for tests of the curation."""

from __future__ import annotations

import random

WORDS = [f"word{i}" for i in range(5000)]


def sentence(seed: int, length: int = 60) -> list[str]:
    return random.Random(seed).choices(WORDS, k=length)


def without(words: list[str], at: int) -> list[str]:
    return [*words[:at], "changed", *words[at + 1 :]]


def step(result, name):
    return next(step for step in result.curation if step.step == name)
