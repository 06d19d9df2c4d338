"""The methods, by their name in the API."""

from __future__ import annotations

from hone_trainer.methods import dapt, distillation, dpo, grpo, kto, orpo, ppo, reward, sft
from hone_trainer.training.method import Method

METHODS: dict[str, Method] = {
    "SFT": sft.METHOD,
    "DAPT": dapt.METHOD,
    "DPO": dpo.METHOD,
    "KTO": kto.METHOD,
    "ORPO": orpo.METHOD,
    "Reward": reward.METHOD,
    "PPO": ppo.METHOD,
    "GRPO": grpo.METHOD,
    "Distillation": distillation.METHOD,
}
