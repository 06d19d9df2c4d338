"""Token ids of a text from those of its words, which are tokenised once: a dictionary finds them several times sooner
than the tokenizer does.

Tokenizers of bytes split a text into words before they look for tokens, and no token crosses a border of words. How
they split is in their file. Where it is one of the ways below, a word begins, whatever is around it, at a space before
a letter, at a sign or white space after a letter or digit, at a digit after a letter or sign, and at a letter after a
digit: all of ASCII. So a text can be cut there, and its parts are tokenised by themselves. Added tokens are parts of
their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

Ids = list[int]
Encode = Callable[[list[str]], list[Ids]]

_PRINTED = r"!-/:-@\[-`{-~"
"""Signs, in a class of a pattern."""
_CUT = re.compile(
    rf"(?<=[A-Za-z0-9])(?=[\x00- {_PRINTED}\x7f])|(?= [A-Za-z])"
    rf"|(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])|(?<=[{_PRINTED}])(?=[0-9])"
)
_KEPT = 2**16
"""Parts that are kept, in about 15 MB."""
_LONGEST = 40
"""Characters of a part that is worth keeping."""
_FEW = 8
"""Parts of a text that is worth cutting."""
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD, _SIGNS, _SPACE = r"[^\r\n\p{L}\p{N}]?\p{L}+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = {
    "|".join([_CONTRACTIONS, _WORD, digits, _SIGNS, _SPACE])  # of Llama 3 and of Qwen2
    for digits in (r"\p{N}{1,3}", r"\p{N}")
}


def are_apart(backend: Any) -> bool:
    """Whether a text can be cut at spaces before its tokens are looked for.

    Args:
        backend: a `tokenizers.Tokenizer`.
    """
    from tokenizers.models import BPE

    if type(backend.model) is not BPE or backend.model.dropout or backend.pre_tokenizer is None:
        return False
    normalizer = _settings(backend.normalizer)
    if normalizer is not None and normalizer != {"type": "NFC"}:
        return False
    added = backend.get_added_tokens_decoder().values()
    if any(t.lstrip or t.rstrip or t.single_word or any(map(str.isspace, t.content)) for t in added):
        return False
    # A mark after such a token may make it another text.
    if normalizer is not None and any(t.normalized and _CUT.search(t.content) for t in added):
        return False
    steps = _settings(backend.pre_tokenizer)
    steps = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    if any(step["type"] == "ByteLevel" for step in steps[:-1]):  # what follows it sees no spaces any more
        return False
    return all(map(_is_known, steps)) and any(map(_splits, steps))


def added_tokens(backend: Any, split: bool) -> list[str]:
    """Those that are looked for in texts before these are split.

    Args:
        split: whether special tokens are not.
    """
    is_changed = backend.normalizer is not None
    added = backend.get_added_tokens_decoder().values()
    return [t.content for t in added if not (split and t.special) and not (is_changed and t.normalized)]


def _settings(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())


def _is_known(step: dict[str, Any]) -> bool:
    match step:
        case {"type": "Digits"}:
            return True
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return True
        case {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {"Regex": pattern}}:
            return pattern in _PATTERNS
    return False


def _splits(step: dict[str, Any]) -> bool:
    return step["type"] == "Split" or bool(step.get("use_regex"))


class Words:
    """Tokenises texts without special tokens around them.

    Args:
        encode: the token ids of each text, by the tokenizer.
        added: tokens that are parts of their own.
    """

    def __init__(self, encode: Encode, added: Sequence[str] = ()) -> None:
        self._encode = encode
        self._kept: dict[str, Ids] = {}
        longest_first = map(re.escape, sorted(added, key=len, reverse=True))
        # What follows a token is a part by itself only if it begins with ASCII: "Ü" of "Über" is no word.
        rest = r"(?:[^\x00-\x7f].*?(?= [A-Za-z]|\Z))?"
        self._added = re.compile(rf"((?:{'|'.join(longest_first)}){rest})", re.DOTALL) if added else None

    def ids(self, text: str) -> Ids:
        """Token ids of a text; a new list."""
        parts = self._parts(text)
        if len(parts) < _FEW:
            return self._encode([text])[0]
        tokens: list[Any] = list(map(self._kept.get, parts))
        if None in tokens:
            missing = list({part for part, ids in zip(parts, tokens, strict=True) if ids is None})
            new = dict(zip(missing, self._encode(missing), strict=True))
            self._keep(new)
            tokens = [new[part] if ids is None else ids for part, ids in zip(parts, tokens, strict=True)]
        return list(chain.from_iterable(tokens))

    def _parts(self, text: str) -> list[str]:
        if self._added is None:
            return _CUT.split(text)
        between = self._added.split(text)
        return [part for at, one in enumerate(between) for part in ((one,) if at % 2 else _CUT.split(one))]

    def _keep(self, new: dict[str, Ids]) -> None:
        if len(self._kept) < _KEPT:
            self._kept.update((part, ids) for part, ids in new.items() if len(part) <= _LONGEST)
