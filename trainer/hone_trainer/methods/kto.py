"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306) by TRL's KTOTrainer, fed with our own ids
and masks: answers that are each good or bad, without a partner.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.encoding import mapped
from hone_trainer.encoding.preferences import Judged, JudgedEncoder
from hone_trainer.errors import DataError
from hone_trainer.methods import pairs
from hone_trainer.methods.arguments import common
from hone_trainer.methods.reference import WithReference
from hone_trainer.models import adapters
from hone_trainer.models.base_model import Base
from hone_trainer.models.network import Network
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.row_measure import Poll, RowMeasure, Values
from hone_trainer.scoring.scores import Mean, Score
from hone_trainer.training.batches import indexed
from hone_trainer.training.loop import Loop, Run
from hone_trainer.training.method import TrainerParts, TrainingMethod
from hone_trainer.training.settings import RunSettings

if TYPE_CHECKING:
    from transformers import TrainingArguments

_DRAWN = 2**14
"""Random numbers at a time."""
_SWAPPED = 512
"""Rows that are swapped at once; of ten million rows, one place is among them twice in one of 40 cases."""
_MASKS = ("completion_mask", "KL_completion_mask")
"""Columns of a dataset and of its batches: which tokens of the answers count."""


def encoder(plan: TrainingPlan, base: Base) -> JudgedEncoder:
    """Judged answers, and pairs as two of them."""
    return JudgedEncoder(base.tokenizer)


def build_dataset(plan: TrainingPlan, rows: Sequence[Judged], max_length: int) -> Any:
    """The rows as TRL's KTOTrainer tokenises them itself, in a random order: it reads them in sequence.

    Raises:
        DataError: OneSidedData when all answers are good, or all are bad.
    """
    good = int(mapped.flags(rows, "label").sum())
    if good in (0, len(rows)):
        raise DataError(FailureCode.ONE_SIDED_DATA, f"all {len(rows)} answers have the label {str(bool(good)).lower()}")
    order = shuffled(len(rows), plan.training.seed)
    masked = mapped.has_masks(rows)

    def columns(index: int) -> dict[str, Any]:
        row = rows[int(order[index])]
        fields = {name: getattr(row, name) for name in ("prompt_ids", "completion_ids", "label")}
        return {**fields, **({"completion_mask": row.masks[0]} if masked else {})}

    return indexed.dataset(len(rows), columns)


def shuffled(rows: int, seed: int) -> Sequence[int]:
    """`random.Random(seed).sample(range(rows), rows)` in four bytes per row; `sample` makes an object of each row."""
    draw, order, left = random.Random(seed), array("i", bytes(4 * rows)), rows
    np.frombuffer(order, np.int32)[:] = np.arange(rows, dtype=np.int32)
    numbers = np.zeros(0, np.uint32)
    while left:
        if not len(numbers):
            numbers = np.frombuffer(draw.getrandbits(32 * _DRAWN).to_bytes(4 * _DRAWN, "little"), np.uint32)
        places, used = _places(numbers, left)
        for start in range(0, len(places), _SWAPPED):
            _swap(order, places[start : start + _SWAPPED], left - start)
        left, numbers = left - len(places), numbers[used:]
    order.reverse()
    return order


def _places(numbers: Any, left: int) -> tuple[Any, int]:
    """Places below `left`, `left` - 1 and so on, as `randbelow` draws them, and how many numbers they took.

    It takes as many bits as the bound has, until they are below it; here as long as the bound has as many.
    """
    bits = left.bit_length()
    values = (numbers >> (32 - bits)).astype(np.int64)
    is_below = values < left
    while True:  # each turn is right for one number more, at least; two or three are enough
        bounds = left - (np.cumsum(is_below) - is_below)
        if np.array_equal(is_below, values < bounds):
            break
        is_below = values < bounds
    places = np.flatnonzero(is_below)[: left - (1 << bits - 1) + 1]
    is_last = left - len(places) < 1 << bits - 1
    return values[places], int(places[-1]) + 1 if is_last else len(numbers)


