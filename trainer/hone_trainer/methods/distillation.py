"""Distillation: SFT on the answers of a teacher, which `hone_trainer.teacher` has put in the place of the rows' own."""

from __future__ import annotations

from dataclasses import replace

from hone_api.plan import TrainingPlan
from hone_trainer.encode import Encoder
from hone_trainer.methods import sft
from hone_trainer.model import Base


def encoder(plan: TrainingPlan, base: Base) -> Encoder:
    """Of a conversation the last turn is the teacher's."""
    return Encoder(base.tokenizer, "LastAssistant")


METHOD = replace(sft.METHOD, encoder=encoder)
