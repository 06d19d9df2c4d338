"""Every kopf handler: keep the body, ask for a run of the key it concerns, return. Nothing here can fail or wait."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import kopf

from hone_api import GROUP, VERSION
from hone_operator.cache import Cache
from hone_operator.controllers import Key, concerned
from hone_operator.desired.names import COMPONENT
from hone_operator.workqueue import WorkQueue

RESOURCES: dict[str, tuple[str, ...]] = {
    "FineTuneJob": (GROUP, VERSION, "finetunejobs"),
    "Dataset": (GROUP, VERSION, "datasets"),
    "ModelVersion": (GROUP, VERSION, "modelversions"),
    "Job": ("batch", "v1", "jobs"),
    "Pod": ("", "v1", "pods"),
}


class NoDiffBase(kopf.DiffBaseStorage):
    """We keep no last-handled state; kopf would copy every body on every event for it."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


@dataclass
class Watches:
    """kopf's watches of all kinds, into a cache and a queue."""

    cache: Cache
    queue: WorkQueue[Key]
    filled: bool = False
    """Whether every kind has been listed: kopf calls the index handlers of all kinds for all objects before the
    first event handler of any."""
    gone: tuple[Callable[[str], None], ...] = ()
    """Told the uid of each object that was deleted."""

    def register(self, registry: kopf.OperatorRegistry) -> None:
        """Add our handlers."""
        for kind, resource in RESOURCES.items():
            self._register(registry, kind, resource)

        @kopf.on.login(registry=registry)
        def login(**kwargs: Any) -> Any:
            return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    def _register(self, registry: kopf.OperatorRegistry, kind: str, resource: tuple[str, ...]) -> None:
        @kopf.index(*resource, id=f"keep-{kind.lower()}", registry=registry)
        async def keep(body: kopf.Body, **_: Any) -> dict[Any, Any]:
            self.cache.put(kind, body)
            return {}  # nothing for kopf's own index

        @kopf.on.event(*resource, id=f"request-{kind.lower()}", registry=registry)
        async def request(event: Any, body: kopf.Body, **_: Any) -> None:
            self.filled = True
            keys = concerned(kind, body, self.cache)
            if event["type"] == "DELETED":
                self.cache.remove(kind, body)
                for tell in self.gone:
                    tell(body["metadata"]["uid"])
            for key in keys:
                self.queue.request(key)


def configure(settings: kopf.OperatorSettings) -> None:
    """Each value has a reason in docs/architecture.md; none stores anything on an object."""
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = [1, 2, 4, 8, 15, 30]
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = 200
    settings.watching.label_selectors["batch", "v1", "jobs"] = COMPONENT
    settings.watching.label_selectors["", "v1", "pods"] = COMPONENT
    settings.queueing.idle_timeout = 0.5
    settings.process.ultimate_exiting_timeout = 20
    settings.persistence.diffbase_storage = NoDiffBase()
