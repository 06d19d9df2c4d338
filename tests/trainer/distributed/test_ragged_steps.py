"""Rows that do not fill the last step of an epoch: several ranks train each of them once, as one process does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import curves, method_plans

from hone_api.methods import METHODS

pytestmark = pytest.mark.trainer

BATCH = 6
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{str(info.name): (str(info.name), {}) for info in METHODS.values() if not info.samples},
    "SFT packed": ("SFT", {"rows": 3, "training": {"packing": True, "maxLength": 64}}),
    "DAPT unpacked": ("DAPT", {"dapt": {"pack": False}}),
    "DPO of all weights": ("DPO", {"adapter": {"type": "None"}}),
    "KTO of all weights": ("KTO", {"adapter": {"type": "None"}}),
    "IPO": ("DPO", {"dpo": {"loss": "IPO"}}),
    "Reward, centred": ("Reward", {"reward": {"centerRewards": "0.01"}}),
    "DPO in ZeRO 2": ("DPO", {"deepspeed": {"zeroStage": 2}}),
    "SFT in ZeRO 3": ("SFT", {"deepspeed": {"zeroStage": 3}}),
}
BY_PASS = ("epoch", "min_reward", "max_reward", "logits/", "nll_loss", "useful_tokens")
"""What counts forward passes, or is their mean: names begin so."""
SAMPLED = [("SFT packed", 3, 7), ("Reward", 2, 10)]
"""The sample that is always tested: a method, ranks, rows."""
EVERY = [(name, ranks, rows) for name in CASES for ranks in (2, 3) for rows in (2, 7, 10)]


@pytest.mark.parametrize(
    ("name", "ranks", "rows"),
    [*SAMPLED, *(pytest.param(*case, marks=pytest.mark.long) for case in EVERY if case not in SAMPLED)],
)
def test_a_step_that_is_not_full_is_the_same_on_several_ranks(
    request: pytest.FixtureRequest,
    runs: Any,
    make_plan: Any,
    tmp_path: Path,
    tiny_model: Path,
    name: str,
    ranks: int,
    rows: int,
) -> None:
    """Losses, gradient norms, tokens and the method's own numbers of four steps, each on the weights of the one before.

    Rows by rows, one process has all rows of a step in one pass, and two ranks have one row in each. ORPO has the
    passes of the ranks, and KTO as many rows in a pass as all ranks together.
    """
    method, fields = CASES[name]
    by_row = METHODS[method].row_by_row
    of_rank = 1 if by_row and ranks == 2 else BATCH // ranks
    training = {"batchSize": BATCH, "maxSteps": 4, **fields.get("training", {})}
    if method == "Distillation":  # from one that differs from the student
        fields = {**fields, "models": {"large-v1": {"path": str(request.getfixturevalue("teacher_model"))}}}
    fields = {**fields, "rows": rows * fields.get("rows", 1)}
    layouts = {
        "alone": {
            "deepspeed": None,
            "training": {"microBatchSize": of_rank if method == "ORPO" else BATCH, **training},
        },
        "shared": {"processesPerNode": ranks, "training": {"microBatchSize": of_rank, **training}},
    }
    alone, shared = (
        method_plans.plan_of(make_plan, method, tmp_path, tiny_model, layout, **{**fields, **own})
        for layout, own in layouts.items()
    )
    runs.finish(alone)
    runs.wait(shared, runs.start(runs.encoded(shared)))
    curves.assert_alike(alone, shared, 4, BY_PASS, rel=1e-3)
