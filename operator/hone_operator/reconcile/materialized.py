"""The result of a materializing pod, for a Dataset's status."""

from typing import Any

from hone_api.privacy import hide_rows
from hone_api.report import DatasetResult
from hone_api.rowcodes import ROW_CODES
from hone_api.states import DatasetPhase
from hone_api.synthesis import ReviewPod
from hone_operator.desired.platform import Platform
from hone_operator.reconcile.draft import Draft

RESULT_FIELDS = (
    "summary",
    "advice",
    "rows",
    "splits",
    "rejected",
    "errors",
    "duplicates",
    "curation",
    "tokens",
    "languages",
    "formatDetected",
    "revision",
    "synthetic",
    "mixture",
    "changes",
    "croissant",
    "sourceVersion",
)


def describe(draft: Draft, result: DatasetResult, platform: Platform) -> None:
    """Set rows, errors, statistics, and the location of the report."""
    if not platform.rows_in_status:  # from a pod that started before the setting changed
        result = result.model_copy(deep=True)
        hide_rows(result)
    values = result.to_json()
    for error in values.get("errors", ()):
        if known := ROW_CODES.get(error["code"]):
            error["hint"] = known.hint
    report = f"pvc://{platform.store_claim}/{result.report}" if result.report else None
    draft.put(report=report, reviewPod=_review_pod(result, platform))
    draft.put(**{name: values.get(name) for name in RESULT_FIELDS})


def _review_pod(result: DatasetResult, platform: Platform) -> dict[str, Any] | None:
    """The review pod, built from the platform's settings only: reviewers create it with their own rights."""
    if not result.synthetic:
        return None
    return ReviewPod(
        image=platform.trainer_image,
        image_pull_policy=platform.image_pull_policy,
        image_pull_secrets=list(platform.image_pull_secrets),
        claim=platform.store_claim,
    ).to_json()


def serve(draft: Draft, result: DatasetResult, platform: Platform) -> None:
    """Set the content that jobs use from now on."""
    path = (result.path or "").strip("/")
    draft.put(digest=result.digest, uri=f"pvc://{platform.store_claim}/{path}", failure=None, phase=DatasetPhase.READY)
    draft.put(splitSettings=result.split_settings, sizeBytes=result.size_bytes)
