"""Domain-adaptive pre-training (DAPT): its options, and what is known of it."""

from __future__ import annotations

from pydantic import Field

from hone_api.base.meta import ApiModel
from hone_api.dataset.dataset import Format
from hone_api.methods.info import Method, MethodInfo, Rates


class DaptMethod(ApiModel):
    """Domain-adaptive pre-training on plain text; every token counts."""

    pack: bool = Field(default=True, description="Whether documents are packed, with EOS between; default true.")


class InSpec(ApiModel):
    """Its block in the spec of a FineTuneJob."""

    dapt: DaptMethod | None = Field(default=None, description="Options of method DAPT.")


class InPlan(ApiModel):
    """Its block in a plan."""

    dapt: DaptMethod = Field(default_factory=DaptMethod)


INFO = MethodInfo(
    Method.DAPT,
    (Format.TEXT,),
    Rates(adapter=2e-4, full=2e-5),
    encodes="Documents",
    row_by_row=True,
    by_tokens=True,
)
