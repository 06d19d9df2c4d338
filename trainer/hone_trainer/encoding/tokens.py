"""Text to token ids and back, as the tokenizer does it, without what it makes besides and nobody reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hone_trainer.encoding import pieces, words
from hone_trainer.encoding.words import Words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_WORDS = 2**16
"""Words whose tokens the tokenizer keeps, in about 13 MB: the library's own 10,000 are fewer than a text has, and of
every other word it finds the tokens again each time."""


class Tokens:
    """The tokens of one fast tokenizer that has an end-of-sequence token."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        from transformers import PreTrainedTokenizerFast

        self.tokenizer = tokenizer
        self.bos_id, self.eos_id = tokenizer.bos_token_id, int(tokenizer.eos_token_id)
        self._backend = tokenizer.backend_tokenizer
        self._keep_words()
        own, plain = type(tokenizer), PreTrainedTokenizerFast
        self._is_plain = (own.__call__, own._encode_plus) == (plain.__call__, plain._encode_plus)
        self._words = self._by_words()
        self._adds_special = tokenizer.num_special_tokens_to_add(pair=False) > 0
        is_decoded_plainly = (own.decode, own._decode) == (plain.decode, plain._decode)
        self.decode: Callable[[Sequence[int]], str] = (
            pieces.decoder(tokenizer.backend_tokenizer) if is_decoded_plainly else self._decode_slowly
        )
        """The text of token ids, with special tokens and without clean-up."""

    def encode(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        """What `tokenizer(text)["input_ids"]` is, without the masks and offsets that it makes."""
        split = split_special_tokens or self.tokenizer.split_special_tokens
        if not self._is_plain or not isinstance(text, str):
            options = {"add_special_tokens": add_special_tokens, "split_special_tokens": split}
            return list(self.tokenizer(text, **options)["input_ids"])
        if self._words and not (add_special_tokens and self._adds_special):
            return self._words[split].ids(text)
        self._set_up(split)
        ids: list[int] = self._backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
        return ids

    def _decode_slowly(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def continue_from(self, head: list[int], whole: list[int], rest: str) -> list[int] | None:
        """Token ids of the whole, beginning with head; None when those of head and rest do not give the same text.

        Where a token would span the border, head and rest are tokenised apart, as they are when served.
        """
        if whole[: len(head)] == head:
            return whole
        apart = head + self.encode(rest, add_special_tokens=False)
        return apart if self.decode(apart) == self.decode(whole) else None

    def without_eos(self, ids: list[int]) -> list[int]:
        """Without the end that some tokenizers append; a beginning-of-sequence token stays as the tokenizer sets it."""
        only_bos = len(ids) == 1 and self.bos_id == ids[0]
        return ids[:-1] if ids and ids[-1] == self.eos_id and not only_bos else ids

    def _by_words(self) -> dict[bool, Words]:
        """By whether special tokens are split like other text; empty where texts are tokenised as a whole."""
        if not (self._is_plain and words.are_apart(self._backend)):
            return {}
        backend = self._backend
        return {
            split: Words(partial(self._encode_all, split), words.added_tokens(backend, split))
            for split in (False, True)
        }

    def _encode_all(self, split: bool, texts: list[str]) -> list[list[int]]:
        """Token ids of each text by the Rust library, without special tokens around it."""
        self._set_up(split)
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _set_up(self, split: bool) -> None:
        backend = self._backend
        if backend.encode_special_tokens != split:
            backend.encode_special_tokens = split
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()

    def _keep_words(self) -> None:
        if resize := getattr(self._backend.model, "_resize_cache", None):  # other models keep none
            resize(_WORDS)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a worker of another pod: the tokenizer comes with a cache of the library's size."""
        self.__dict__.update(state)
        self._keep_words()
