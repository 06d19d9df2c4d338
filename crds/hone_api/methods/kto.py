"""Kahneman-Tversky optimisation (KTO): its options, and what is known of it."""

from __future__ import annotations

from pydantic import Field

from hone_api.base.meta import ApiModel, Decimal
from hone_api.dataset.dataset import Format
from hone_api.methods.info import Method, MethodInfo, Rates


class KtoMethod(ApiModel):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024)."""

    beta: Decimal = Field(default="0.1", description="Strength of the pull towards the reference, e.g. '0.1'.")


class InSpec(ApiModel):
    """Its block in the spec of a FineTuneJob."""

    kto: KtoMethod | None = Field(default=None, description="Options of method KTO.")


class InPlan(ApiModel):
    """Its block in a plan."""

    kto: KtoMethod = Field(default_factory=KtoMethod)


INFO = MethodInfo(
    Method.KTO,
    (Format.KTO, Format.PREFERENCE),
    Rates(adapter=5e-6, full=5e-7),
    encodes="Judged",
    compares=True,
)
