"""Plans of the Jobs that import, verify and sign a model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hone_api.base.meta import Name
from hone_api.blocks.imports import ModelImport
from hone_api.plan.fields import (
    BILL,
    ArtifactInput,
    DatasetInput,
    ExportFolder,
    ModelInput,
    NetworkPlan,
    PlanFields,
)
from hone_api.plan.plan_paths import PlanPath


class VerifyPlan(PlanFields):
    """Re-hash every file against its manifest."""

    kind: Literal["Verify"] = "Verify"
    name: str
    artifacts: Annotated[list[ArtifactInput], Field(min_length=1)]


class SignPlan(PlanFields):
    """Describe artifacts whose files were verified, and sign them."""

    kind: Literal["Sign"] = "Sign"
    name: str
    artifacts: Annotated[list[ArtifactInput], Field(min_length=1)]
    key_path: PlanPath | None = Field(
        default=None,
        description="Folder of a Secret with private-key.pem; none: somebody else signs, which is checked.",
    )
    provenance: dict[str, Any] = Field(description="Predicate of the in-toto statement, SLSA provenance 1.0.")
    bom: dict[str, Any] | None = BILL


class ImportPlan(NetworkPlan):
    """Copies a foreign model to `store`/models/`folder`, after checking it; for an adapter its base too."""

    kind: Literal["Import"] = "Import"
    name: Name = Field(description="Model, for messages.")
    source: ModelImport
    source_volume: PlanPath | None = Field(default=None, description="Where the claim of a pvc:// source is mounted.")
    base_volume: PlanPath | None = Field(default=None, description="Where the claim of a pvc:// base is mounted.")
    secret_path: PlanPath | None = Field(default=None, description="Folder where source.secretName is mounted.")
    base_secret_path: PlanPath | None = Field(default=None, description="Folder where base.secretName is mounted.")
    rows: DatasetInput | None = Field(default=None, description="Rows of source.evaluation; none: nothing is scored.")
    store: PlanPath = Field(description="Path of the store.")
    folder: ExportFolder


class MeasurePlan(PlanFields):
    """Measures a finished model on rows, as its own run did, and next to another version where one is named."""

    kind: Literal["Measure"] = "Measure"
    name: Name = Field(description="ModelVersion, for messages.")
    model: ModelInput
    base_path: PlanPath | None = Field(
        default=None, description="Folder of the base of a merged or full model; none: it is not measured."
    )
    rows: DatasetInput
    max_rows: int = Field(ge=1, description="Rows used, in file order.")
    against: ModelInput | None = Field(default=None, description="The other version; none: with the base alone.")
