"""What is looked at before the first step: that tokenizer and template fit, and that the labels of a batch are those of
its rows. One training row is shown with its mask, for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Any

from hone_api.words.failures import FailureCode
from hone_trainer.encoding.preferences import Compared
from hone_trainer.encoding.split_file import IGNORED, Example, Row
from hone_trainer.errors import TrainerError
from hone_trainer.models.base_model import Base
from hone_trainer.models.network import Tokenizer

LONGEST = 4000
"""Characters of a row that are shown."""
_MARK = re.compile(r"<\|[^|<>{}\s]+\|>|<(?:start|end)_of_turn>|\[/?INST\]")
"""Turn markers in the chat templates of well-known model families."""


@dataclass(frozen=True)
class Shown:
    """A piece of a row as text."""

    text: str
    trained: bool


def shown(row: Example, tokenizer: Tokenizer) -> list[Shown]:
    """The row as the model reads it, special tokens included, in pieces that are trained or not."""
    pieces, room = [], LONGEST
    for trained, tokens in groupby(zip(*_masked(row), strict=True), key=lambda token: token[1]):
        text = tokenizer.decode([token for token, _ in tokens], skip_special_tokens=False)
        pieces.append(Shown(text[:room] + ("…" if len(text) > room else ""), trained))
        room -= len(text)
        if room <= 0:
            break
    return pieces


def _masked(row: Example) -> tuple[Sequence[int], Sequence[bool]]:
    """Token ids of the first sequence, and which of them count."""
    if isinstance(row, Row):
        return row.input_ids, [label != IGNORED for label in row.labels]
    ids, start = row.sequences[0], len(row.prompt_ids)
    answer = row.masks[0] if isinstance(row, Compared) else [1] * (len(ids) - start)
    return ids, [False] * start + [count == 1 for count in answer]


def in_words(pieces: Sequence[Shown]) -> str:
    """The row on one line; trained tokens are in double brackets."""
    text = "".join(f"⟦{piece.text}⟧" if piece.trained else piece.text for piece in pieces)
    return f"the first row as the model reads it, with what is trained in ⟦⟧: {text!r}"


def dated(base: Base, day: date | None) -> list[str]:
    """For people: the date that the prompts have, of a chat template that prints one."""
    if day is None or "strftime_now" not in str(base.tokenizer.chat_template):
        return []
    return [f"the chat template prints the date of today: in every attempt of this run it is {day}"]


def problems(base: Base) -> Iterator[str]:
    """Why this tokenizer cannot go with this model."""
    tokenizer = base.tokenizer
    for name in ("eos", "pad"):
        token, number = getattr(tokenizer, f"{name}_token"), getattr(tokenizer, f"{name}_token_id")
        if number is not None and number >= base.vocabulary:
            yield (
                f"the tokenizer's {name} token {token} has id {number}, the model's vocabulary is {base.vocabulary}: "
                "tokenizer and model do not fit together"
            )


def advice(base: Base) -> list[str]:
    """What looks as if tokenizer and chat template were of different models."""
    template = base.tokenizer.chat_template
    if template == "":
        return ["the model's chat template is empty: prompts and answers are trained as plain text, without any marks."]
    marks = dict.fromkeys(_MARK.findall(template)) if isinstance(template, str) else {}
    sizes = {mark: len(base.tokenizer.encode(mark, add_special_tokens=False)) for mark in marks}
    split = {mark: size for mark, size in sizes.items() if size > 1 and not mark.startswith("[")}
    if not split:
        return []
    words = ", ".join(f"{mark} is {size} tokens" for mark, size in split.items())
    return [
        f"the chat template's marks are not tokens of this tokenizer ({words}): they are of different models, or the "
        "marks are missing among its added tokens."
    ]


def stretched(base: Base, lengths: Any) -> list[str]:
    """What becomes of rows on both sides of the length at which longrope changes its factors.

    Args:
        lengths: tokens of each row, as a numpy array.
    """
    rope = getattr(base.config.get_text_config(), "rope_parameters", None) or {}
    kinds = [rope, *(of_layers for of_layers in rope.values() if isinstance(of_layers, dict))]
    for limit in [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]:
        longer = int((lengths > limit).sum())
        if 0 < longer < len(lengths):
            return [
                f"{longer} of {len(lengths)} rows are over the {limit} tokens up to which this model has other factors "
                "of its positions (longrope): a row that shares a pass with one of them is computed with theirs. Set "
                f"training.maxLength to at most {limit} to train all rows with the factors of short ones."
            ]
    return []


def batch(inputs: Mapping[str, Any]) -> None:
    """That a batch, as the library's trainer gives it to the model, still has the labels of its rows.

    The model compares the prediction at a position with the label of the next one; labels that somebody has already
    shifted would be shifted twice.

    Raises:
        TrainerError: SelfCheckFailed.
    """
    ids, labels = inputs.get("input_ids"), inputs.get("labels")
    if ids is None or labels is None or ids.shape != labels.shape:
        return
    counted = labels != IGNORED
    if not counted.any():
        raise TrainerError(
            FailureCode.SELF_CHECK_FAILED, "the mask of the first batch hides every token, so nothing could be learned"
        )
    if not (labels[counted] == ids[counted]).all():
        shifted = counted[:, :-1] & (labels[:, :-1] == ids[:, 1:])
        twice = bool(shifted.sum() == counted[:, :-1].sum())
        what = "its labels are shifted, and the model shifts them again" if twice else "its labels are not its tokens"
        raise TrainerError(FailureCode.SELF_CHECK_FAILED, f"the first batch: {what}")
