"""The interface between a fine-tuning method and the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from hone_trainer.scoring.early_stopping import Goal

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import TrainerCallback, TrainingArguments

    from hone_api.plan import TrainingPlan
    from hone_trainer.encoding.split_file import Example, RecordEncoder
    from hone_trainer.models.base_model import Base, Head
    from hone_trainer.models.network import Generating
    from hone_trainer.scoring.heldout import HeldOut
    from hone_trainer.scoring.row_measure import Poll, RowMeasure
    from hone_trainer.scoring.scores import Best, Score
    from hone_trainer.training.loop import Loop, Run
    from hone_trainer.training.settings import RunSettings


def _nothing_more(plan: TrainingPlan, base: Base) -> None:
    """The check of a method that needs nothing besides what every method needs."""


class TrainerParts(TypedDict):
    """The keyword arguments that the libraries' trainers have in common."""

    model: Generating
    args: Any
    train_dataset: Any
    processing_class: Any
    peft_config: PeftConfig | None
    callbacks: list[TrainerCallback]


@dataclass(frozen=True)
class TrainingMethod:
    """One method. The pipeline calls the fields from top to bottom."""

    encoder: Callable[[TrainingPlan, Base], RecordEncoder[Example]]
    """Records of the materialized splits to examples."""
    dataset: Callable[[TrainingPlan, Sequence[Any], int], Any]
    """Plan, examples, tokens of the longest sequence -> a `datasets.Dataset` as the trainer takes it."""
    arguments: Callable[[TrainingPlan, RunSettings], TrainingArguments]
    """The library's configuration; made before the model is loaded, since ZeRO-3 shards weights while loading."""
    trainer: Callable[[Run, TrainerParts], Loop]
    """The `Loop` of a run; the pipeline attaches the run to it."""
    score: Callable[[Any, HeldOut, Poll], Score]
    """Trainer, held-out split, poll -> the score of the model as it is. A collective."""
    compared: RowMeasure
    """What it measures of the version in `evaluation.against`. Metrics that its score does not have are not
    compared."""
    metrics: Mapping[str, Best]
    """Metrics of `score` that are reported, each with its good end. The first decides which step is the best."""
    repeats: Callable[[TrainingPlan], int] = lambda _: 1
    """How often an epoch uses each example: several answers are sampled for a prompt."""
    logged: Mapping[str, str] = field(default_factory=dict)
    """Names in the library's logs -> names of metrics that are reported during training, in addition to the loss."""
    length: int | None = None
    """Tokens of a sequence when the plan names none; None: those of the longest row."""
    head: Head = "LanguageModel"
    """What the trained model ends in."""
    training_only: str | None = None
    """Name of a module that only training needs: it is left out of what is exported."""
    by_tokens: bool = False
    """Whether passes are filled by tokens, if the model's attention allows it: a step's loss does not depend on which
    rows share a pass, and nothing of a pass is held for padded rows."""
    check: Callable[[TrainingPlan, Base], object] = _nothing_more
    """Checked before the first step besides what every method needs; raises TrainerError."""
    samples: bool = True
    """Whether base and tuned model answer held-out prompts for the report."""

    def longest(self, base: Base) -> int | None:
        """Tokens of a sequence when the plan names none; None: those of the longest row."""
        return min(self.length, base.context) if self.length else None

    @property
    def goal(self) -> Goal:
        """By what the best step is chosen."""
        return Goal(*next(iter(self.metrics.items())))
