"""Formats: how a row of some shape becomes a normalised record. One entry of `FORMATS` a format."""

from __future__ import annotations

from hone_api.dataset.dataset import Format
from hone_trainer.datasets.formats.base import RowFormat
from hone_trainer.datasets.formats.chat import CHAT
from hone_trainer.datasets.formats.pairs import ALPACA, PROMPT_COMPLETION
from hone_trainer.datasets.formats.preference import KTO, PREFERENCE
from hone_trainer.datasets.formats.raft import RAFT
from hone_trainer.datasets.formats.sharegpt import SHAREGPT
from hone_trainer.datasets.formats.text import TEXT
from hone_trainer.datasets.formats.verifiable import VERIFIABLE

FORMATS: dict[str, RowFormat] = {
    Format.PREFERENCE: PREFERENCE,
    Format.KTO: KTO,
    Format.VERIFIABLE: VERIFIABLE,
    Format.CHAT: CHAT,
    Format.SHAREGPT: SHAREGPT,
    Format.RAFT: RAFT,
    Format.ALPACA: ALPACA,
    Format.PROMPT_COMPLETION: PROMPT_COMPLETION,
    Format.TEXT: TEXT,
}
"""In the order in which Auto tries them."""

__all__ = ["FORMATS", "RowFormat"]
