"""A bound on the memory that reading one piece of a file may take.

A columnar file can declare in few bytes that many rows share one large value, or that a part unpacks to gigabytes. The
library allocates what the file declares; without a limit the kernel kills the pod, which is then retried.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MOST = 2 * 2**30
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of the container, by the version of control groups: the second is the first one."""


def budget() -> int:
    """Bytes: half of the container's memory, at most 2 GiB."""
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # no container, or one without a limit
            return min(_MOST, int(path.read_text()) // 2)
    return _MOST


@contextmanager
def bounded(size: int) -> Iterator[None]:
    """Let the process take `size` bytes more than it has; beyond that an allocation raises MemoryError."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except (OSError, ValueError):  # not Linux
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = pages * resource.getpagesize() + size
    limits = [value for value in (soft, hard) if value != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([limit, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
