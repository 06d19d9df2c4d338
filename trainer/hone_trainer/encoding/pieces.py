"""Token ids to text. Each turn of a row is decoded to be proved, so it is joined from bytes where tokens are bytes:
less than half of the time that the tokenizer takes, which makes a list of texts first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Decode = Callable[[Sequence[int]], str]


def decoder(backend: Any) -> Decode:
    """What `backend.decode(ids, skip_special_tokens=False)` returns, as a function.

    Args:
        backend: a `tokenizers.Tokenizer`.
    """
    from tokenizers.decoders import ByteLevel

    if not isinstance(backend.decoder, ByteLevel):
        return lambda ids: str(backend.decode(list(ids), skip_special_tokens=False))
    piece = _Pieces(backend).__getitem__
    return lambda ids: b"".join(map(piece, ids)).decode(errors="replace")


class _Pieces(dict[int, bytes]):
    """The bytes of each token of a byte-level tokenizer, made when they are first asked for."""

    def __init__(self, backend: Any) -> None:
        super().__init__()
        self._token = backend.id_to_token
        self._bytes = _byte_of()

    def __missing__(self, id: int) -> bytes:
        token: str = self._token(id) or ""
        try:
            piece = bytes(map(self._bytes.__getitem__, token))
        except KeyError:  # an added token, as it is written
            piece = token.encode()
        self[id] = piece
        return piece


def _byte_of() -> dict[str, int]:
    """The byte of each character of a byte-level token, as of GPT-2: itself where it can be printed, others from U+0100
    on, in their order."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printed))
    return {chr(byte): byte for byte in printed} | {chr(256 + place): byte for place, byte in enumerate(others)}
