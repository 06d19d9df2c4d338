"""Evaluation on held-out rows: the same rows and procedure for base and tuned model.

The loss is the mean over all counted tokens of all rows, in nats. A mean of batch means would weigh tokens by the
length
of their batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hone_trainer import ranks
from hone_trainer.encoding import harmony, mapped
from hone_trainer.encoding.split_file import IGNORED, Example, Row
from hone_trainer.models import generate
from hone_trainer.models.network import Generating, Network, Tokenizer
from hone_trainer.scoring import endings
from hone_trainer.scoring.endings import Answer
from hone_trainer.scoring.in_training import MeasuredTrainer
from hone_trainer.scoring.row_measure import Poll, RowMeasure, Values
from hone_trainer.scoring.scores import Mean, Score

BATCH_TOKENS_CPU = 1024
BATCH_TOKENS_CUDA = 8192
"""Tokens of a batch, padding included: limits the memory of the loss head."""
SAMPLE_TOKENS = 96
"""Maximum new tokens of a sample's answer."""
E = TypeVar("E", bound=Example)


@dataclass(frozen=True)
class HeldOut:
    """Held-out examples of one split; `name` is <dataset>/<split>, `path` its file."""

    name: str
    rows: Sequence[Any]
    path: Path


def score(model: Network, rows: Sequence[Row], *, pad_id: int, bf16: bool, poll: Poll, fused: bool = True) -> Score:
    """Loss and token accuracy of the model on `rows`; a collective.

    Args:
        model: a causal model.
        poll: called before each batch on every rank; may raise to give up.
        fused: whether the model has TRL's fused head (`add_fused_lm_head`), which returns its likeliest tokens and
            applies no temperature: it scores without materializing logits.
    """
    return _of_tokens(_token_values(model, rows, pad_id=pad_id, bf16=bf16, poll=poll, fused=fused))


def _token_values(
    model: Network, rows: Sequence[Row], *, pad_id: int, bf16: bool, poll: Poll, fused: bool = True
) -> list[list[float]]:
    """Loss, right tokens and counted tokens of each row. A collective; arguments as of `score`."""

    def forward(batch: Sequence[Row]) -> Sequence[Sequence[float]]:
        inputs = _collate(batch, pad_id, device)
        if not fused:
            return _from_logits(model, inputs)
        out = model(**inputs, fused_lm_head=True)
        sums = (-out.log_probs.double().sum(1), out.is_top1.sum(1), out.label_mask.sum(1))
        return list(zip(*(column.tolist() for column in sums), strict=True))

    device = next(model.parameters()).device
    return sweep(model, rows, forward, bf16=bf16, poll=poll)


def _of_tokens(values: Values) -> Score:
    losses, correct, tokens = ([float(v) for v in column] for column in zip(*values, strict=True))
    means = {"loss": Mean(losses, tokens), "token_accuracy": Mean(correct, tokens)}
    return Score(means, tokens=int(sum(tokens)))


def _from_logits(model: Network, inputs: dict[str, Any]) -> list[list[float]]:
    """Loss, right tokens and counted tokens of each row."""
    labels = inputs.pop("labels")
    totals = []
    for logits, targets in zip(model(**inputs).logits[:, :-1], labels[:, 1:], strict=True):
        counted = targets != IGNORED
        probabilities, targets = logits[counted].float().log_softmax(1), targets[counted]
        loss = -probabilities.gather(1, targets[:, None]).double().sum()
        totals.append([float(loss), float((probabilities.argmax(1) == targets).sum()), float(counted.sum())])
    return totals


def score_language_model(trainer: MeasuredTrainer, split: HeldOut, poll: Poll) -> Score:
    """`score` of the model in training, in its current state."""
    run = trainer.run
    pad = run.base.tokenizer.pad_token_id
    return score(trainer.scoring_model(), split.rows, pad_id=pad, bf16=run.settings.bf16, poll=poll)


BY_TOKENS = RowMeasure(
    values=lambda run, model, split, poll: _token_values(
        model, split.rows, pad_id=run.base.tokenizer.pad_token_id, bf16=run.settings.bf16, poll=poll
    ),
    score=lambda _trainer, _split, values, _poll: _of_tokens(values),
)
"""Of a language model: the tokens of each row, which need nothing but the model."""


