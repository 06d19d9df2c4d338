"""The methods, by their name in the API."""

from __future__ import annotations

from hone_trainer.methods import dapt, dpo, grpo, kto, orpo, reward, sft
from hone_trainer.methods.base import Method

METHODS: dict[str, Method] = {
    "SFT": sft.METHOD,
    "DAPT": dapt.METHOD,
    "DPO": dpo.METHOD,
    "KTO": kto.METHOD,
    "ORPO": orpo.METHOD,
    "Reward": reward.METHOD,
    "GRPO": grpo.METHOD,
}
