"""Models that one rank loads by itself, whole, in a run whose own model ZeRO-3 shards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def whole_models() -> Iterator[None]:
    """Stop transformers from sharding new models, which it does while the ZeRO-3 config of a trainer exists."""
    from transformers.integrations import deepspeed

    config = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = config
