"""ModelVersions that vLLM loads as adapters."""

from typing import Any


def adapter_version(number: int) -> dict[str, Any]:
    """The spec of a version of the model tutor."""
    lineage = {
        "baseModel": {"uri": "hf://org/model", "location": "pvc://hone-store/base-models/x"},
        "datasets": [],
        "job": {"name": f"earlier-{number}", "uid": f"earlier-{number}"},
        "method": "SFT",
        "hyperParameters": {"adapter": {"type": "LoRA", "rank": 8}},
        "seed": 1,
    }
    uri = f"pvc://hone-store/models/earlier-{number}/1/adapter"
    artifact = {"format": "Adapter", "uri": uri, "digest": "sha256:" + str(number) * 64, "sizeBytes": 1}
    return {"modelName": "tutor", "version": number, "artifacts": [artifact], "lineage": lineage}
