"""Whether reconciling makes progress: the kubelet's probes, so that a stuck operator is restarted."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

log = logging.getLogger(__name__)
STUCK_SECONDS = 300.0


@dataclass
class Health:
    """`/healthz` fails if no run ends or begins: nothing that a tenant writes may end the operator. `/readyz` fails
    until every object had its run."""

    stuck_for: Callable[[], float]
    """Seconds that the longest run has taken, or that objects have waited while no run began."""
    ready: Callable[[], bool] = lambda: True

    def problem(self) -> str | None:
        """The problem, or None."""
        seconds = self.stuck_for()
        if seconds > STUCK_SECONDS:
            return f"reconciling is stuck: no run has ended or begun for {seconds:.0f} s"
        return None

    def application(self) -> web.Application:
        """/healthz and /readyz, plain text."""
        app = web.Application()
        app.add_routes([web.get("/healthz", self._alive), web.get("/readyz", self._ready)])
        return app

    async def _alive(self, _: web.Request) -> web.Response:
        problem = self.problem()
        if problem:
            log.error("not healthy: %s", problem)
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def _ready(self, _: web.Request) -> web.Response:
        ready = self.ready()
        return web.Response(text="ok" if ready else "listing", status=200 if ready else 503)


async def serve(app: web.Application, port: int, host: str = "0.0.0.0") -> web.AppRunner:
    """Serve until the runner's `cleanup()`."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
