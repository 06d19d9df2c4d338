"""Odds-ratio preference optimisation (Hong et al. 2024, arXiv 2403.07691) by TRL's (experimental) ORPOTrainer, fed with
our own ids and masks. It needs no reference: one stage of supervised tuning and preference at once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hone_api.plan import TrainingPlan
from hone_trainer.encoding import mapped
from hone_trainer.encoding.preferences import Pair, labels
from hone_trainer.encoding.row import IGNORED
from hone_trainer.methods import pairs
from hone_trainer.methods.arguments import common
from hone_trainer.models.network import Network
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.row_measure import Poll, RowMeasure, Values
from hone_trainer.scoring.scores import Score
from hone_trainer.training.batches import indexed
from hone_trainer.training.batches.deferred import Deferred
from hone_trainer.training.loop import Loop, Run
from hone_trainer.training.method import TrainerParts, TrainingMethod
from hone_trainer.training.settings import RunSettings

if TYPE_CHECKING:
    from transformers import TrainingArguments

PAIR = ("chosen", "rejected")
_LIKELY = "chosen_likely_labels"


def build_dataset(plan: TrainingPlan, rows: Sequence[Pair], max_length: int) -> Any:
    """The pairs as ORPOTrainer tokenises them itself, with the texts that TRL looks for and does not need."""
    masked = mapped.has_masks(rows)

    def columns(index: int) -> dict[str, Any]:
        own = pairs.columns_of(rows[index], masked=masked)
        return {**own, **_columns(own), "prompt": "", "chosen": "", "rejected": ""}

    return indexed.dataset(len(rows), columns)


def arguments(plan: TrainingPlan, settings: RunSettings) -> TrainingArguments:
    """TRL's ORPOConfig."""
    from trl.experimental.orpo import ORPOConfig

    return ORPOConfig(**common(plan, settings), beta=float(plan.orpo.weight), max_length=settings.max_length)


def _trainer_class() -> Any:
    """TRL's ORPOTrainer with what Hone does otherwise."""
    from trl.experimental.orpo import ORPOTrainer

    class Orpo(Deferred, ORPOTrainer):
        """TRL's ORPO with our loop and rows, and numbers that are read once a step."""

        MEANS = True
        odds_ratio_loss: Callable[..., Any]
        concatenated_inputs: Callable[..., dict[str, Any]]
        padding_value: int
        aux_loss_enabled: bool
        aux_loss_coef: float

        def tokenize_row(self, feature: dict[str, Any], *_: Any) -> dict[str, Any]:
            return feature

        def get_batch_loss_metrics(self, model: Network, batch: dict[str, Any], *_: Any, **__: Any) -> Any:
            both = self.concatenated_inputs(batch, padding_value=self.padding_value, device=self.accelerator.device)
            ids, mask, answers = (both[f"concatenated_{name}"] for name in ("input_ids", "attention_mask", "labels"))
            targets, pairs = answers.clone(), len(ids) // 2
            # TRL's likelihood is that of every token of prompt and chosen answer, context in the answer included.
            whole = both.get("concatenated_likely_labels", ids.masked_fill(mask == 0, IGNORED))
            targets[:pairs] = whole[:pairs].to(targets.device)
            options = {"output_router_logits": True} if self.aux_loss_enabled else {}
            output = model(input_ids=ids, attention_mask=mask, labels=targets, fused_lm_head=True, **options)
            of_answers = answers[:, 1:] != IGNORED
            log_probs, logits = ((x * of_answers).sum(1) for x in (output.log_probs, output.mean_logits))
            chosen, rejected = (log_probs / of_answers.sum(1)).split(pairs)
            likelihood = -output.log_probs[:pairs].sum() / output.label_mask[:pairs].sum()
            losses, good, bad, ratio, odds = self.odds_ratio_loss(chosen, rejected)
            loss = likelihood - losses.mean()
            numbers = {"rewards/chosen": good, "rewards/rejected": bad, "rewards/accuracies": (good > bad).float()}
            numbers |= {"rewards/margins": good - bad, "logps/chosen": chosen, "logps/rejected": rejected}
            numbers |= {"nll_loss": likelihood, "log_odds_ratio": ratio, "log_odds_chosen": odds}
            self.keep_means(numbers)
            of_side = zip(PAIR, logits.detach().split(pairs), of_answers.split(pairs), strict=True)
            self.keep_sums({f"logits/{name}": (of.sum(), count.sum()) for name, of, count in of_side})
            self.count(mask.sum())
            if self.aux_loss_enabled:  # experts are kept in balance
                loss = loss + self.aux_loss_coef * output.aux_loss
            return loss * self.weight, {}

    return Orpo


