"""Domain-adaptive pre-training (Gururangan et al. 2020, arXiv 2004.10964): every token of every document counts.

Documents are packed whole, best fit first, and no document attends to another (Ding et al. 2024, arXiv 2404.10830;
Zhao et al. 2024, arXiv 2402.13991): the classic concatenation cuts documents at random places and lets a document be
predicted from another document. A document longer than a sequence continues in the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_api.plan import TrainingPlan
from hone_trainer.encoding.split_file import IGNORED, Encoder, Row
from hone_trainer.methods import sft
from hone_trainer.models.base_model import Base
from hone_trainer.models.network import Tokenizer
from hone_trainer.scoring import heldout
from hone_trainer.training.method import TrainingMethod
from hone_trainer.training.settings import RunSettings

if TYPE_CHECKING:
    from transformers import TrainingArguments


class DocumentEncoder(Encoder):
    """Records {text} to rows of at most `length` tokens."""

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        super().__init__(tokenizer)
        self._length = length

    def takes(self, record: dict[str, Any]) -> str | None:
        return None if "text" in record else "has no text"

    def encode(self, record: dict[str, Any], number: int = 1) -> list[Row]:
        """The document, ended by EOS, in pieces. Each begins with the last token of the piece before, so every token
        but the document's first is predicted exactly once."""
        (document,) = super().encode({"text": record["text"]}, number)
        ids = document.input_ids
        if len(ids) <= self._length:
            return [document]
        starts = range(0, len(ids) - 1, self._length - 1)
        pieces = [ids[start : start + self._length] for start in starts]
        return [Row(piece, [IGNORED, *piece[1:]], number) for piece in pieces]


def encoder(plan: TrainingPlan, base: Base) -> DocumentEncoder:
    """Documents to rows."""
    return DocumentEncoder(base.tokenizer, plan.training.max_length or METHOD.longest(base) or base.context)


def build_dataset(plan: TrainingPlan, rows: Sequence[Row], max_length: int) -> Any:
    """The rows as TRL takes them."""
    return sft.sequences(rows, max_length if plan.dapt.pack else None, Path(plan.work_path))


def arguments(plan: TrainingPlan, settings: RunSettings) -> TrainingArguments:
    """TRL's SFTConfig."""
    return sft.config(plan, settings, packing=plan.dapt.pack)


METHOD = TrainingMethod(
    encoder=encoder,
    dataset=build_dataset,
    arguments=arguments,
    trainer=sft.build_trainer,
    by_tokens=True,
    score=heldout.score_language_model,
    compared=heldout.BY_TOKENS,
    metrics={"loss": "Lowest", "perplexity": "Lowest", "token_accuracy": "Highest"},
    length=2048,
)
