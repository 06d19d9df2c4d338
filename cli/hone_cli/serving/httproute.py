"""The Gateway API: an HTTPRoute that shares requests out over servers of one version each, or copies them.

Fields as in gateway.networking.k8s.io/v1, whose HTTPRoute is stable. A route chooses a Service and reads no body, so
each version has a server of its own, and each server knows its version by the model's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hone_cli.errors import CommandError
from hone_cli.serving.models import ServedModel
from hone_cli.serving.vllm import PORT, Server

MOST_BACKENDS = 16
"""Of one rule, mirrors included."""
MOST_WEIGHT = 1_000_000


@dataclass(frozen=True)
class Sharing:
    """What a person chooses, as the options of `hone serve` have it."""

    weights: str | None = None
    mirror: bool = False
    gateway: str | None = None

    def check(self, to: str) -> None:
        """Refuse options that `to` has no use for.

        Raises:
            CommandError: there is such an option, or --weights and --mirror are given both.
        """
        if self != Sharing() and to != "httproute":
            raise CommandError("--weights, --mirror and --gateway are for --to httproute")
        if self.mirror and self.weights is not None:
            raise CommandError("with --mirror one version answers all requests: leave --weights out")

    def shares(self, models: Sequence[ServedModel]) -> list[int]:
        """One weight for each version; their sum need not be 100.

        Raises:
            CommandError: there is not one number from 0 on for each version, or all are 0.
        """
        versions = ", ".join(m.version for m in models)
        refused = CommandError(f"--weights needs a number from 0 on for each version ({versions}), e.g. 90,10")
        try:
            weights = [int(w) for w in (self.weights or "").split(",")]
        except ValueError:
            raise refused from None
        if len(weights) != len(models) or not all(0 <= w <= MOST_WEIGHT for w in weights) or not any(weights):
            raise refused
        return weights


@dataclass(frozen=True)
class Gateway:
    """Where the route is attached."""

    name: str
    namespace: str | None
    """None: that of the route."""

    @classmethod
    def of(cls, option: str | None) -> Gateway:
        """What `--gateway` names: `name` or `namespace/name`.

        Raises:
            CommandError: it is missing, or is not of this form.
        """
        namespace, _, name = (option or "").rpartition("/")
        if not name or "/" in namespace:
            raise CommandError("an HTTPRoute needs --gateway NAME or --gateway NAMESPACE/NAME")
        return cls(name, namespace or None)


def render(models: Sequence[ServedModel], server: Server, sharing: Sharing) -> list[dict[str, Any]]:
    """A route for the requests for one model; each version's Service has the name of its ModelVersion.

    Args:
        server: its name is that of the route.

    Raises:
        CommandError: these are not versions of one model, there is not one weight for each, all weights are 0, or the
            gateway is missing.
    """
    gateway = Gateway.of(sharing.gateway)
    if len({m.model for m in models}) > 1:
        raise CommandError("a route distributes the requests for one model: name versions of one model")
    if len(models) > MOST_BACKENDS:
        raise CommandError(f"a route has at most {MOST_BACKENDS} versions, but {len(models)} are named")
    rule: dict[str, Any] = {"matches": [{"path": {"type": "PathPrefix", "value": "/v1"}}]}
    if sharing.mirror:
        rule |= _mirrored(models)
    else:
        weights = sharing.shares(models)
        rule["backendRefs"] = [{**_backend(m), "weight": w} for m, w in zip(models, weights, strict=True)]
    parent = {"name": gateway.name} | ({"namespace": gateway.namespace} if gateway.namespace else {})
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": server.name, "namespace": server.namespace},
            "spec": {"parentRefs": [parent], "rules": [rule]},
        }
    ]


def _mirrored(models: Sequence[ServedModel]) -> dict[str, Any]:
    """The first version answers. Each other one gets a copy of each request, and the gateway drops its answer."""
    if len(models) < 2:
        raise CommandError("--mirror needs the version that answers, then one or more that get copies")
    mirrors = [{"type": "RequestMirror", "requestMirror": {"backendRef": _backend(m)}} for m in models[1:]]
    return {"filters": mirrors, "backendRefs": [_backend(models[0])]}


def _backend(model: ServedModel) -> dict[str, Any]:
    return {"name": model.version, "port": PORT}
