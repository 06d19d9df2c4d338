"""L2 to the start: what it adds to the gradient, and what it cannot hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hone_trainer.errors import TrainerError

pytestmark = pytest.mark.trainer


def test_the_gradient_is_that_of_the_penalty() -> None:
    import torch

    from hone_trainer.training.l2sp import L2ToStart

    strength, nothing = 0.3, SimpleNamespace()
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    hold = L2ToStart(strength)
    hold.on_init_end(nothing, nothing, nothing, model=layer)
    start = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(torch.randn(2, 3))
        layer.bias.add_(1)

    inputs = torch.randn(4, 3)
    loss = layer(inputs).square().mean()
    (wanted,) = torch.autograd.grad(loss + strength / 2 * (layer.weight - start).square().sum(), layer.weight)
    layer(inputs).square().mean().backward()
    hold.on_pre_optimizer_step(nothing, nothing, nothing)
    torch.testing.assert_close(layer.weight.grad, wanted)
    assert layer.bias.grad is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapter": {"type": "LoRA"}}, "l2ToStart is for adapter None"),
        ({"adapter": {"type": "None"}, "deepspeed": {"zeroStage": 2}}, "l2ToStart needs whole weights on each rank"),
    ],
)
def test_what_it_cannot_hold_is_refused(runs: Any, make_plan: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainerError, match=words) as caught:
        runs.finish(make_plan(training={"maxSteps": 2, "l2ToStart": "0.1"}, **changes))
    assert caught.value.code == "ConflictingFields"
