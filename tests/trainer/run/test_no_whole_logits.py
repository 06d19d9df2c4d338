"""No method holds the logits of all tokens: neither in training nor while rows are scored before and after it."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import method_plans
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

pytestmark = pytest.mark.trainer
VOCABULARY = 521
"""A size that nothing else has."""
MOST = 128
"""Tokens whose logits may be in memory at a time. TRL's tiles, which are larger, are made smaller here."""
ROWS = 24
"""Of a micro batch: they have more tokens that count."""


class Guard(TorchDispatchMode):
    """Notes where a tensor appears that has numbers for more tokens and each entry of the vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}
        """Lines of our code, and the tokens."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
                continue
            tokens = tensor.numel() // VOCABULARY
            if VOCABULARY in tensor.shape and tokens > MOST:
                ours = [line for line in traceback.extract_stack() if "hone_trainer" in line.filename]
                self.seen[" < ".join(f"{Path(line.filename).name}:{line.lineno}" for line in ours[:-4:-1])] = tokens
        return result


@pytest.fixture(scope="module")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig.from_pretrained(tiny_model, vocab_size=VOCABULARY)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.kernels import chunked_logprob

    monkeypatch.setattr(chunked_logprob, "TOKEN_CHUNK_SIZE", 64)


def test_the_guard_sees_whole_logits(base: Path) -> None:
    from transformers import AutoModelForCausalLM

    model, ids = AutoModelForCausalLM.from_pretrained(base), torch.randint(5, 500, (4, 40))
    with Guard() as guard, torch.no_grad():
        model.base_model(input_ids=ids)
        assert not guard.seen
        model(input_ids=ids)
    assert set(guard.seen.values()) == {160}


@pytest.mark.parametrize("adapter", ["LoRA", "None"])
@pytest.mark.parametrize("variant", method_plans.VARIANTS)
def test_a_run_never_holds_them(
    runs: Any, make_plan: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, adapter: str
) -> None:
    monkeypatch.setitem(method_plans.SPLITS, "validation", range(100, 100 + ROWS))
    fields: dict[str, Any] = {"training": {"maxSteps": 2, "batchSize": ROWS, "microBatchSize": ROWS}}
    if variant == "PPO" and adapter == "LoRA":  # one held-out answer alone has more
        fields["ppo"] = {"rewardModelVersion": "judge-v1", "maxCompletionLength": MOST + 10, "iterations": 2}
    options = {"modelPath": str(base), "adapter": {"type": adapter}, "rows": 2 * ROWS, "held_out": True}
    plan = method_plans.plan_of(make_plan, variant, tmp_path, base, **options, **fields)
    with Guard() as guard:
        runs.finish(plan)
    assert guard.seen == {}
