"""`python -m hone_trainer validate --model`: a first plan for the rows, whose needs are then printed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hone_api.contract.report import DatasetResult
from hone_api.methods import METHODS, Method, simple_method
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.errors import ConfigError
from hone_trainer.store import contents

NAME = "plan.json"


def write(folder: Path, model: Path, result: DatasetResult) -> Path:
    """Write a plan into the folder of the rows: LoRA with the defaults of the method, for people to change.

    Args:
        folder: what `validate --out` kept.
        model: folder of the base model.

    Returns:
        The file.

    Raises:
        ConfigError: FileNotFound without a model there; InvalidArgument for rows whose method needs more than a model.
    """
    if not (model / "config.json").is_file():
        what = "the folder has no config.json" if model.is_dir() else "there is no such folder"
        way_out = f"--model takes a local folder, e.g. after: hf download {model} --local-dir base"
        raise ConfigError(f"--model {model}: {what}. {way_out}", FailureCode.FILE_NOT_FOUND)
    splits = [name for name in contents.SPLITS if (folder / f"{name}.jsonl").is_file()]
    rows = {name: _split(folder / f"{name}.jsonl") for name in splits}
    plan: dict[str, Any] = {
        "kind": "Training",
        "run": "laptop",
        "method": method_of(result),
        "modelPath": str(model.absolute()),
        "modelUri": model.name,
        "datasets": [rows["train"]],
        "evaluationDatasets": [rows["validation"]] if "validation" in rows else [],
        "output": {"modelName": "laptop"},
        "workPath": "work",
        "outputPath": "out",
    }
    TrainingPlan.model_validate(plan)
    file = folder / NAME
    file.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
    return file


def method_of(result: DatasetResult) -> Method:
    """The first simple method that learns from rows of this format.

    Raises:
        ConfigError: InvalidArgument.
    """
    name = (result.format_detected or "").partition(" ")[0]
    if method := simple_method(name):
        return method
    takers = ", ".join(taker for taker, info in METHODS.items() if name in info.formats)
    raise ConfigError(
        f"--model: rows of format {name} are for {takers}, which need more than a model: write a plan by hand, see "
        "docs/guides/estimate.md",
        FailureCode.INVALID_ARGUMENT,
    )


def _split(file: Path) -> dict[str, str]:
    """As the plan names it, relative to the plan's own folder."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"name": "rows", "split": file.stem, "path": file.name, "digest": f"sha256:{digest}"}