def sweep(
    model: Network,
    rows: Sequence[E],
    forward: Callable[[Sequence[E]], Sequence[Sequence[float]]],
    *,
    bf16: bool,
    poll: Poll,
) -> list[list[float]]:
    """Values of `forward` for each row, in the rows' order. A collective: every rank takes its part of the batches.

    Args:
        model: is put into evaluation mode during the call.
        forward: maps a batch to the same number of values for each of its rows.
        poll: called before each batch on every rank; may raise to give up. It also gets the number of rows.
    """
    import torch

    device = next(model.parameters()).device
    limit = BATCH_TOKENS_CUDA if device.type == "cuda" else BATCH_TOKENS_CPU
    world = ranks.world_size()
    batches = list(_batches(rows, limit))
    values_of_row: dict[int, Sequence[float]] = {}
    was_training = model.training
    model.eval()
    try:
        # Every rank runs the same number of forward passes (sharded weights are gathered by all), so a rank without a
        # batch repeats one and does not count it.
        poll.count(0, begun=len(rows))
        for turn in range(-(-len(batches) // world)):
            poll()
            index = turn * world + ranks.rank()
            batch = batches[min(index, len(batches) - 1)]
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                values = forward([rows[i] for i in batch])
            if index < len(batches):
                values_of_row.update(zip(batch, values, strict=True))
            width = len(values[0])
            poll.count(sum(map(len, batches[turn * world : (turn + 1) * world])))
    finally:
        model.train(was_training)
    flat = ranks.add_up([value for i in range(len(rows)) for value in values_of_row.get(i, [0.0] * width)])
    return [flat[i * width : (i + 1) * width] for i in range(len(rows))]


def answers(
    model: Generating,
    prompts: Sequence[Sequence[int]],
    *,
    tokenizer: Tokenizer,
    stop_ids: frozenset[int],
    max_new_tokens: int = SAMPLE_TOKENS,
    sharded: bool = False,
) -> list[Answer]:
    """Greedy answers, in the order of the prompts. A collective.

    Args:
        sharded: whether the weights are sharded (ZeRO-3). Then every rank generates all answers, since each forward
            pass
            needs all ranks. Otherwise the prompts are distributed over the ranks.
    """
    if not prompts:
        return []
    mine = range(len(prompts)) if sharded else range(ranks.rank(), len(prompts), ranks.world_size())
    own_prompts = [prompts[i] for i in mine]
    was_training = model.training
    model.eval()
    try:
        ends: dict[str, Any] = {"pad_id": tokenizer.pad_token_id, "stop_ids": stop_ids, "longest": max_new_tokens}
        generated = generate.greedy(model, own_prompts, **ends) if own_prompts else []
    finally:
        model.train(was_training)
    by_index = dict(zip(mine, generated, strict=True))
    width = max_new_tokens + 1
    table = [_cells(by_index.get(i, []), width) for i in range(len(prompts))]
    if not sharded:
        flat = ranks.add_up([number for row in table for number in row])
        table = [flat[i * width : (i + 1) * width] for i in range(len(prompts))]
    ids = [[int(number) for number in row[1 : 1 + int(row[0])]] for row in table]
    texts = [harmony.decoded(tokenizer, *pair).strip() for pair in zip(prompts, ids, strict=True)]
    return [Answer(text, endings.ending_of(i, stop_ids, max_new_tokens)) for text, i in zip(texts, ids, strict=True)]


def _cells(answer: Sequence[int], width: int) -> list[float]:
    """The answer's length and its ids, padded with zeros: the sum over the ranks is the answer of the rank that has
    it."""
    return [float(number) for number in (len(answer), *answer, *[0] * (width - 1 - len(answer)))]


def _batches(rows: Sequence[Example], limit: int) -> Iterator[list[int]]:
    """Batches of row indices, with rows of similar length together: at most `limit` tokens with padding, at least one
    row."""
    batch: list[int] = []
    lengths, width = mapped.lengths(rows), len(rows[0].sequences) if len(rows) else 0
    for index in lengths.argsort(kind="stable").tolist():
        if batch and lengths[index] * width * (len(batch) + 1) > limit:
            yield batch
            batch = []
        batch.append(index)
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
