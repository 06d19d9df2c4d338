"""The module of PPO's value head."""

from __future__ import annotations

from typing import Any

import torch


class ValueHead(torch.nn.Linear):
    """One number for each hidden state, computed in float32 also where DeepSpeed keeps the weights in bfloat16.

    Called as a module: under ZeRO-3 its weights are there only then.
    """

    def forward(self, hidden: Any) -> Any:
        """(rows, tokens) of (rows, tokens, hidden size)."""
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.nn.functional.linear(hidden.float(), self.weight.float(), self.bias.float())[..., 0]
