"""The methods, by their name in the API: `METHOD` of the module that has that name in lower case."""

from __future__ import annotations

from importlib import import_module

from hone_api.methods import Method as Name
from hone_trainer.training.method import TrainingMethod

METHODS: dict[str, TrainingMethod] = {name: import_module(f"{__name__}.{name.lower()}").METHOD for name in Name}
