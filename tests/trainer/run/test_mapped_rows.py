"""A run over rows that are mapped from the disk has the losses of one over the same rows in memory, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import method_plans

from hone_trainer.encoding import mapped
from hone_trainer.encoding.mapped import Examples
from hone_trainer.encoding.split_file import Counts, Encoded, longest
from hone_trainer.run import encode
from hone_trainer.training.loop import Loop

pytestmark = pytest.mark.trainer


class InMemory(Examples):
    """The rows of a split as Python objects, as one process encoded them."""

    def __init__(self, encoded: Encoded) -> None:
        self._rows: list[Any] = list(encoded.rows)
        self.counts: Counts = encoded.counts
        self.lengths = np.array([longest(row) for row in self._rows], np.int32)

    def __len__(self) -> int:
        return len(self._rows)

    def _at(self, index: int) -> Any:
        return self._rows[index]

    @property
    def tokens(self) -> Any:
        return np.array([sum(map(len, row.sequences)) for row in self._rows], np.int32)

    @property
    def has_masks(self) -> bool:
        return mapped.has_masks(self._rows)

    def flags(self, name: str) -> Any:
        return mapped.flags(self._rows, name)


def _in_memory(plan: Any, base: Any, reporters: Any = None) -> Mapping[str, InMemory]:
    sources = (*plan.datasets, *plan.evaluation_datasets)
    return {source.path: InMemory(encode.in_memory(plan, base, source.path)) for source in sources}


@pytest.mark.parametrize("variant", ["SFT", "DAPT", "DPO", "KTO", "GRPO"])
def test_losses_over_mapped_rows_are_those_over_rows_in_memory(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path, variant: str
) -> None:
    """One variant for each kind of row. Six steps are more than an epoch of the 32 rows."""
    step, losses = Loop.training_step, []

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = step(self, *args, **kwargs)
        losses.append(float(loss).hex())
        return loss

    def train(name: str) -> tuple[list[str], list[tuple[str, str | None, str]]]:
        losses.clear()
        plan = method_plans.plan_of(
            make_plan,
            variant,
            tmp_path,
            tiny_model,
            name,
            held_out=True,
            evaluation={"maxRows": 5, "samples": 1},
            training={"maxSteps": 6, "microBatchSize": 2},
        )
        result = runs.finish(plan)
        folder = Path(plan.work_path) / "encoded"
        assert folder.exists() == (name == "mapped")
        return list(losses), [(n.name, n.base, n.tuned) for n in result.numbers]

    monkeypatch.setattr(Loop, "training_step", noted)
    known = train("mapped")
    assert len(set(known[0])) >= 4, "the steps have losses of their own"
    monkeypatch.setattr(encode, "ready", _in_memory)
    assert train("memory") == known
