"""The language of a text, offline, by py3langid: 97 languages, a naive Bayes model that the package carries."""

from __future__ import annotations

import io
import lzma
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hone_api.dataset.dataset_status import LanguageRows

UNKNOWN, OTHER = "unknown", "other"
SAMPLE_ROWS = 2000
ADVISED_ROWS = 500
"""Rows of the sample that are identified where `checks.languages` refuses nothing: a share of 5 % is then right to 2
points, at a quarter of the time."""
_CHARACTERS = 1000
"""Of a text that are looked at: more change nothing."""
SAMPLED_CHARACTERS = 400
"""Of a text of a sample: of 1,638 long texts, four then have another language than by 1000."""
_LETTERS, _CERTAIN = 16, 0.5
_SHOWN = 7
_NO_LANGUAGE = "zxx"
_ARRAYS = ("nextmove", "nextmove_row", "out_feat", "ptc", "pc", "classes")
"""Of the package's model."""


def language_of(text: str) -> str:
    """ISO 639-1 of a text, or `unknown`: it has too few letters, or is code, or a mixture."""
    start = text[:_CHARACTERS]
    if sum(map(str.isalpha, start)) < _LETTERS:
        return UNKNOWN
    return _named(*_identifier().classify(start))


def _named(language: str, probability: float) -> str:
    return language if probability >= _CERTAIN and language != _NO_LANGUAGE else UNKNOWN


def languages_of(texts: Sequence[str]) -> list[str]:
    """`language_of` each text, all at once: 0.1 ms of a core for 400 characters, a third of the time of each alone."""
    starts = [text[:_CHARACTERS] for text in texts]
    few = [sum(map(str.isalpha, start)) < _LETTERS for start in starts]
    likely = iter(_model().most_likely([start for start, is_short in zip(starts, few, strict=True) if not is_short]))
    return [UNKNOWN if is_short else next(likely) for is_short in few]


def shares(rows: Counter[str]) -> list[LanguageRows]:
    """The most common languages, the rest as `other`; `unknown` last."""
    total = rows.total()
    identified = [(language, count) for language, count in rows.most_common() if language != UNKNOWN]
    rest = sum(count for _, count in identified[_SHOWN - 1 :])
    entries = [*identified[: _SHOWN - 1], (OTHER, rest), (UNKNOWN, rows[UNKNOWN])]
    return [
        LanguageRows(language=language, rows=count, share=f"{100 * count / total:.1f}%")
        for language, count in entries
        if count
    ]


def share_in(rows: Counter[str], languages: list[str]) -> float | None:
    """Share of rows in the wanted languages among rows whose language is known; None if there are none."""
    identified = rows.total() - rows[UNKNOWN]
    return sum(rows[language] for language in set(languages)) / identified if identified else None


@dataclass(frozen=True)
class _Model:
    """py3langid's model: an automaton over bytes that counts features, and what each says of each language."""

    next_states: Any
    """Rows of 256, one for each byte."""
    rows: Any
    """Of a state in `next_states`."""
    features: Any
    """That end in a state; -1: none."""
    scores: Any
    """Of a feature for each language."""
    prior: Any
    names: list[str]

    def most_likely(self, texts: Sequence[str]) -> list[str]:
        """The language of each text, as `LanguageIdentifier.classify` has it."""
        import numpy as np

        if not texts:
            return []
        contents = [_encoded(text) for text in texts]
        order = sorted(range(len(contents)), key=lambda index: -len(contents[index]))
        lengths = [len(contents[index]) for index in order]
        table = np.zeros((len(order), lengths[0]), np.uint8)
        for place, index in enumerate(order):
            table[place, : lengths[place]] = np.frombuffer(contents[index], np.uint8)
        states, seen, active = np.zeros(len(order), np.int64), [], len(order)
        for position, column in enumerate(np.ascontiguousarray(table.T)):
            while lengths[active - 1] <= position:
                active -= 1
            states[:active] = self.next_states[(self.rows[states[:active]].astype(np.int64) << 8) + column[:active]]
            features = self.features[states[:active]]
            (places,) = np.nonzero(features >= 0)
            seen.append(places * len(self.scores) + features[places])
        pairs, counts = np.unique(np.concatenate(seen), return_counts=True)
        ends = np.searchsorted(pairs // len(self.scores), np.arange(len(order) + 1))
        weights, used = np.log1p(counts.astype(np.float32)), pairs % len(self.scores)
        scores = np.zeros((len(order), len(self.names)), np.float32)
        for place in range(len(order)):
            mine = slice(ends[place], ends[place + 1])
            if mine.start < mine.stop:
                scores[place] = weights[mine] @ self.scores[used[mine]].astype(np.float32) + self.prior
        scores /= np.sqrt(np.maximum(lengths, 1))[:, None]
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        first = [self.names.index(name) for name in self.names]  # a language of two scripts is there twice
        for column in {column for column, at in enumerate(first) if at != column}:
            chances[:, first[column]] += chances[:, column]
            chances[:, column] = 0
        best = chances.argmax(axis=1)
        languages = [UNKNOWN] * len(order)
        for place, index in enumerate(order):
            languages[index] = _named(self.names[best[place]], float(chances[place, best[place]]))
        return languages


def _encoded(text: str) -> bytes:
    lower = text.lower() if text.isupper() else text
    return unicodedata.normalize("NFC", lower).encode("utf-8", "surrogatepass")


@cache
def _model() -> _Model:
    """The package's; images and `make setup` have it unpacked to map, since to unpack it takes half a second."""
    import numpy as np
    from py3langid.langid import MODEL_DIR, MODEL_FILE

    packed = MODEL_DIR / MODEL_FILE
    mapped = {name: packed.with_name(f"{name}.npy") for name in _ARRAYS}
    data: dict[str, Any]
    if all(path.is_file() for path in mapped.values()):
        data = {name: np.asarray(np.load(path, mmap_mode="r")) for name, path in mapped.items()}
    else:
        data = {**np.load(io.BytesIO(lzma.decompress(packed.read_bytes())))}
    states = data["nextmove"], data["nextmove_row"], data["out_feat"]
    return _Model(*states, data["ptc"], data["pc"], data["classes"].tolist())


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
