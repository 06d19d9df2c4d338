"""The methods, by their name in the API."""

from __future__ import annotations

from hone_trainer.methods import dapt, sft
from hone_trainer.methods.base import Method

METHODS: dict[str, Method] = {
    "SFT": sft.METHOD,
    "DAPT": dapt.METHOD,
}
