"""Runs the progress server with certificates that are renewed while it runs."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from hone_operator.progress import tls
from hone_operator.progress.auth import Authenticator
from hone_operator.progress.backing import ClusterBacking
from hone_operator.progress.refusals import RefusalCounter
from hone_operator.progress.server import ProgressServer
from hone_operator.progress.store import ProgressStore
from hone_operator.settings import Settings

RENEW_CHECK_SECONDS = 12 * 3600.0
log = logging.getLogger(__name__)


def hosts(service_host: str, cluster_domain: str) -> list[str]:
    """Names under which pods reach the Service: as configured, and fully qualified."""
    return [service_host, f"{service_host}.{cluster_domain}"] if service_host.endswith(".svc") else [service_host]


@asynccontextmanager
async def serving(
    settings: Settings,
    backing: ClusterBacking,
    store: ProgressStore,
    refusals: RefusalCounter,
    note: Callable[[Mapping[str, float]], None],
) -> AsyncIterator[str | None]:
    """Serve during the block; yields the PEM with which pods verify the server, or None if pods do not report.

    Args:
        settings: of the platform.
        backing: the API server, as the port needs it.
        store: where reports go.
        refusals: counts what is refused.
        note: called with the time at which each certificate expires, whenever they may have changed.

    Raises:
        hone_operator.progress.tls.TlsError: the Secret of the certificates does not exist.
        OSError: the port is in use.
    """
    progress = settings.progress
    if progress.service_host is None:
        yield None
        return
    names = hosts(progress.service_host, settings.cluster_domain)
    certificates = await tls.ensure(backing, settings.namespace, progress.tls_secret, names)
    note(certificates.ends())
    context = tls.server_context(certificates)
    authenticator = Authenticator(backing, is_pod=backing.is_pod)
    server = ProgressServer(authenticator, backing, store, refusals)
    runner = await server.start("", progress.port, context)
    renewing = asyncio.create_task(_renew(settings, backing, names, context, certificates, note))
    try:
        yield certificates.ca_pem
    finally:
        renewing.cancel()
        await runner.cleanup()


async def _renew(
    settings: Settings,
    backing: ClusterBacking,
    names: list[str],
    context: ssl.SSLContext,
    served: tls.Certificates,
    note: Callable[[Mapping[str, float]], None],
) -> None:
    """Renew the certificate. Renewal starts a month before expiry, so a failed check can wait for the next."""
    while True:
        await asyncio.sleep(RENEW_CHECK_SECONDS)
        try:
            served = await tls.ensure(backing, settings.namespace, settings.progress.tls_secret, names, served)
            tls.load_into(context, served)
            note(served.ends())
        except Exception as error:
            log.error("the progress server's certificate cannot be checked: %s", error)
