"""Models that a running pod of the namespace uses, e.g. a server that has the store mounted."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from hone_operator.cluster import Cluster
from hone_operator.desired import names

NOT_ENDED = "status.phase!=Succeeded,status.phase!=Failed"


async def used(cluster: Cluster, namespace: str, places: Iterable[str]) -> dict[str, str]:
    """The pod by whose name each of these models is in use, by its place <run>/<attempt>.

    A pod uses a model when its spec has the folder's path anywhere: a subPath, an argument, a variable. One that makes
    rows of a Dataset may score them by any model, and so may one that cannot be read: it uses all of them.
    """
    found: dict[str, str] = {}
    left = set(places)
    unread: set[str] = set()
    async for pod in cluster.each("Pod", namespace, NOT_ENDED, unread):
        name, text = pod["metadata"]["name"], json.dumps(pod.get("spec") or {})
        found |= {place: name for place in left - found.keys() if _makes_rows(pod) or _has(text, place)}
        if found.keys() == left:
            break
    return dict.fromkeys(left, "a pod that cannot be read") if unread else found


def _has(text: str, place: str) -> bool:
    return place in text or f"models/{place.partition('/')[0]}" in text


def _makes_rows(pod: Mapping[str, Any]) -> bool:
    return (pod["metadata"].get("labels") or {}).get(names.COMPONENT) == "materialize"
