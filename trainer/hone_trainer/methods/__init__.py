"""The methods, by their name in the API."""

from __future__ import annotations

from types import ModuleType

from hone_trainer.methods import sft

METHODS: dict[str, ModuleType] = {"SFT": sft}
