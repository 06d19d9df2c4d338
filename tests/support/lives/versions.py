"""Specs of ModelVersions."""

from typing import Any


def version_spec(
    form: str, uri: str, digest: str, number: int = 1, model: str = "tutor", **lineage: Any
) -> dict[str, Any]:
    """The spec of a version with one artifact.

    Args:
        digest: one digit, which is repeated.
        lineage: what the lineage has in place of what all have.
    """
    made = {"baseModel": {"uri": "hf://org/model"}, "datasets": [], "job": {"name": "earlier", "uid": "earlier"}}
    made |= {"method": "SFT", "hyperParameters": {}, "seed": 1, **lineage}
    artifact = {"format": form, "uri": uri, "digest": "sha256:" + digest * 64, "sizeBytes": 1}
    return {"modelName": model, "version": number, "artifacts": [artifact], "lineage": made}


def adapter_version(number: int) -> dict[str, Any]:
    """The spec of a version of the model tutor that vLLM loads as an adapter."""
    job = f"earlier-{number}"
    return version_spec(
        "Adapter",
        f"pvc://hone-store/models/{job}/1/adapter",
        str(number),
        number,
        baseModel={"uri": "hf://org/model", "location": "pvc://hone-store/base-models/x"},
        job={"name": job, "uid": job},
        hyperParameters={"adapter": {"type": "LoRA", "rank": 8}},
    )
