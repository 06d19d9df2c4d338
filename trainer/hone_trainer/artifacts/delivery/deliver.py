"""`python -m hone_trainer deliver`: one artifact to where the plan says."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hone_api.base.schemes import scheme_of
from hone_api.contract.report import DeliverResult
from hone_api.plan import DeliverPlan
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.delivery import bucket, hub_repository, image, volume
from hone_trainer.artifacts.delivery.original import Original
from hone_trainer.endpoints.http import Resolver, resolve
from hone_trainer.errors import SourceError, TrainerError
from hone_trainer.reporting.transfer import TransferProgress
from hone_trainer.store.deadline import Deadline
from hone_trainer.store.ranged import SLOWEST

_OF_DESTINATION = {
    FailureCode.SOURCE_UNREACHABLE: FailureCode.DESTINATION_UNREACHABLE,
    FailureCode.SOURCE_REFUSED: FailureCode.DESTINATION_REFUSED,
    FailureCode.SOURCE_NOT_FOUND: FailureCode.DESTINATION_DENIED,
    FailureCode.GATED_MODEL_ACCESS_DENIED: FailureCode.DESTINATION_DENIED,
}
"""The same rules of addresses, applied to where bytes go."""
_Deliver = Callable[[DeliverPlan, Original, Callable[[int], None], Deadline, Resolver], DeliverResult]
DELIVER: Mapping[str, _Deliver] = {
    "hf": lambda plan, original, sent, deadline, _: hub_repository.deliver(plan, original, sent, deadline),
    "oci": lambda plan, original, sent, deadline, by: image.deliver(plan, original, sent, deadline.until, by),
    "s3": lambda plan, original, sent, deadline, by: bucket.deliver(plan, original, sent, deadline.until, by),
    "pvc": lambda plan, original, sent, *_: volume.deliver(plan, original, sent),
}
"""By scheme of the target."""


def run(plan: DeliverPlan, resolver: Resolver = resolve) -> DeliverResult:
    """Deliver the plan's artifact.

    Raises:
        TrainerError: Destination…, DeliveryDamaged, ManifestMismatch, SignatureMissing, SignatureInvalid,
            SecretNotFound or SecretKeyNotFound.
    """
    original = Original.of(plan.artifact.path, plan.artifact.digest, plan.artifact.trusted)
    deadline = Deadline.after(max(plan.limits.timeout_seconds, original.size_bytes / SLOWEST))
    with TransferProgress(f"deliver {plan.name} to {plan.target.uri}", original.size_bytes) as progress:
        try:
            result = DELIVER[scheme_of(plan.target.uri)](plan, original, progress.add_bytes, deadline, resolver)
        except SourceError as error:
            code = _OF_DESTINATION.get(error.code, error.code)
            raise TrainerError(code, error.message) from None
        sent = f"{result.uploaded_bytes:,} of {result.size_bytes:,} bytes were sent, the rest was there"
        progress.log(f"{result.location}: every byte matches; {sent}")
    return result
