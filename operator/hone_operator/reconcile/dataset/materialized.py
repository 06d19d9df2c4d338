"""The result of a materializing pod, for a Dataset's status."""

from typing import Any

from hone_api.contract.privacy import hide_rows
from hone_api.contract.report import DatasetResult
from hone_api.contract.status_json import ReviewPodJson
from hone_api.dataset.dataset_status import DatasetStatus
from hone_api.dataset.synthesis import ReviewPod
from hone_api.words.rowcodes import ROW_CODES
from hone_api.words.states import DatasetPhase
from hone_operator.desired.core.platform import Platform
from hone_operator.reconcile.core.outcome_builder import DatasetBuilder, as_json

_SERVED = {"digest", "split_settings", "size_bytes"}
"""Of content that jobs may use; a result without it, such as a failure, keeps those of the last content."""
FINDINGS = [
    str(field.alias)
    for name, field in DatasetStatus.model_fields.items()
    if name in DatasetResult.model_fields and name not in {*_SERVED, "report"}
]
"""What a pod reports and the status shows unchanged: each field that both have."""


def describe(builder: DatasetBuilder, result: DatasetResult, platform: Platform) -> None:
    """Set rows, errors, statistics, and the location of the report."""
    if not platform.privacy.rows_in_status:  # from a pod that started before the setting changed
        result = result.model_copy(deep=True)
        hide_rows(result)
    values = result.to_json()
    for error in values.get("errors", ()):
        if row_code := ROW_CODES.get(error["code"]):
            error["hint"] = row_code.hint
    report = f"pvc://{platform.store.claim_name}/{result.report}" if result.report else None
    builder.put(report=report, reviewPod=pod_of_people(platform))
    findings: Any = {name: values.get(name) for name in FINDINGS}
    builder.put(**findings)


def pod_of_people(platform: Platform) -> ReviewPodJson:
    """The pod for rows, reviews and uploads, by the platform's settings alone: people create it with their rights."""
    pod: ReviewPodJson = as_json(ReviewPod(**platform.pod_image().model_dump(), claim=platform.store.claim_name))
    return pod


def serve(builder: DatasetBuilder, result: DatasetResult, platform: Platform) -> None:
    """Set the content that jobs use from now on."""
    path = (result.path or "").strip("/")
    builder.put(
        digest=result.digest, uri=f"pvc://{platform.store.claim_name}/{path}", failure=None, phase=DatasetPhase.READY
    )
    builder.put(splitSettings=result.split_settings, sizeBytes=result.size_bytes)
