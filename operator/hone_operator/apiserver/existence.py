"""Whether unwatched objects exist: looked up at times, and cached for a while."""

import time
from collections import OrderedDict
from dataclasses import dataclass, field

from hone_operator.apiserver.cluster import Cluster

BELIEVED_SECONDS = 60.0
REMEMBERED = 4096


@dataclass
class Existence:
    """Remembers objects that existed, never missing ones; forgets answers that are too old."""

    cluster: Cluster
    believed_seconds: float = BELIEVED_SECONDS
    remembered: int = REMEMBERED
    _until: OrderedDict[tuple[str, str, str], float] = field(default_factory=OrderedDict)
    """Oldest first: kind, namespace and name, and the expiry in monotonic seconds."""

    async def of(self, kind: str, namespace: str, name: str) -> bool:
        """Whether the object exists, or did a moment ago."""
        key = (kind, namespace, name)
        self._forget(time.monotonic())
        if key in self._until:
            return True
        if await self.cluster.get(kind, namespace, name) is None:
            return False
        self._until[key] = time.monotonic() + self.believed_seconds
        self._until.move_to_end(key)
        return True

    async def of_claim(self, namespace: str, name: str) -> bool:
        """The same for a PersistentVolumeClaim."""
        return await self.of("PersistentVolumeClaim", namespace, name)

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """Ask the API server again, the next time."""
        self._until.pop((kind, namespace, name), None)

    def _forget(self, now: float) -> None:
        while self._until and (len(self._until) > self.remembered or next(iter(self._until.values())) <= now):
            self._until.popitem(last=False)

    def __len__(self) -> int:
        return len(self._until)
