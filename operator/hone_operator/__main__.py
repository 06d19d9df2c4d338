"""`python -m hone_operator`: watches, reconciles, takes reports, answers probes; stops on SIGTERM."""

import asyncio
import contextlib
import gc
import json
import logging
import signal
import socket
import sys
from datetime import UTC, datetime

from hone_operator import __version__, settings
from hone_operator.apiserver.cluster import Cluster
from hone_operator.apiserver.errors import MissingKindError
from hone_operator.apiserver.listing import SELECTORS
from hone_operator.controllers import Controllers
from hone_operator.desired.core.platform import Platform
from hone_operator.monitoring.metrics import Metrics
from hone_operator.namespaces.networkpatrol import NetworkPatrol
from hone_operator.namespaces.optin import OptedInNamespaces
from hone_operator.objects.cache import Cache
from hone_operator.process.health import Health, serve
from hone_operator.process.leadership import Fence, Leadership
from hone_operator.progress.backing import ClusterBacking
from hone_operator.progress.refusals import RefusalCounter
from hone_operator.progress.serving import serving
from hone_operator.progress.store import ProgressStore
from hone_operator.queueing.routing import Key
from hone_operator.queueing.workqueue import WorkQueue
from hone_operator.settings.values import LogSettings, Values
from hone_operator.storage.sweeping import Stored
from hone_operator.watches import Watches
from hone_operator.writing.unreadable import Unreadable

log = logging.getLogger("hone_operator")


def platform(config: settings.Settings, ca: str | None) -> Platform:
    """The settings that affect desired objects."""
    chosen = {name: getattr(config, name) for name in (*Values.model_fields, "metrics_from")}
    return Platform(progress_url=config.progress_url if ca else None, progress_ca=ca, **chosen)


async def run(config: settings.Settings, stop: asyncio.Event) -> None:
    """Run the operator until `stop` is set or a part of it fails."""
    async with contextlib.AsyncExitStack() as stack:
        cache = Cache()
        fence = Fence()
        elects = config.leader_election.enabled
        watched = (len(SELECTORS) + 2) * max(1, len(config.watch_namespaces))  # and Workloads and namespaces
        cluster = await Cluster.connect(config.concurrency + watched + 4, fence.check if elects else None)
        stack.push_async_callback(cluster.close)
        unreadable = Unreadable()
        cluster.note = unreadable.note
        queue: WorkQueue[Key] = WorkQueue(
            lambda key: controllers.process(key), config.concurrency, tenant_of=lambda key: key.namespace
        )
        watches = Watches(cluster, cache, queue, config.watch_namespaces, config.kueue.enabled)
        reports = ProgressStore(
            lambda key: queue.request(Key("FineTuneJob", *key)), config.progress.status_interval_seconds
        )
        health = Health(queue.stuck_for, ready=lambda: queue.caught_up)
        stack.push_async_callback((await serve(health.application(), config.ports.probes)).cleanup)
        keeping = None
        if elects:
            health.ready = lambda: True
            keeping = await _hold_lease(config, cluster, fence, stop, stack)
            if keeping is None:
                return
            health.ready = lambda: queue.caught_up
        refusals = RefusalCounter()
        stored: Stored = {}
        metrics = Metrics(cache, reports, lambda: queue.depth, stored)
        metrics.registry.register(refusals)
        backing = ClusterBacking(cache, cluster)
        ca = await stack.enter_async_context(serving(config, backing, reports, refusals, metrics.certificates))
        opt_in = OptedInNamespaces(cluster, config)
        unreadable.count, unreadable.request = metrics.unreadable, queue.request
        controllers = Controllers(
            cluster,
            cache,
            platform(config, ca),
            reports,
            on_done=metrics.reconciled,
            on_internal_error=metrics.internal_error,
            on_refused_status=metrics.status_refused,
            request=queue.request,
            opt_in=opt_in,
            unreadable=unreadable,
            stored=stored,
        )
        queue.on_failure = metrics.failed
        watches.on_deaf = metrics.deaf
        watches.gone, watches.removed = (reports.drop, metrics.forget), controllers.gone
        stack.push_async_callback((await serve(metrics.application(), config.ports.metrics)).cleanup)
        watches.note = unreadable.note
        _log_start(config, reports_progress=ca is not None)
        await _fill(watches, opt_in)
        gc.freeze()  # no later collection walks what was imported and read
        patrol = NetworkPatrol(cluster, cache, controllers.network_lost, opt_in.enabled)
        await _watch_and_work(config, watches, opt_in, patrol, stop, keeping)


