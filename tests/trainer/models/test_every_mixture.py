"""The weights that a token is multiplied with, of every mixture that transformers builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.models import every_family

from hone_api.blocks.shape import expert_count
from hone_trainer.models import read_shape

pytestmark = [pytest.mark.trainer, pytest.mark.outside]


def chosen(network: Any) -> int:
    """Experts that a token is sent to, by the modules of the family's own code; 0 if none says so."""
    names = ("top_k", "num_experts_per_tok")
    values = {getattr(module, name, None) for module in network.modules() for name in names}
    return max((value for value in values if isinstance(value, int)), default=0)


@pytest.mark.parametrize("family", every_family.families())
def test_a_shape_counts_what_a_token_is_multiplied_with(family: str, tmp_path: Path) -> None:
    try:
        network = every_family.build(sizes := every_family.config(family))
    except Exception as why:
        pytest.skip(f"cannot be built small: {why}")
    if not (experts := expert_count(sizes.to_dict())):
        pytest.skip("no mixture of experts")
    try:
        network.save_pretrained(tmp_path)
    except RuntimeError as why:
        pytest.skip(f"transformers cannot save what it built: {why}")
    if (shape := read_shape.shape(tmp_path)) is None:
        pytest.skip("the estimate does not know this kind of model")
    stacked = (
        w.numel() for n, w in network.named_parameters() if ".experts." in n or (w.dim(), len(w)) == (3, experts)
    )
    routed = sum(stacked)
    assert shape.routed == pytest.approx(routed, rel=1e-3), "files may hold buffers, which are not weights"
    expected = shape.parameters - routed + routed * chosen(network) // experts
    assert shape.used == pytest.approx(expected, rel=1e-3)