def build_trainer(run: Run, parts: TrainerParts) -> Loop:
    """A trainer that is ready to train."""
    from datasets import Dataset
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(parts["model"], outputs=("log_probs", "mean_logits"))  # TRL's ORPO computes whole logits
    one_row = Dataset.from_list([run.dataset[0]])  # of all rows, TRL would hold what it makes of them
    orpo: Loop = _trainer_class()(**{**parts, "train_dataset": one_row})
    orpo.train_dataset = run.dataset
    return orpo


def score(trainer: Loop, split: HeldOut, values: Values, poll: Poll) -> Score:
    """Loss, reward accuracy and reward margin on held-out pairs, by a model's log-probabilities. The reward of an
    answer is the weight times its mean log-probability per token.

    The loss is what training minimises: as in the authors' code and in TRL, its likelihood is that of prompt and chosen
    answer, while the odds are of the answers alone.
    """
    weight = float(trainer.run.plan.orpo.weight)
    rows = list(zip(values, split.rows, strict=True))
    means = [(c / sum(p.masks[0]), r / sum(p.masks[1])) for (c, r, *_), p in rows]
    # Each token but the first is predicted.
    whole = [sequence / (len(p.prompt_ids) + sum(p.masks[0]) - 1) for (_, _, sequence, _), p in rows]
    losses = [weight * odds_loss(*mean) - likelihood for likelihood, mean in zip(whole, means, strict=True)]
    return pairs.score(split.rows, losses, [weight * (chosen - rejected) for chosen, rejected in means])


def odds_loss(chosen: float, rejected: float) -> float:
    """-log sigmoid of the log odds ratio (eq. 6 and 7); arguments are mean log-probabilities, below 0."""
    return pairs.log_loss(_log_odds(chosen) - _log_odds(rejected))


def _log_odds(mean: float) -> float:
    """For a certain answer, whose every token has probability 1: the largest value below it in float64."""
    mean = min(mean, -sys.float_info.epsilon)
    return mean - math.log(-math.expm1(mean))


def _columns(feature: dict[str, Any]) -> dict[str, Any]:
    """What ORPOTrainer's own tokenisation gives, and the labels of the likelihood where answers have context."""
    prompt, columns = feature["prompt_ids"], dict[str, Any]()
    for name in PAIR:
        answer = feature[f"{name}_ids"]
        columns[f"{name}_input_ids"] = prompt + answer
        columns[f"{name}_attention_mask"] = [1] * len(prompt + answer)
        columns[f"{name}_labels"] = labels(prompt, answer, feature.get(f"{name}_mask", [1] * len(answer)))
    if "chosen_mask" in feature:
        columns[_LIKELY] = prompt + columns["chosen_labels"][len(prompt) :]
    return columns


COMPARED = RowMeasure(
    lambda run, model, split, poll: pairs.log_probs(run, model, split.rows, poll, prompts=True), score
)
METHOD = TrainingMethod(
    encoder=pairs.encoder,
    dataset=build_dataset,
    arguments=arguments,
    trainer=build_trainer,
    score=COMPARED.of_trained,
    compared=COMPARED,
    metrics=pairs.METRICS,
    logged=pairs.LOGGED,
)
