"""Types that the values of the chart are made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, WithJsonSchema, with_config
from typing_extensions import TypedDict

from hone_operator.settings.section import SecretName, Section

Map = dict[str, Any]
ObjectName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$", max_length=63)]
"""Part of the names of objects. Empty: the chart's own."""
Repository = Annotated[str, StringConstraints(pattern=r"^([^\s/@:]+(:\d+)?(/[^\s/@:A-Z]+)*)?$", max_length=1024)]
PrometheusDuration = Annotated[str, StringConstraints(pattern=r"^([0-9]+(ms|[smhdwy]))+$")]
AlertLabels = dict[Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")], str]
Address = Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$", max_length=1024)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$", max_length=253)]
"""Of an environment variable, as Kubernetes has it."""
ImageTag = Annotated[str, StringConstraints(pattern=r"^(\w[\w.-]{0,127})?$")]
ImageDigest = Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64})?$")]
Amount = (
    Annotated[str, StringConstraints(pattern=r"^\+?([0-9]+\.?[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE]-?[0-9]+)?$")]
    | Annotated[float, Field(ge=0)]
)


KUBERNETES = "x-kubernetes-type"
"""Keyword for a type of Kubernetes, in whose place the generator puts its schema."""


def _of(name: str) -> WithJsonSchema:
    return WithJsonSchema({KUBERNETES: f"io.k8s.api.{name}"})


Affinity = Annotated[Map, _of("core.v1.Affinity")]
Claim = Annotated[Map, _of("core.v1.ResourceClaim")]
Egress = Annotated[Map, _of("networking.v1.NetworkPolicyEgressRule")]
Peer = Annotated[Map, _of("networking.v1.NetworkPolicyPeer")]
Spread = Annotated[Map, _of("core.v1.TopologySpreadConstraint")]
Volume = Annotated[Map, _of("core.v1.Volume")]
VolumeMount = Annotated[Map, _of("core.v1.VolumeMount")]
_WORD = {"type": "string", "minLength": 1}
_NAMED = {"type": "object", "required": ["name"], "properties": {"name": _WORD}}
KubernetesObject = Annotated[
    Map,
    WithJsonSchema(
        {
            "type": "object",
            "required": ["apiVersion", "kind", "metadata"],
            "properties": {"apiVersion": _WORD, "kind": _WORD, "metadata": _NAMED},
        }
    ),
]
"""Any object, by what the API server needs of each."""
ResourceName = Annotated[str, StringConstraints(pattern=r"^(cpu|memory|ephemeral-storage|hugepages-\w+|[^/]+/[^/]+)$")]


@with_config(ConfigDict(extra="forbid"))
class Resources(TypedDict, total=False):
    """Resources of a container, with stricter amounts than the schema of Kubernetes has; each part may be absent."""

    requests: dict[ResourceName, Amount]
    limits: dict[ResourceName, Amount]
    claims: list[Claim]


RenderMode = Literal["skipIfMissing", "failIfMissing", "alwaysRender"]


class NamedSecret(Section):
    """A Secret as Kubernetes writes it in a list."""

    name: SecretName


Secrets = list[SecretName | NamedSecret]
"""Each by its name, or as {name: NAME}."""


class EnvVariable(Section):
    """An environment variable as Kubernetes writes it in a list; its value may come from elsewhere."""

    model_config = ConfigDict(extra="allow")

    name: VariableName
    value: str = ""


Env = dict[VariableName, str] | list[EnvVariable]
"""{NAME: value}, or the list that Kubernetes has in a container. The chart's default is a map, which Helm can merge."""
