"""Reward models: one number for a whole conversation, learned from pairs (Bradley and Terry 1952; Ouyang et al. 2022,
arXiv 2203.02155, eq. 1), by TRL's RewardTrainer fed with our own ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hone_api.plan import TrainingPlan
from hone_trainer.encoding import mapped
from hone_trainer.encoding.preferences import Pair
from hone_trainer.methods import pairs
from hone_trainer.methods.arguments import common
from hone_trainer.models.network import Network
from hone_trainer.scoring import heldout
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


def build_dataset(plan: TrainingPlan, rows: Sequence[Pair], max_length: int) -> Any:
    """Both conversations of each pair."""
    names = ("chosen_ids", "rejected_ids")
    return indexed.dataset(
        len(rows), lambda index: dict(zip(names, rows[index].sequences, strict=True)), mapped.lengths(rows)
    )


def arguments(plan: TrainingPlan, settings: RunSettings) -> TrainingArguments:
    """TRL's RewardConfig."""
    from trl import RewardConfig

    center = plan.reward.center_rewards
    return RewardConfig(
        **common(plan, settings),
        max_length=None,  # rows were cut by the plan's policy, and counted
        center_rewards_coefficient=float(center) if center else None,
    )


class Ranked(Deferred):
    """A `Deferred` with TRL's loss and numbers."""

    args: Any

    def compute_loss(
        self, model: Network, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        from torch.nn import functional

        outputs = model(**inputs, use_cache=False)
        chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
        loss = -functional.logsigmoid(chosen - rejected).mean()
        if self.args.center_rewards_coefficient is not None:
            loss = loss + self.args.center_rewards_coefficient * ((chosen + rejected) ** 2).mean()
        self._note(outputs.logits.detach(), inputs["attention_mask"])
        loss = loss * self.weight
        return (loss, outputs) if return_outputs else loss

    def _note(self, rewards: Any, mask: Any) -> None:
        import torch

        chosen, rejected = rewards.squeeze(-1).chunk(2)
        ends = torch.stack([rewards.min(), -rewards.max()])
        lowest = self.accelerator.gather((torch.full_like(ends, torch.inf) if self.is_empty else ends)[None]).amin(0)
        self.keep("min_reward", lowest[0])
        self.keep("max_reward", -lowest[1])
        means = {"mean_reward": rewards, "accuracy": (chosen > rejected).float(), "margin": chosen - rejected}
        self.keep_means(means)
        self.count(mask.sum())


def build_trainer(run: Run, parts: TrainerParts) -> Loop:
    """A trainer that is ready to train."""
    from trl import RewardTrainer

    class RankedReward(Ranked, RewardTrainer):
        """TRL's reward model with our loop and loss."""

    reward_trainer = RankedReward(**parts)
    for name, weight in reward_trainer.model.named_parameters():
        if weight.requires_grad and ".score." in f".{name}":
            weight.data = weight.data.float()  # bfloat16 would lose its updates
    return reward_trainer


def _values(run: Run, model: Network, split: HeldOut, poll: Poll) -> Values:
    """Rewards of the chosen and the rejected conversation of each pair."""
    return score_sequences(model, split.rows, run.base.tokenizer.pad_token_id, run.settings.bf16, poll)


def score(trainer: Loop, split: HeldOut, values: Values, poll: Poll) -> Score:
    """Loss, reward accuracy and reward margin on held-out pairs; of the base, with the untrained head."""
    center = float(trainer.run.plan.reward.center_rewards or 0)
    losses = [pairs.log_loss(chosen - rejected) + center * (chosen + rejected) ** 2 for chosen, rejected in values]
    return pairs.score(split.rows, losses, [chosen - rejected for chosen, rejected in values])


def score_sequences(model: Network, rows: Sequence[Any], pad_id: int, bf16: bool, poll: Poll) -> list[list[float]]:
    """The reward of each sequence of each row. A collective."""

    def forward(batch: Sequence[Any]) -> list[list[float]]:
        sequences = [ids for row in batch for ids in row.sequences]
        logits = model(**pairs.padded(sequences, pad_id, next(model.parameters()).device)).logits
        values: list[list[float]] = logits.double().view(len(batch), -1).tolist()
        return values

    return heldout.sweep(model, rows, forward, bf16=bf16, poll=poll)


COMPARED = RowMeasure(_values, score)
METHOD = TrainingMethod(
    encoder=pairs.encoder,
    dataset=build_dataset,
    arguments=arguments,
    trainer=build_trainer,
    score=COMPARED.of_trained,
    compared=COMPARED,
    metrics=pairs.METRICS,
    logged={"accuracy": "reward_accuracy", "margin": "reward_margin"},
    head="Reward",
    samples=False,
)