async def _hold_lease(
    config: settings.Settings, cluster: Cluster, fence: Fence, stop: asyncio.Event, stack: contextlib.AsyncExitStack
) -> asyncio.Task[None] | None:
    """Wait for the Lease, and keep it until the stack is closed; None if the operator was asked to stop before."""
    leadership = await lead(config, cluster, fence, stop)
    if stop.is_set():
        return None
    stack.push_async_callback(leadership.release)
    return asyncio.create_task(leadership.keep(), name="lease")


async def _fill(watches: Watches, opt_in: OptedInNamespaces) -> None:
    """Read every object that there is, and request a reconcile of each."""
    await watches.listing.fill()
    await opt_in.fill()
    opt_in.changed = watches.request_all_in
    watches.request_all()


def _log_start(config: settings.Settings, *, reports_progress: bool) -> None:
    log.info(
        "hone-operator %s: namespaces %s, %d reconciles at once, progress reports %s, opt-in %s",
        __version__,
        ", ".join(config.watch_namespaces) or "all",
        config.concurrency,
        config.progress_url if reports_progress else "off",
        "on" if config.opt_in.role else "off",
    )


async def lead(config: settings.Settings, cluster: Cluster, fence: Fence, stop: asyncio.Event) -> Leadership:
    """Wait until this operator holds the Lease, or is asked to stop."""
    asked = config.leader_election
    identity = asked.identity or socket.gethostname()
    cluster.agent = f"hone-operator/{identity}"
    leadership = Leadership(cluster, config.namespace, asked.lease, identity, fence)
    acquiring, stopping = asyncio.create_task(leadership.acquire()), asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({acquiring, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        acquiring.cancel()
        stopping.cancel()
    return leadership


async def _watch_and_work(
    config: settings.Settings,
    watches: Watches,
    opt_in: OptedInNamespaces,
    patrol: NetworkPatrol,
    stop: asyncio.Event,
    keeping: asyncio.Task[None] | None = None,
) -> None:
    parts = {
        asyncio.create_task(watches.run(), name="watch"),
        asyncio.create_task(opt_in.watch(), name="watch namespaces"),
        asyncio.create_task(watches.queue.run(), name="reconcile"),
        asyncio.create_task(watches.resync(config.resync_seconds), name="resync"),
        asyncio.create_task(opt_in.refresh(), name="opt-in"),
        asyncio.create_task(patrol.run(), name="networks"),
        asyncio.create_task(stop.wait(), name="stop"),
        *([keeping] if keeping else []),
    }
    try:
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # a part that failed ends the process: the kubelet restarts it
    finally:
        for task in parts:
            task.cancel()
        await asyncio.wait(parts, timeout=10)


class JsonFormatter(logging.Formatter):
    """Formats each record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up_logging(config: LogSettings) -> None:
    """Log everything to standard error; libraries from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if config.format == "json" else plain)
    logging.root.handlers = [handler]
    logging.root.setLevel("WARNING")
    log.setLevel(config.level)


async def _main(config: settings.Settings) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(run(config, stop))
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await running


def main() -> None:
    """Exit code 0 after SIGTERM, 78 for wrong settings, 1 if a part failed."""
    try:
        config = settings.load()
    except settings.ConfigurationError as error:
        print(f"hone-operator: {error}", file=sys.stderr)
        raise SystemExit(78) from None
    set_up_logging(config.log)
    try:
        asyncio.run(_main(config))
    except MissingKindError as error:
        log.error("the operator stops: %s", error.message)
        raise SystemExit(1) from None
    except Exception:
        log.exception("the operator stops")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
