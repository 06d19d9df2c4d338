"""oci:// targets: an image (see `modelcar`), the manifest last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from hone_api.contract.manifest import BOM, PROVENANCE
from hone_api.contract.report import DeliverResult
from hone_api.plan import DeliverPlan
from hone_api.words.failures import FailureCode
from hone_trainer.artifacts import describe
from hone_trainer.artifacts.delivery import at_once, attachments, modelcar
from hone_trainer.artifacts.delivery.base_image import BaseImage
from hone_trainer.artifacts.delivery.login import login_of
from hone_trainer.artifacts.delivery.original import Original
from hone_trainer.artifacts.delivery.package import Blob, Descriptor, Package, described, digest_of
from hone_trainer.artifacts.delivery.registry import MANIFEST_TYPE, ImageRepository
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.http import Resolver
from hone_trainer.errors import TrainerError


def deliver(
    plan: DeliverPlan, original: Original, progress: Callable[[int], None], until: float, resolver: Resolver
) -> DeliverResult:
    """Upload the layers that the repository lacks, then config and manifest.

    Raises:
        TrainerError: Destination…, DeliveryDamaged, SecretNotFound, SecretKeyNotFound.
        StoreError: ManifestMismatch, of the original.
    """
    host, _, path = plan.target.uri.removeprefix("oci://").partition("/")
    name, _, tag = path.partition(":")
    tag = tag or f"v{plan.version}"
    repository = ImageRepository(host, name, network_of(plan), login_of(plan.secret_path, host), until, resolver)
    existing = repository.manifest(tag)  # before the layers are sent: an occupied tag is refused at once
    package = _package(plan, original, repository)
    text, digest = package.manifest, digest_of(package.manifest)
    _check_free(repository, tag, existing, digest)
    sent = sum(at_once.each(partial(_send, repository, progress), package.layers))
    _upload(repository, described(package.config_type, package.config), lambda: iter((package.config,)))
    existing = existing or _own(repository, tag, digest)  # the layers may have taken hours
    attachments.attach(repository, described(MANIFEST_TYPE, text), _attached(plan, f"{host}/{name}", digest))
    if not (existing or _own(repository, tag, digest)):  # a registry with immutable tags takes it once
        repository.put_manifest(tag, text)
    stored = repository.manifest(tag)
    if stored is None or stored[1] != text:
        raise TrainerError(FailureCode.DELIVERY_DAMAGED, f"{repository}:{tag} is not the manifest that was sent")
    return DeliverResult(
        location=f"oci://{host}/{name}@{digest}", digest=digest, size_bytes=original.size_bytes, uploaded_bytes=sent
    )


def _package(plan: DeliverPlan, original: Original, repository: ImageRepository) -> Package:
    if not plan.target.base_image:
        return modelcar.package(plan, original)
    name, _, digest = plan.target.base_image.partition("/")[2].partition("@")
    return modelcar.package(plan, original, BaseImage.read(repository.sibling(name), digest))


def _own(repository: ImageRepository, tag: str, digest: str) -> tuple[str, bytes] | None:
    """Our manifest under the tag; None while the tag is free. Raises TrainerError DestinationOccupied."""
    existing = repository.manifest(tag)
    _check_free(repository, tag, existing, digest)
    return existing


def _check_free(repository: ImageRepository, tag: str, existing: tuple[str, bytes] | None, digest: str) -> None:
    """Raises TrainerError DestinationOccupied if the tag is that of another image."""
    if existing is not None and digest_of(existing[1]) != digest:
        raise TrainerError(FailureCode.DESTINATION_OCCUPIED, f"{repository}:{tag} is another image: {existing[0]}")


def _attached(plan: DeliverPlan, name: str, digest: str) -> list[attachments.Attachment]:
    """The statement about the image, and the bill of materials of its model."""
    documents = []
    if plan.provenance is not None:
        statement = describe.statement({name: digest.removeprefix("sha256:")}, plan.provenance)
        documents.append(attachments.Attachment("application/vnd.in-toto+json", PROVENANCE, statement))
    if plan.bom is not None:
        bill = describe.bill(describe.digests(plan.artifact), plan.bom)
        documents.append(attachments.Attachment("application/vnd.cyclonedx+json", BOM, bill))
    return documents


def _upload(repository: ImageRepository, descriptor: Descriptor, content: Callable[[], Iterator[bytes]]) -> int:
    """Upload a blob, unless it is there. Returns the bytes sent."""
    digest, size = str(descriptor["digest"]), int(str(descriptor["size"]))
    if repository.size_of(digest) == size:
        return 0
    repository.upload(digest, size, content)
    return size


def _send(repository: ImageRepository, progress: Callable[[int], None], layer: Blob, check: at_once.Check) -> int:
    """Upload a layer over connections of its own. Returns the bytes sent."""
    uploaded = _upload(repository.for_another_thread(), layer.descriptor, partial(_counted, layer, progress, check))
    progress(0 if uploaded else int(str(layer.descriptor["size"])))
    return uploaded


def _counted(layer: Blob, progress: Callable[[int], None], check: at_once.Check) -> Iterator[bytes]:
    for piece in layer.content():
        check()
        yield piece
        progress(len(piece))
