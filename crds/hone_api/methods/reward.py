"""Reward models: its options, and what is known of it."""

from __future__ import annotations

from pydantic import Field

from hone_api.base.meta import ApiModel, Decimal
from hone_api.dataset.dataset import Format
from hone_api.methods.info import Method, MethodInfo, Rates


class RewardMethod(ApiModel):
    """Reward model training."""

    center_rewards: Decimal | None = Field(
        default=None,
        description="Coefficient that pulls the mean of the rewards towards zero, e.g. '0.01'; default: none.",
    )


class InSpec(ApiModel):
    """Its block in the spec of a FineTuneJob."""

    reward: RewardMethod | None = Field(default=None, description="Options of method Reward.")


class InPlan(ApiModel):
    """Its block in a plan."""

    reward: RewardMethod = Field(default_factory=RewardMethod)


INFO = MethodInfo(
    Method.REWARD,
    (Format.PREFERENCE,),
    Rates(adapter=1e-4, full=1e-5),
    encodes="Pairs",
    paired=True,
    row_by_row=True,
    compares=True,
)
