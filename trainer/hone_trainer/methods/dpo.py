"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290), IPO (Azar et al. 2023, arXiv 2310.12036) and
the hinge loss (Zhao et al. 2023, SLiC-HF, arXiv 2305.10425), by TRL's DPOTrainer fed with our own ids and masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hone_api.plan import TrainingPlan
from hone_trainer.methods import pairs
from hone_trainer.methods.arguments import common
from hone_trainer.methods.reference import WithReference
from hone_trainer.models import adapters
from hone_trainer.models.network import Network
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.row_measure import Poll, RowMeasure, Values
from hone_trainer.scoring.scores import Score
from hone_trainer.training.loop import Loop, Run
from hone_trainer.training.method import TrainerParts, TrainingMethod
from hone_trainer.training.settings import RunSettings

if TYPE_CHECKING:
    from transformers import TrainingArguments

LOSSES = {"Sigmoid": "sigmoid", "IPO": "ipo", "Hinge": "hinge"}
"""Our names -> TRL's."""
Loss = Callable[[float, float, float], float]
"""beta, log-ratio of the chosen minus that of the rejected answer, the same per token -> loss."""
FORMULAS: dict[str, Loss] = {
    "Sigmoid": lambda beta, margin, _: pairs.log_loss(beta * margin),
    "IPO": lambda beta, _, per_token: (per_token - 1 / (2 * beta)) ** 2,
    "Hinge": lambda beta, margin, _: max(1 - beta * margin, 0.0),
}
"""The losses of one pair, as TRL has them: -log sigmoid(beta x) (eq. 7 of Rafailov et al.), (x -
1/(2 beta))^2 with x per token (eq. 17 of Azar et al.; TRL has the normalisation from its authors), max(0, 1 - beta x).
"""


class Contrasted(WithReference):
    """A `WithReference` with DPO's losses."""

    beta: float
    precompute_ref_logps: bool

    def loss_of(self, model: Network, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
        import torch

        output = self.answered(model, inputs, routed=self.aux_loss_enabled)
        log_probs = output.log_probs.sum(1)
        if self.precompute_ref_logps:
            reference = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]])
        else:
            with torch.no_grad(), self.model.disable_adapter():
                reference = self.answered(self.model, inputs).log_probs.sum(1)
        ratios = log_probs - reference
        loss = self._losses(ratios, inputs["completion_mask"]).mean()
        self._note(output, inputs, log_probs.detach(), self.beta * ratios.detach())
        return loss, output

    def _losses(self, ratios: Any, counted: Any) -> Any:
        """Of each pair.

        Args:
            ratios: log-ratios of the answers to the reference, all chosen ones first: (2 x pairs,).
            counted: which tokens are of the answers: (2 x pairs, tokens).
        """
        import torch
        from torch.nn import functional

        kind, (chosen, rejected) = self.run.plan.dpo.loss, ratios.chunk(2)
        if kind == "IPO":
            chosen, rejected = (ratios / counted.sum(1).clamp(min=1.0)).chunk(2)
            return (chosen - rejected - 1 / (2 * self.beta)) ** 2
        margins = self.beta * (chosen - rejected)
        return torch.relu(1 - margins) if kind == "Hinge" else -functional.logsigmoid(margins)

    def _note(self, output: Any, inputs: Mapping[str, Any], log_probs: Any, rewards: Any) -> None:
        import torch

        (good, bad), (chosen, rejected) = rewards.chunk(2), log_probs.chunk(2)
        numbers = {"rewards/chosen": good, "rewards/rejected": bad, "rewards/accuracies": (good > bad).float()}
        numbers |= {"rewards/margins": good - bad, "logps/chosen": chosen, "logps/rejected": rejected}
        self.keep_means(numbers)
        is_chosen = torch.arange(len(rewards), device=rewards.device) < len(good)
        counted = inputs["completion_mask"][: len(good), 1:]
        right = (output.is_top1[: len(good)] & counted.bool()).sum()
        self.keep_sums({"mean_token_accuracy": (right, counted.sum())})
        self.keep_tokens(output, inputs, is_chosen)


def arguments(plan: TrainingPlan, settings: RunSettings) -> TrainingArguments:
    """TRL's DPOConfig."""
    from trl import DPOConfig

    return DPOConfig(
        **common(plan, settings),
        beta=float(plan.dpo.beta),
        loss_type=[LOSSES[plan.dpo.loss]],
        max_length=None,  # rows were cut by the plan's policy, and counted
        precompute_ref_log_probs=not adapters.is_adapter(plan.adapter),
        remove_unused_columns=False,  # the masks of answers of several turns, which TRL does not know
    )


def build_trainer(run: Run, parts: TrainerParts) -> Loop:
    """A trainer that is ready to train."""
    from trl import DPOTrainer

    options = run.plan.dpo

    class Dpo(Contrasted, DPOTrainer):
        """TRL's DPO with our loop and rows."""

        first_loss = FORMULAS[options.loss](float(options.beta), 0.0, 0.0)

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # the ids are ready

        def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
            log_probs = self.before_training(run, {"": run.rows, **{s.name: s.rows for s in run.held_out}})
            chosen, rejected = zip(*log_probs.pop(""), strict=True)
            return dataset.add_column("ref_chosen_logps", chosen).add_column("ref_rejected_logps", rejected)

    dpo = Dpo(**parts)
    dpo.data_collator = pairs.MaskedCollator(dpo.data_collator, {"completion_mask": pairs.MASKS})
    return dpo


def score(trainer: WithReference, split: HeldOut, values: Values, poll: Poll) -> Score:
    """Loss, reward accuracy and reward margin on held-out pairs, by a model's log-probabilities of their answers. The
    reward of an answer is beta times its log-ratio to the reference, so before training every margin is 0 and the
    accuracy 0.5. The reference is the same for two models, so it drops out of the difference of their margins."""
    beta, loss = float(trainer.run.plan.dpo.beta), FORMULAS[trainer.run.plan.dpo.loss]
    reference = trainer.reference(split.name, split.rows, poll)
    ratios = [(c - rc, r - rr) for (c, r), (rc, rr) in zip(values, reference, strict=True)]
    losses = [
        loss(beta, chosen - rejected, chosen / sum(row.masks[0]) - rejected / sum(row.masks[1]))
        for (chosen, rejected), row in zip(ratios, split.rows, strict=True)
    ]
    return pairs.score(split.rows, losses, [beta * (chosen - rejected) for chosen, rejected in ratios])


COMPARED = RowMeasure(
    lambda run, model, split, poll: pairs.log_probs(run, model, split.rows, poll), score, needs="reference"
)
METHOD = TrainingMethod(
    encoder=pairs.encoder,
    dataset=pairs.build_dataset,
    arguments=arguments,
    trainer=build_trainer,
    score=COMPARED.of_trained,
    compared=COMPARED,
    metrics=pairs.METRICS,
    logged=pairs.LOGGED,
)
