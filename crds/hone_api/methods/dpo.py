"""Direct preference optimisation (DPO): its options, and what is known of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hone_api.base.meta import ApiModel, Decimal
from hone_api.dataset.dataset import Format
from hone_api.methods.info import Method, MethodInfo, Rates


class DpoMethod(ApiModel):
    """Direct preference optimisation (Rafailov et al. 2023) and its relatives."""

    loss: Literal["Sigmoid", "IPO", "Hinge"] = Field(default="Sigmoid", description="Loss, e.g. Sigmoid.")
    beta: Decimal = Field(default="0.1", description="Strength of the pull towards the reference, e.g. '0.1'.")


class InSpec(ApiModel):
    """Its block in the spec of a FineTuneJob."""

    dpo: DpoMethod | None = Field(default=None, description="Options of method DPO.")


class InPlan(ApiModel):
    """Its block in a plan."""

    dpo: DpoMethod = Field(default_factory=DpoMethod)


INFO = MethodInfo(
    Method.DPO,
    (Format.PREFERENCE,),
    Rates(adapter=5e-6, full=5e-7),
    encodes="Pairs",
    paired=True,
    row_by_row=True,
    compares=True,
)
