"""What the methods on pairs of answers share: rows for the trainers, log-probabilities of answers, their score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from hone_api.plan import TrainingPlan
from hone_trainer import evaluate
from hone_trainer.encode import Example
from hone_trainer.encode_pairs import Pair, PairEncoder
from hone_trainer.loop import Run
from hone_trainer.model import Base
from hone_trainer.scores import Mean, Score

Poll = Callable[[], None]
METRICS: dict[str, Any] = {"loss": "Lowest", "reward_accuracy": "Highest", "reward_margin": "Highest"}
LOGGED = {"rewards/accuracies": "reward_accuracy", "rewards/margins": "reward_margin"}


def encoder(plan: TrainingPlan, base: Base) -> PairEncoder:
    """Preferences to pairs."""
    return PairEncoder(base.tokenizer)


def dataset(plan: TrainingPlan, rows: Sequence[Pair], max_length: int) -> Any:
    """The pairs as TRL's DPOTrainer tokenises them itself."""
    from datasets import Dataset

    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    return Dataset.from_dict({name: [getattr(row, name) for row in rows] for name in columns})


def log_probs(run: Run, model: Any, rows: Sequence[Example], poll: Poll, *, prompts: bool = False) -> list[list[float]]:
    """The log-probability in nats of each row's answers given its prompt: of a pair, of chosen and rejected.

    A collective.

    Args:
        model: a causal model with TRL's fused head.
        prompts: whether the log-probabilities of the whole sequences, prompt and answer, follow those of the answers.
    """
    import torch

    pad, width = run.base.tokenizer.pad_token_id, len(rows[0].sequences)

    def forward(batch: Sequence[Example]) -> list[list[float]]:
        sequences = [ids for row in batch for ids in row.sequences]
        inputs = padded(sequences, pad, next(model.parameters()).device)
        starts = torch.tensor([len(row.prompt_ids) for row in batch for _ in row.sequences])[:, None]
        before = torch.arange(inputs["input_ids"].shape[1])[None] < starts
        of_prompt, padding = before.to(inputs["input_ids"].device), inputs["attention_mask"] == 0
        labels = inputs["input_ids"].masked_fill(padding if prompts else of_prompt | padding, evaluate.IGNORED)
        found = model(**inputs, labels=labels, fused_lm_head=True).log_probs.double()
        sums = [found.masked_fill(of_prompt[:, 1:], 0).sum(1), *([found.sum(1)] if prompts else [])]
        return torch.cat([each.view(len(batch), width) for each in sums], 1).tolist()

    return evaluate.sweep(model, rows, forward, bf16=run.settings.bf16, poll=poll)


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
