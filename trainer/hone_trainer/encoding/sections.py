"""Token ids of a text and of its beginnings, for the price of one.

A conversation is proved turn by turn, so the tokens of many beginnings of one text are needed. A fast tokenizer first
splits a text at its added tokens (<|im_start|>), and tokenises what is between two of them by itself. So the tokens of
a beginning are those of the whole text up to its last added token, and those of the rest, which is short. For the same
reason, the first sections of a text, which are often those of other rows (a system prompt, tools), are tokenised once.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from itertools import compress, count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SHORT = 64
"""Characters of a rest that is worth keeping: the head of a turn is the same in every row."""
_KEPT = 256
_LONGEST = 2**16
"""Characters of a section that is worth keeping."""
_SEEN = 4096
"""First sections that are known to have come once."""

Ids = list[int]


class Sections:
    """Tokenises texts that may be beginnings of one text, without special tokens around them."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tokenize: Callable[[str], Ids]) -> None:
        self._tokenize = tokenize
        # Others depend on what is before them, or are found in what a normaliser makes of the text.
        added = {token.content: (id, token) for id, token in tokenizer.added_tokens_decoder.items() if token.content}
        self._borders = {
            content: id
            for content, (id, token) in added.items()
            if not (token.normalized or token.lstrip or token.single_word)
        }
        self._has_only_borders = len(self._borders) == len(added)
        self._ids_of_borders = frozenset(self._borders.values())
        longest_first = sorted(self._borders, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._rests: dict[str, Ids] = {}
        self._firsts: dict[str, Ids] = {}
        self._seen: set[str] = set()
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
        if self._pattern is None:
            return
        borders = list(self._pattern.finditer(text))
        begins = [match.start() for match in borders]
        ids = self._encode_text(text, begins)
        at = list(compress(count(), map(self._ids_of_borders.__contains__, ids)))
        if [ids[index] for index in at] == [self._borders[match.group()] for match in borders]:
            self._text, self._ids, self._at = text, ids, at
            self._begins, self._ends = begins, [match.end() for match in borders]

    def _encode_text(self, text: str, begins: Ids) -> Ids:
        """Token ids of a text whose added tokens begin there."""
        ids, done = Ids(), 0
        for end in begins if self._has_only_borders else ():  # another added token may hold or touch a border
            section = text[done:end]
            if end - done > _LONGEST:
                break
            if (kept := self._firsts.get(section)) is None:
                if not section or self._has_come(section):
                    kept = self._firsts[section] = self._tokenize(section)
                else:
                    break
            ids += kept
            done = end
        return ids + self._tokenize(text[done:])

    def _has_come(self, section: str) -> bool:
        """Whether it came before, and is worth keeping."""
        if section in self._seen:
            return len(self._firsts) < _KEPT
        if len(self._seen) == _SEEN:
            self._seen.clear()
        self._seen.add(section)
        return False

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
