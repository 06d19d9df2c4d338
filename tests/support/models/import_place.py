"""Where a model is imported from and to, and what an import is refused with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hone_api.plan import ImportPlan
from hone_trainer.artifacts.importing import importing
from hone_trainer.errors import TrainerError

CARD = "---\nlicense: apache-2.0\n---\n# Tutor\n"
FOLDER = "import-1/files"


class Place:
    """A volume with a copy of a model, and a store."""

    def __init__(self, tmp_path: Path, model: Path, base: Path) -> None:
        self.folder = tmp_path
        self.volume, self.store, self.base = tmp_path / "volume", tmp_path / "store", base
        self.model = shutil.copytree(model, self.volume / "model")

    def plan(self, uri: str = "pvc://files/model", base: str | None = "pvc://bases/base", **fields: Any) -> ImportPlan:
        source = {"uri": uri, **({"base": {"uri": base}} if base else {}), **fields.pop("source", {})}
        return ImportPlan.model_validate(
            {
                "name": "tutor",
                "source": source,
                "sourceVolume": str(self.volume),
                "baseVolume": str(self.base.parent),
                "store": str(self.store),
                "folder": FOLDER,
                "limits": {"allowPrivateAddresses": True},
                **fields,
            }
        )

    @property
    def stored(self) -> Path:
        return self.store / "models" / FOLDER

    def nothing_appeared(self) -> bool:
        """Whether nothing in the store looks like a model."""
        return not list(self.stored.glob("*/manifest.json"))

    def edit(self, **fields: Any) -> None:
        """Change adapter_config.json at the source."""
        file = self.model / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def refused(plan: ImportPlan) -> tuple[str, str]:
    with pytest.raises(TrainerError) as caught:
        importing.run(plan)
    return str(caught.value.code), caught.value.message
