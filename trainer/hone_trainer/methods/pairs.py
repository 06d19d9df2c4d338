"""What the methods on pairs of answers share: rows for the trainers, log-probabilities of answers, their score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.plan import TrainingPlan
from hone_trainer.encoding import mapped
from hone_trainer.encoding.preferences import Compared, Pair, PairEncoder
from hone_trainer.encoding.row import IGNORED
from hone_trainer.encoding.split_file import Example
from hone_trainer.models.base_model import Base
from hone_trainer.models.network import Network
from hone_trainer.scoring import heldout
from hone_trainer.scoring.row_measure import Poll
from hone_trainer.scoring.scores import Mean, Score
from hone_trainer.training.batches import indexed
from hone_trainer.training.loop import Run

METRICS: dict[str, Any] = {"loss": "Lowest", "reward_accuracy": "Highest", "reward_margin": "Highest"}
MASKS = ("chosen_mask", "rejected_mask")
"""Columns of a dataset of pairs: which tokens of the answers count."""
LOGGED = {"rewards/accuracies": "reward_accuracy", "rewards/margins": "reward_margin"}


def encoder(plan: TrainingPlan, base: Base) -> PairEncoder:
    """Preferences to pairs."""
    return PairEncoder(base.tokenizer)


def build_dataset(plan: TrainingPlan, rows: Sequence[Pair], max_length: int) -> Any:
    """The pairs as TRL's DPOTrainer tokenises them itself; with the masks of the answers, where some have context."""
    masked = mapped.has_masks(rows)
    return indexed.dataset(len(rows), lambda index: columns_of(rows[index], masked=masked), mapped.lengths(rows))


def columns_of(row: Pair, *, masked: bool) -> dict[str, list[int]]:
    """A pair by column; with its masks where `masked`."""
    fields = {name: getattr(row, name) for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
    return {**fields, **(dict(zip(MASKS, row.masks, strict=True)) if masked else {})}


@dataclass(frozen=True)
class MaskedCollator:
    """A collator of TRL's, whose completion masks then leave out the context inside the answers.

    TRL counts every token after the prompt.
    """

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    masks: Mapping[str, Sequence[str]]
    """A mask of the batch to the columns with those of the answers, in the order of the batch's rows."""

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        batch = self.collate(examples)
        for name, columns in self.masks.items():
            if columns[0] not in examples[0]:  # every answer of the run is a single turn
                continue
            answers = [(len(row["prompt_ids"]), row[column]) for column in columns for row in examples]
            for mask, (start, answer) in zip(batch[name], answers, strict=True):
                mask[start : start + len(answer)] = torch.tensor(answer)
        return batch


def log_probs(
    run: Run, model: Network, rows: Sequence[Compared], poll: Poll, *, prompts: bool = False
) -> list[list[float]]:
    """The log-probability in nats of what counts of each row's answers: of a pair, of chosen and rejected.

    A collective.

    Args:
        model: a causal model with TRL's fused head.
        prompts: whether the same of the prompt and what counts of the answer together follow those of the answers.
    """
    import torch

    pad, width = run.base.tokenizer.pad_token_id, len(rows[0].sequences)

    def forward(batch: Sequence[Compared]) -> list[list[float]]:
        inputs = padded([ids for row in batch for ids in row.sequences], pad, next(model.parameters()).device)
        answers = [(len(row.prompt_ids), mask) for row in batch for mask in row.masks]
        of_prompt, counts = (
            each.to(inputs["input_ids"].device) for each in _placed(answers, inputs["input_ids"].shape)
        )
        labels = inputs["input_ids"].masked_fill(~(counts | of_prompt if prompts else counts), IGNORED)
        token_log_probs = model(**inputs, labels=labels, fused_lm_head=True).log_probs.double()
        sums = [token_log_probs.masked_fill(~counts[:, 1:], 0).sum(1), *([token_log_probs.sum(1)] if prompts else [])]
        columns: list[list[float]] = torch.cat([each.view(len(batch), width) for each in sums], 1).tolist()
        return columns

    return heldout.sweep(model, rows, forward, bf16=run.settings.bf16, poll=poll)


def _placed(answers: Sequence[tuple[int, Sequence[int]]], shape: Sequence[int]) -> tuple[Any, Any]:
    """Of padded sequences, which tokens are of the prompt, and which of the answer count: bool, (sequences, tokens).

    Args:
        answers: of each sequence the number of tokens of the prompt, and the mask of the answer after it.
    """
    import torch

    of_prompt, counts = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, (start, mask) in enumerate(answers):
        of_prompt[row, :start] = True
        counts[row, start : start + len(mask)] = torch.tensor(mask, dtype=torch.bool)
    return of_prompt, counts


def padded(sequences: Sequence[Sequence[int]], pad_id: int, device: Any) -> dict[str, Any]:
    """input_ids and attention_mask of the sequences, padded at their end."""
    import torch

    width = max(map(len, sequences))
    return {
        "input_ids": torch.tensor([[*ids, *[pad_id] * (width - len(ids))] for ids in sequences], device=device),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in sequences], device=device),
    }


def log_loss(margin: float) -> float:
    """-log sigmoid(margin), without overflow."""
    return math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0)


def score(rows: Sequence[Example], losses: list[float], margins: list[float]) -> Score:
    """The score of rows by their losses and reward margins; a margin of 0 is half right, as a coin would be."""
    ones = [1.0] * len(rows)
    right = [(m > 0) + 0.5 * (m == 0) for m in margins]
    means = {"loss": Mean(losses, ones), "reward_accuracy": Mean(right, ones), "reward_margin": Mean(margins, ones)}
    return Score(means, tokens=sum(row.trained for row in rows))
