"""Refusals of the API server: whether it may accept the object later, and what the status says."""

from collections.abc import Sequence
from typing import Any

from hone_api.words.failures import FailureCode
from hone_operator.desired.core.platform import Platform
from hone_operator.reconcile.core.failures import Cause
from hone_operator.reconcile.core.outcome import Refusal

INVALID = 422
ADMISSION = ("ValidatingAdmissionPolicy", "admission webhook")
"""Messages of admission, whose rules somebody may change; an invalid field stays invalid."""


def refusal(body: dict[str, Any], status: int, message: str) -> Refusal:
    """Classify a 403 or 422 of the API server to a create."""
    quota = "exceeded quota" in message
    final = status == INVALID and not quota and not any(words in message for words in ADMISSION)
    return Refusal(
        body["kind"],
        body["metadata"]["name"],
        FailureCode.QUOTA_EXCEEDED if quota else FailureCode.CREATE_REFUSED,
        message,
        final,
    )


def final_refusal(refusals: Sequence[Refusal]) -> Cause | None:
    """Why another attempt cannot help: the API server calls a field invalid, and the spec is immutable."""
    for each in refusals:
        if each.final:
            return Cause(FailureCode.CREATE_REFUSED, f"The API server refuses {each.kind} {each.name}: {each.message}")
    return None


def storage_note(nodes: int, platform: Platform) -> str:
    """Advice about the store before a run of several nodes; empty if there is none."""
    if nodes == 1 or platform.store.access_mode == "ReadWriteMany":
        return ""
    return (
        f"The store {platform.store.claim_name} is ReadWriteOnce: all {nodes} pods must fit on one node, else they "
        "wait. Use spec.resources.nodes 1, or a storage class with ReadWriteMany (store.accessMode of the chart)."
    )


def shared_store_problem(pods: int, platform: Platform) -> str | None:
    """Why the pods of a Dataset cannot share their work by this store."""
    if pods == 1 or platform.store.access_mode == "ReadWriteMany":
        return None
    return (
        f"spec.resources.pods {pods}: the store {platform.store.claim_name} is {platform.store.access_mode}, so pods "
        "on other nodes cannot use it; use 1 pod with more resources.cpu, or a storage class with ReadWriteMany "
        "(store.accessMode of the chart)"
    )


def storage_problem(nodes: int, platform: Platform) -> str | None:
    """Why this store can never serve a run of so many nodes."""
    if nodes == 1 or platform.store.access_mode != "ReadWriteOncePod":
        return None
    return (
        f"spec.resources.nodes {nodes}: the store {platform.store.claim_name} is ReadWriteOncePod and serves one pod "
        "at a time; use 1 node, or a storage class with ReadWriteMany (store.accessMode of the chart)"
    )
