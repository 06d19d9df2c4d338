"""Supervised fine-tuning (SFT): its options, and what is known of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hone_api.base.meta import ApiModel, Decimal
from hone_api.dataset.dataset import Format
from hone_api.methods.info import ANSWERS, Method, MethodInfo, Rates


class SftMethod(ApiModel):
    """Supervised fine-tuning: which tokens count in the loss."""

    train_on: Literal["Assistant", "LastAssistant"] = Field(
        default="Assistant",
        description="Assistant: every assistant turn or completion counts; LastAssistant: only the last turn.",
    )
    neftune_alpha: Decimal | None = Field(
        default=None, description="NEFTune noise on embeddings, e.g. 5 or '7.5'; default: none."
    )


class InSpec(ApiModel):
    """Its block in the spec of a FineTuneJob."""

    sft: SftMethod | None = Field(default=None, description="Options of method SFT.")


class InPlan(ApiModel):
    """Its block in a plan."""

    sft: SftMethod = Field(default_factory=SftMethod)


INFO = MethodInfo(
    Method.SFT,
    (*ANSWERS, Format.TEXT),
    Rates(adapter=2e-4, full=2e-5),
    row_by_row=True,
    by_tokens=True,
)
