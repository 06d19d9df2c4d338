"""Finds models that a running pod of the namespace uses, e.g. a server that mounts the store."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from hone_operator.apiserver.cluster import Cluster
from hone_operator.desired.core import names

NOT_ENDED = "status.phase!=Succeeded,status.phase!=Failed"


async def used(cluster: Cluster, namespace: str, places: Iterable[str]) -> dict[str, str]:
    """The name of a pod that uses each of these models, by the model's place <run>/<attempt>.

    A pod uses a model if its spec contains the folder's path anywhere: a subPath, an argument, a variable. A pod that
    makes
    rows of a Dataset may score them with any model, and an unreadable pod may also use any: both count as using all.
    """
    users: dict[str, str] = {}
    places_left = set(places)
    unread: set[str] = set()
    async for pod in cluster.each("Pod", namespace, NOT_ENDED, unread):
        name, text = pod["metadata"]["name"], json.dumps(pod.get("spec") or {})
        users |= {place: name for place in places_left - users.keys() if _makes_rows(pod) or _has(text, place)}
        if users.keys() == places_left:
            break
    return dict.fromkeys(places_left, "a pod that cannot be read") if unread else users


def _has(text: str, place: str) -> bool:
    return place in text or f"models/{place.partition('/')[0]}" in text


def _makes_rows(pod: Mapping[str, Any]) -> bool:
    return (pod["metadata"].get("labels") or {}).get(names.COMPONENT) == "materialize"
