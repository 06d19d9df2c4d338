"""Odds-ratio preference optimisation (ORPO): its options, and what is known of it."""

from __future__ import annotations

from pydantic import Field

from hone_api.base.meta import ApiModel, Decimal
from hone_api.dataset.dataset import Format
from hone_api.methods.info import Method, MethodInfo, Rates


class OrpoMethod(ApiModel):
    """Odds-ratio preference optimisation (Hong et al. 2024)."""

    weight: Decimal = Field(default="0.1", description="Weight of the odds-ratio term, e.g. '0.1'.")


class InSpec(ApiModel):
    """Its block in the spec of a FineTuneJob."""

    orpo: OrpoMethod | None = Field(default=None, description="Options of method ORPO.")


class InPlan(ApiModel):
    """Its block in a plan."""

    orpo: OrpoMethod = Field(default_factory=OrpoMethod)


INFO = MethodInfo(
    Method.ORPO,
    (Format.PREFERENCE,),
    Rates(adapter=5e-5, full=5e-6),
    encodes="Pairs",
    paired=True,
    compares=True,
)