def _swap(order: array[int], places: Any, left: int) -> None:
    """Swap what is at the first of the places with what is at `left` - 1, and so on downwards."""
    lasts = np.arange(left - 1, left - 1 - len(places), -1)
    is_moved = places >= lasts[-1]
    if is_moved.any() or len(np.unique(places)) < len(places):  # a place is swapped twice: one after the other
        for place, last in zip(places.tolist(), lasts.tolist(), strict=True):
            order[place], order[last] = order[last], order[place]
        return
    all_rows = np.frombuffer(order, np.int32)
    all_rows[places], all_rows[lasts] = all_rows[lasts], all_rows[places]


class Valued(WithReference):
    """A `WithReference` with KTO's loss (eq. 7)."""

    beta: float
    precompute_ref_logps: bool

    def loss_of(self, model: Network, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        import torch

        with torch.no_grad():
            mismatched = self.answered(model, inputs, "KL_").log_probs.sum(1)
        output = self.answered(model, inputs, routed=self.aux_loss_enabled)
        log_probs = output.log_probs.sum(1)
        of_mismatched, reference = self._references(inputs)
        apart = mismatched - of_mismatched
        total, rows = self.add_up(torch.stack([apart.sum(), torch.ones_like(apart).sum()]))
        kl = (total / rows).clamp(min=0)
        ratios, good = log_probs - reference, inputs["label"].bool()
        loss = (1 - torch.sigmoid(self.beta * torch.where(good, ratios - kl, kl - ratios))).mean()
        self.keep("kl", kl)
        rewards = {"rewards": self.beta * ratios.detach(), "logps": log_probs.detach()}
        sides = {"chosen": good, "rejected": ~good}
        self.keep_sums(
            {
                f"{what}/{side}": ((values * rows).sum(), rows.sum())
                for what, values in rewards.items()
                for side, rows in sides.items()
            }
        )
        self.keep_tokens(output, inputs, good)
        return loss, output

    def _references(self, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        """The reference's log-probabilities of the mismatched answers, and of the rows' own: (rows,) each."""
        import torch

        if self.precompute_ref_logps:
            return inputs["ref_KL_logps"], inputs["ref_logps"]
        with torch.no_grad(), self.model.disable_adapter():
            mismatched, own = (self.answered(self.model, inputs, prefix).log_probs.sum(1) for prefix in ("KL_", ""))
        return mismatched, own

    def logged(self, means: dict[str, float]) -> dict[str, float]:
        chosen, rejected = (means.get(f"rewards/{side}") for side in ("chosen", "rejected"))
        if chosen is None or rejected is None:
            return means
        return {**means, "rewards/margins": chosen - rejected}


def arguments(plan: TrainingPlan, settings: RunSettings) -> TrainingArguments:
    """TRL's KTOConfig."""
    from trl import KTOConfig

    return KTOConfig(
        **common(plan, settings),
        beta=float(plan.kto.beta),
        max_length=None,  # rows were cut by the plan's policy, and counted
        train_sampling_strategy="sequential",  # an answer's partner for the KL term is its neighbour
        precompute_ref_log_probs=not adapters.is_adapter(plan.adapter),
        remove_unused_columns=False,  # the masks of answers of several turns, which TRL does not know
    )


def build_trainer(run: Run, parts: TrainerParts) -> Loop:
    """A trainer that is ready to train."""
    from trl import KTOTrainer

    class Kto(Valued, KTOTrainer):
        """TRL's KTO with our loop and rows."""

        first_loss = 0.5  # 1 - sigmoid(0), whatever the label

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            """With the answers for the KL term: each prompt gets its neighbour's, of those in a pass of all ranks."""
            return _with_neighbours(dataset, parts["args"].per_device_train_batch_size * run.settings.world_size)

        def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
            splits: dict[str, Sequence[Judged]]
            splits = {name: rows for s in run.held_out for name, rows in _with_mismatched(s).items()}
            columns = {"ref_logps": "completion", "ref_KL_logps": "KL_completion"}
            for name, answer in columns.items():
                splits[name] = _ReadyAnswers(dataset, answer)
            log_probs = self.before_training(run, splits)
            for name in columns:
                dataset = dataset.add_column(name, [value for (value,) in log_probs.pop(name)])
            return dataset

    kto = Kto(**parts)
    kto.data_collator = pairs.MaskedCollator(kto.data_collator, {name: [name] for name in _MASKS})
    return kto


def _values(run: Run, model: Network, split: HeldOut, poll: Poll) -> Values:
    """A model's log-probabilities of each row's answer, and of the answer of the row before it."""
    parts = [pairs.log_probs(run, model, answers, poll) for answers in _with_mismatched(split).values()]
    return [[own, other] for (own,), (other,) in zip(*parts, strict=True)]


def score(trainer: WithReference, split: HeldOut, values: Values, poll: Poll) -> Score:
    """Loss, reward accuracy and reward margin on held-out answers, by `_values` of a model.

    The loss is that of eq. 7 with the model's own KL term, estimated from the whole split; an answer is right when the
    sign of its reward is that of its label, so before training the accuracy is 0.5. The margin is the mean reward of
    the good answers less that of the bad ones; without one of the kinds it is 0.
    """
    beta, rows = float(trainer.run.plan.kto.beta), split.rows
    ratios, mismatched = (
        [value - reference for value, (reference,) in zip(column, trainer.reference(name, answers, poll), strict=True)]
        for column, (name, answers) in zip(zip(*values, strict=True), _with_mismatched(split).items(), strict=True)
    )
    kl = max(sum(mismatched) / len(rows), 0.0)
    signs = [1 if row.label else -1 for row in rows]
    losses = [1 - _sigmoid(sign * beta * (ratio - kl)) for sign, ratio in zip(signs, ratios, strict=True)]
    scored = pairs.score(rows, losses, [sign * beta * ratio for sign, ratio in zip(signs, ratios, strict=True)])
    return Score({**scored.means, "reward_margin": _margin(signs, [beta * r for r in ratios])}, scored.tokens)


def _margin(signs: Sequence[int], rewards: Sequence[float]) -> Mean:
    count = {sign: signs.count(sign) for sign in (1, -1)}
    both = all(count.values())
    parts = [s * r * len(signs) / count[s] if both else 0.0 for s, r in zip(signs, rewards, strict=True)]
    return Mean(parts, [1.0] * len(parts))


def _with_mismatched(split: HeldOut) -> dict[str, list[Judged]]:
    """The rows of a split, and their prompts with the answer of the row before, by a name for each."""
    rows = list(split.rows)
    before = zip(rows, [rows[-1], *rows[:-1]], strict=True)
    others = [Judged(row.prompt_ids, other.completion_ids, row.label, row.number, other.mask) for row, other in before]
    return {split.name: rows, f"{split.name}, mismatched": others}


def _with_neighbours(dataset: Any, size: int) -> Any:
    """The dataset, and for each row the answer of the row before it among `size` rows; for the first, of the last."""
    own, rows = indexed.row_maker(dataset), len(dataset)

    def columns(index: int) -> dict[str, Any]:
        first = index - index % size
        neighbour = own(index - 1 if index > first else min(first + size, rows) - 1)
        answer = {name: value for name, value in neighbour.items() if name in ("completion_ids", "completion_mask")}
        return {**own(index), **{f"KL_{name}": value for name, value in answer.items()}}

    return indexed.dataset(rows, columns)


class _ReadyAnswers(Sequence[Judged]):
    """One of the two answers of each row of a dataset with neighbours, made when it is asked for."""

    def __init__(self, dataset: Any, answer: str) -> None:
        self._row, self._count, self._answer = indexed.row_maker(dataset), len(dataset), answer

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._count:
            raise IndexError(index)
        row, answer = self._row(index), self._answer
        return Judged(row["prompt_ids"], row[f"{answer}_ids"], True, 0, row.get(f"{answer}_mask"))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


COMPARED = RowMeasure(_values, score, needs="reference")
METHOD = TrainingMethod(
    encoder=encoder,
    dataset=build_dataset,
    arguments=arguments,
    trainer=build_trainer,
    score=COMPARED.of_trained,
    compared=COMPARED,
    metrics=pairs.METRICS,
    logged={"rewards/margins": "reward_margin", "kl": "kl"},
)
