"""Runs whose micro batch is measured (`training.microBatchSize: Auto`): which ones can be."""

from __future__ import annotations

from hone_api.base.rule import Rule
from hone_api.blocks.training import AUTO
from hone_api.combinations.elastic import METHODS_ON_ANY_RANKS

_IS_NUMBER = f"!has(self.training.microBatchSize) || self.training.microBatchSize != '{AUTO}'"

_IS_ROW_BY_ROW = "self.method == 'GRPO' && !(has(self.grpo) && has(self.grpo.loss) && self.grpo.loss == 'BNPO')"

PROBING_RULES = (
    Rule(
        f"{_IS_NUMBER} || self.method in {list(METHODS_ON_ANY_RANKS)} || {_IS_ROW_BY_ROW}",
        f"training.microBatchSize {AUTO} is for the methods {', '.join(METHODS_ON_ANY_RANKS)}, and GRPO without loss "
        "BNPO: of others, memory would decide what is learned: write a number or remove it",
        field_path=".training",
    ),
    Rule(
        f"{_IS_NUMBER} || !has(self.deepspeed)",
        f"training.microBatchSize {AUTO} cannot be combined with deepspeed: each rank measures alone, and a step with "
        "sharded state needs all ranks: write a number, or remove it to use the estimate",
        field_path=".training",
    ),
)
"""Rules of a spec; they also hold for a plan."""
