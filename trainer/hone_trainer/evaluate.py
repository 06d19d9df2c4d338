"""Evaluation on held-out rows: the same rows and the same procedure for base and tuned model.

The loss is the mean over all counted tokens of all rows, in nats (not a mean of batch means, which would weigh
tokens by the length of their neighbours).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from hone_api.modelversion import EvaluationNumber
from hone_trainer import ranks
from hone_trainer.encode import IGNORED, Row

BATCH_TOKENS_CPU = 1024
BATCH_TOKENS_CUDA = 8192
"""Tokens of a batch, padding included: bounds the memory of the loss head."""
SAMPLE_TOKENS = 96
"""Most new tokens of a sample's answer."""


@dataclass(frozen=True)
class Score:
    """Sums over the counted tokens of some rows."""

    loss_sum: float
    tokens: int
    correct: int
    rows: int

    @property
    def loss(self) -> float:
        """Nats per counted token."""
        return self.loss_sum / self.tokens

    @property
    def accuracy(self) -> float:
        """Share of counted tokens that are the model's most likely next token."""
        return self.correct / self.tokens

    def __add__(self, other: Score) -> Score:
        return Score(
            self.loss_sum + other.loss_sum,
            self.tokens + other.tokens,
            self.correct + other.correct,
            self.rows + other.rows,
        )


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows of one split; `name` is <dataset>/<split>, `path` its file."""

    name: str
    rows: Sequence[Row]
    path: Path


def score(model: Any, rows: Sequence[Row], *, pad_id: int, bf16: bool, poll: Callable[[], None]) -> Score:
    """The model's score on `rows`; a collective: every rank takes its share of the batches.

    Args:
        model: a causal model with TRL's fused head (`add_fused_lm_head`), which scores without materialising logits.
        poll: called before each batch on every rank; may raise to give up.
    """
    import torch

    device = next(model.parameters()).device
    limit = BATCH_TOKENS_CUDA if device.type == "cuda" else BATCH_TOKENS_CPU
    world = ranks.world_size()
    batches = list(_batches(rows, limit))
    # Every rank runs the same number of forward passes (sharded weights are gathered by all), so a rank without a
    # batch of its own repeats one and counts nothing.
    rounds = -(-len(batches) // world)
    loss_sum, correct, tokens = 0.0, 0.0, 0.0
    was_training = model.training
    model.eval()
    try:
        for turn in range(rounds):
            poll()
            index = turn * world + ranks.rank()
            inputs = _collate(batches[min(index, len(batches) - 1)], pad_id, device)
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                out = model(**inputs, fused_lm_head=True)
            if index < len(batches):
                loss_sum -= out.log_probs.double().sum().item()
                correct += out.is_top1.sum().item()
                tokens += out.label_mask.sum().item()
    finally:
        model.train(was_training)
    loss_sum, tokens, correct = ranks.add_up([loss_sum, tokens, correct])
    return Score(loss_sum, int(tokens), int(correct), len(rows))


def answers(model: Any, prompts: Sequence[Sequence[int]], *, tokenizer: Any, stop_ids: frozenset[int]) -> list[str]:
    """Greedy answers, at most SAMPLE_TOKENS each. Every rank generates all (sharded weights need all ranks)."""
    import torch

    if not prompts:
        return []
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=SAMPLE_TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                use_cache=True,
                eos_token_id=sorted(stop_ids),
                pad_token_id=pad,
            )
    finally:
        model.train(was_training)
    return [tokenizer.decode(row[width:], skip_special_tokens=True).strip() for row in out]


def numbers(
    held_out: Sequence[HeldOut], base: Sequence[Score] | None, tuned: Sequence[Score]
) -> list[EvaluationNumber]:
    """Loss and accuracy of each split, before and after."""
    found = []
    for index, (split, after) in enumerate(zip(held_out, tuned, strict=True)):
        before = base[index] if base else None
        for name, value in (("loss", attrgetter("loss")), ("token_accuracy", attrgetter("accuracy"))):
            found.append(
                EvaluationNumber(
                    name=name,
                    dataset=split.name,
                    base=f"{value(before):.6f}" if before else None,
                    tuned=f"{value(after):.6f}",
                    rows=after.rows,
                    tokens=after.tokens,
                )
            )
    return found


def _batches(rows: Sequence[Row], limit: int) -> Iterator[list[Row]]:
    """Rows of like length together, at most `limit` tokens a batch with padding, but at least one row."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda r: len(r.input_ids)):
        if batch and len(row.input_ids) * (len(batch) + 1) > limit:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _collate(batch: Sequence[Row], pad_id: int, device: Any) -> dict[str, Any]:
    import torch

    width = max(len(r.input_ids) for r in batch)

    def padded(values: Sequence[Sequence[int]], fill: int) -> Any:
        return torch.tensor([list(v) + [fill] * (width - len(v)) for v in values], device=device)

    return {
        "input_ids": padded([r.input_ids for r in batch], pad_id),
        "labels": padded([r.labels for r in batch], IGNORED),
        "attention_mask": padded([[1] * len(r.input_ids) for r in batch], 0),
    }
