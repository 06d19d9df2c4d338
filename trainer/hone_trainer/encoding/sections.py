"""Token ids of a text and of its beginnings, for the price of one.

A conversation is proved turn by turn, so the tokens of many beginnings of one text are needed. A fast tokenizer first
splits a text at its added tokens (<|im_start|>), and tokenises what is between two of them by itself. So the tokens of
a beginning are those of the whole text up to its last added token, and those of the rest, which is short.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SHORT = 64
"""Characters of a rest that is worth keeping: the head of a turn is the same in every row."""
_KEPT = 256

Ids = list[int]


class Sections:
    """Tokenises texts that may be beginnings of one text, without special tokens around them."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tokenize: Callable[[str], Ids]) -> None:
        self._tokenize = tokenize
        # Others depend on what is before them, or are found in what a normaliser makes of the text.
        self._borders = {
            token.content: id
            for id, token in tokenizer.added_tokens_decoder.items()
            if token.content and not (token.normalized or token.lstrip or token.single_word)
        }
        longest_first = sorted(self._borders, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._rests: dict[str, Ids] = {}
        self.forget()

    def forget(self) -> None:
        """End the use of the whole text."""
        self._text, self._ids = "", list[int]()
        self._begins: Ids = []
        self._ends: Ids = []
        self._at: Ids = []

    def take(self, text: str) -> None:
        """Tokenise the whole text, whose beginnings will be asked for."""
        self.forget()
        ids = self._tokenize(text)
        if self._pattern is None:
            return
        found = list(self._pattern.finditer(text))
        if (at := _positions(ids, [self._borders[match.group()] for match in found])) is not None:
            self._text, self._ids, self._at = text, ids, at
            self._begins, self._ends = [match.start() for match in found], [match.end() for match in found]

    def ids(self, text: str) -> Ids:
        """Token ids of a text; a new list."""
        if self._text and self._text.startswith(text):
            if len(text) == len(self._text):
                return list(self._ids)
            if (ids := self._beginning(len(text))) is not None:
                return ids
        return self._tokenize(text)

    def _beginning(self, length: int) -> Ids | None:
        """Token ids of the whole text's first `length` characters; None when they are not known without tokenising."""
        last = bisect_right(self._ends, length) - 1
        if last < 0:
            return None
        at = self._at[last]
        rest = self._rest(self._text[self._begins[last] : length])
        return self._ids[:at] + rest if rest[:1] == self._ids[at : at + 1] else None

    def _rest(self, text: str) -> Ids:
        if (kept := self._rests.get(text)) is not None:
            return kept
        ids = self._tokenize(text)
        if len(text) <= _SHORT and len(self._rests) < _KEPT:
            self._rests[text] = ids
        return ids


def _positions(ids: Ids, borders: Ids) -> Ids | None:
    """Where the borders, in their order, are among the ids; None when the ids have others of them."""
    if sum(map(ids.count, set(borders))) != len(borders):
        return None
    try:
        return list(_indices(ids, borders))
    except ValueError:
        return None


def _indices(ids: Ids, borders: Ids) -> Iterator[int]:
    at = -1
    for border in borders:
        at = ids.index(border, at + 1)
        yield at
