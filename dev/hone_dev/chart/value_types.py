"""Types that the values of the chart are made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

Map = dict[str, Any]
StringMap = dict[str, str]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[int, Field(ge=1)]
ClassName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)]
Text = Annotated[str, StringConstraints(max_length=1024)]
ImageDigest = Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64})?$")]
RenderMode = Literal["skipIfMissing", "failIfMissing", "alwaysRender"]


class Values(BaseModel):
    """Base of every part."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]


class NamedSecret(Values):
    """A Secret as Kubernetes writes it in a list."""

    name: SecretName


Secrets = list[SecretName | NamedSecret]
"""Each by its name, or as {name: NAME}."""


class EnvVariable(Values):
    """An environment variable as Kubernetes writes it in a list; its value may come from elsewhere."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    value: str = ""


Env = StringMap | list[EnvVariable]
"""{NAME: value}, or the list that Kubernetes has in a container. The chart's default is a map, which Helm can merge."""
