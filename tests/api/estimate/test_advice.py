"""What people are advised about a job before it starts."""

from __future__ import annotations

import pytest

from hone_api.estimate.advice import advise
from hone_api.kinds.finetunejob import FineTuneJobSpec

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("method", "rows", "words"),
    [
        ("SFT", 60, ["batchSize 128 is more than the 60 rows of the data: an epoch is one step; lower it."]),
        ("SFT", 128, []),
        ("PPO", 60, ["batchSize 128 is more than the 60 rows of the data: it is refused; lower it."]),
        ("GRPO", 60, ["batchSize 128 at 2 generations is more than the 60 rows of the data: it is refused; lower it."]),
        ("GRPO", 64, []),
    ],
)
def test_a_batch_counts_the_samples_of_each_row(method: str, rows: int, words: list[str]) -> None:
    blocks = {
        "PPO": {"ppo": {"rewardModelVersion": "judge-v1"}},
        "GRPO": {"grpo": {"generations": 2, "rewards": [{"type": "Number"}]}},
    }
    spec = {
        "model": {"uri": "hf://a/b"},
        "datasets": [{"name": "rows"}],
        "output": {"modelName": "m"},
        "method": method,
        "training": {"batchSize": 128},
        **blocks.get(method, {}),
    }
    assert advise(FineTuneJobSpec.model_validate(spec), rows) == words


@pytest.mark.parametrize(
    ("training", "rows", "tokens", "words"),
    [
        (
            {"packing": True},
            256,
            8192,
            "about 128 rows or 4096 tokens, an epoch about 2 steps instead of 32. Set batch",
        ),
        ({"packing": True, "batchSize": 1}, 256, 8192, ""),
        ({"packing": True}, 256, 256 * 500, ""),  # a row nearly fills a sequence
        ({"packing": True}, 256, 0, ""),  # nobody knows
        ({"packing": False}, 256, 8192, ""),
    ],
)
def test_a_packed_batch_is_reported_in_rows_and_tokens(
    training: dict[str, object], rows: int, tokens: int, words: str
) -> None:
    spec = FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "hf://a/b"},
            "datasets": [{"name": "rows"}],
            "output": {"modelName": "m"},
            "method": "SFT",
            "training": training,
        }
    )
    told = advise(spec, rows, tokens, 512)
    assert bool(told) == bool(words)
    assert all(words in sentence for sentence in told)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"adapter": {"type": "QLoRA", "rank": 32}}, ""),
        ({"adapter": {"type": "None"}}, ""),
        ({"adapter": {"rank": 24}}, "adapter.rank 24: vLLM has no such --max-lora-rank: serve with 32"),
        ({"adapter": {"rank": 1024}}, "adapter.rank 1024 is above 512, the largest that vLLM loads: set output.merge"),
        ({"adapter": {"type": "DoRA"}}, "vLLM cannot load DoRA adapters: set output.merge"),
        ({"adapter": {"type": "DoRA", "rank": 24}, "output": {"modelName": "m", "merge": True}}, ""),
        ({"method": "Reward"}, "vLLM cannot load adapters with their own reward head"),
    ],
)
def test_what_a_server_does_not_load_is_reported(changes: dict[str, object], words: str) -> None:
    spec = {
        "model": {"uri": "hf://a/b"},
        "datasets": [{"name": "rows"}],
        "output": {"modelName": "m"},
        "method": "SFT",
        **changes,
    }
    told = [sentence for sentence in advise(FineTuneJobSpec.model_validate(spec), 1000) if "vLLM" in sentence]
    assert [sentence[: len(words)] for sentence in told] == ([words] if words else [])


@pytest.mark.parametrize(("beta", "warned"), [("0.1", False), ("10", False), ("1000000000", True)])
@pytest.mark.parametrize("method", ["DPO", "KTO"])
def test_a_beta_that_leaves_only_rounding_is_reported(method: str, beta: str, warned: bool) -> None:
    body = {"model": {"uri": "hf://a/b"}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}}
    spec = FineTuneJobSpec.model_validate({**body, "method": method, method.lower(): {"beta": beta}})
    assert any(f"{method.lower()}.beta {beta} is above 10" in words for words in advise(spec, 1000)) == warned
