"""Tokens are joined to the text that the tokenizer decodes them to."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.models.chat_templates import TOKENIZERS
from tokenizers import AddedToken

from hone_trainer.encoding.pieces import decoder

pytestmark = pytest.mark.trainer


@pytest.mark.parametrize("name", TOKENIZERS)
def test_any_tokens_are_decoded_as_by_the_tokenizer(name: str) -> None:
    """Also tokens that are parts of characters, and added tokens with characters that no byte-level token has."""
    tokenizer: Any = TOKENIZERS[name][0]()
    tokenizer.add_tokens([AddedToken("<ein wort>"), AddedToken("über→")])
    backend, choose = tokenizer.backend_tokenizer, random.Random(0)
    decode, ids = decoder(backend), range(len(tokenizer))
    drawn = [choose.choices(ids, k=choose.randint(0, 12)) for _ in range(1000)]
    for sample in (*drawn, [len(tokenizer) - 2, 5, len(tokenizer) - 1], *([id] for id in ids)):
        assert decode(sample) == backend.decode(sample, skip_special_tokens=False), sample
