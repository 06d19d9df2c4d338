"""Types that the values of the chart are made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, StringConstraints

from hone_operator.settings.section import SecretName, Section

Map = dict[str, Any]
StringMap = dict[str, str]
ImageTag = Annotated[str, StringConstraints(pattern=r"^(\w[\w.-]{0,127})?$")]
ImageDigest = Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64})?$")]
RenderMode = Literal["skipIfMissing", "failIfMissing", "alwaysRender"]


class NamedSecret(Section):
    """A Secret as Kubernetes writes it in a list."""

    name: SecretName


Secrets = list[SecretName | NamedSecret]
"""Each by its name, or as {name: NAME}."""


class EnvVariable(Section):
    """An environment variable as Kubernetes writes it in a list; its value may come from elsewhere."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    value: str = ""


Env = StringMap | list[EnvVariable]
"""{NAME: value}, or the list that Kubernetes has in a container. The chart's default is a map, which Helm can merge."""
