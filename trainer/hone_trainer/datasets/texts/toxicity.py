"""How likely it is that an English text is offensive, by its words.

The numbers in toxicity.npz are those of the model in alt-profanity-check 1.9.1 (MIT): five linear classifiers over
tf-idf, each with a sigmoid. The package has them as pickles, which run code when they are loaded.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy

_WORD = re.compile(r"\b\w\w+\b")


class _WordModel(NamedTuple):
    places: dict[str, int]
    rarity: numpy.ndarray
    weights: numpy.ndarray
    bias: numpy.ndarray
    slope: numpy.ndarray
    offset: numpy.ndarray


def probability(text: str) -> float:
    """From 0 to 1."""
    model = _model()
    counts = Counter(place for word in _WORD.findall(text.lower()) if (place := model.places.get(word)) is not None)
    places = list(counts)
    terms = numpy.array(list(counts.values())) * model.rarity[places]
    values = model.weights[:, places] @ terms / (numpy.linalg.norm(terms) or 1.0) + model.bias
    return float((1 / (1 + numpy.exp(model.slope * values + model.offset))).mean())


@cache
def _model() -> _WordModel:
    with numpy.load(Path(__file__).with_suffix(".npz"), allow_pickle=False) as file:
        places = {word: place for place, word in enumerate(file["words"].tolist())}
        return _WordModel(places, *(file[name].astype(numpy.float64) for name in _WordModel._fields[1:]))
