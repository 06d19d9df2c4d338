"""Lookup: which commit a branch or tag of the hub names at present. Nothing is downloaded."""

from __future__ import annotations

from hone_api.contract.report import LookupResult
from hone_api.plan import LookupPlan
from hone_trainer.store import hub
from hone_trainer.store.deadline import Deadline


def run(plan: LookupPlan) -> LookupResult:
    """Ask the hub once.

    Raises:
        SourceError: ModelNotFound, GatedModelAccessDenied, RevisionNotFound, SourceUnreachable, SecretNotFound,
            SecretKeyNotFound.
    """
    deadline = Deadline.after(plan.limits.timeout_seconds)
    repository = hub.Repository.parse(plan.uri, "model", hub.token_of(plan.secret_path), deadline)
    return LookupResult(commit=hub.commit_of(repository))
