"""The plan that a model was made by: one document in its record, and the dozen values that people look for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from hone_api import API_VERSION
from hone_api.base.meta import MAX_COUNT, ApiModel, Digest, ShortText

PLACES = frozenset(
    {
        "release",
        "modelPath",
        "modelLicense",
        "modelAdapter",
        "modelTrusted",
        "models",
        "workPath",
        "outputPath",
        "exportFolder",
        "masterAddress",
        "metricsPort",
        "tracking",
        "comparedWith",
        "comparedModel",
        "failureInterval",
        "learningRateHalvings",
        "hangTimeout",
        "microBatchLimit",
    }
)
"""Fields of a plan that say where and with which release a run happened, not what it was."""
MAX_TEXT = 32_768


class PlanRecord(ApiModel):
    """The resolved plan of a run as one document. Its fields are not fields of this API."""

    version: ShortText = Field(description="API version of the document, e.g. hone.dev/v1alpha1.")
    digest: Digest = Field(description="SHA-256 of the document: JSON with sorted keys and without spaces.")
    text: Annotated[str, StringConstraints(max_length=MAX_TEXT)] | None = Field(
        default=None,
        description="The document: fields of a FineTuneJob, and in resolved the values that the trainer chose. Absent "
        f"if it has more than {MAX_TEXT} characters, or if 16 stages would be too large together.",
    )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> PlanRecord:
        """The document of a plan's values."""
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        return cls(version=API_VERSION, digest=digest, text=text if len(text) <= MAX_TEXT else None)


class StageSettings(ApiModel):
    """What people look for in a plan. All values are those that the run had, also where the trainer chose them."""

    adapter_type: ShortText | None = Field(default=None, description="LoRA, QLoRA or DoRA; absent: all weights.")
    adapter_rank: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Rank of the adapter.")
    learning_rate: ShortText | None = Field(default=None, description="Peak learning rate, decimal string.")
    batch_size: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Rows per optimiser step over all ranks."
    )
    epochs: ShortText | None = Field(default=None, description="Passes over the rows, decimal string.")
    max_steps: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Optimiser steps, if the job set them and not epochs."
    )
    max_length: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Tokens per row.")
    precision: ShortText | None = Field(default=None, description="Float32 or BFloat16, or Auto.")
    thinking: ShortText | None = Field(
        default=None, description="Prompts that the model was trained on: Auto, Enabled or Disabled."
    )
    nodes: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Pods of the attempt that finished.")
    ranks_per_node: int | None = Field(default=None, ge=0, le=MAX_COUNT, description="Ranks of each pod, one per GPU.")
    zero_stage: int | None = Field(
        default=None, ge=0, le=MAX_COUNT, description="Stage of DeepSpeed's ZeRO; absent without DeepSpeed."
    )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> StageSettings:
        """The settings in a plan's values; a value of another form, from another version of Hone, is left out."""
        training, resolved = _object(values, "training"), _object(values, "resolved")
        kind = _object(values, "adapter").get("type")
        has_adapter = isinstance(kind, str) and kind != "None"
        return cls(
            adapter_type=kind if has_adapter else None,
            adapter_rank=_integer(resolved.get("adapterRank") or _object(values, "adapter").get("rank")),
            learning_rate=_text(resolved.get("learningRate") or training.get("learningRate")),
            batch_size=_integer(training.get("batchSize")),
            epochs=_text(training.get("epochs")),
            max_steps=_integer(training.get("maxSteps")),
            max_length=_integer(resolved.get("maxLength") or training.get("maxLength")),
            precision=_text(resolved.get("precision") or training.get("precision")),
            thinking=_text(training.get("thinking")),
            nodes=_integer(values.get("nodes")),
            ranks_per_node=_integer(values.get("processesPerNode")),
            zero_stage=_integer(_object(values, "deepspeed").get("zeroStage")),
        )


def values_of(lineage: Mapping[str, Any]) -> Mapping[str, Any]:
    """The plan's values in the JSON of a stage; empty if they are not there.

    A record from before `plan` has them in hyperParameters. A record is read as it is, whoever wrote it.
    """
    text = _object(lineage, "plan").get("text")
    if isinstance(text, str):
        return _parsed(text)
    settings = _object(lineage, "settings")
    if kind := settings.get("adapterType"):
        adapter = {"type": kind, "rank": settings.get("adapterRank")}
        return {"adapter": adapter, "training": {"thinking": settings.get("thinking", "Auto")}}
    return _object(lineage, "hyperParameters")


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Mapping[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _object(node: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = node.get(name)
    return value if isinstance(value, dict) else {}


def _integer(value: Any) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number <= MAX_COUNT else None


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, dict | list) else str(value)[:253]
