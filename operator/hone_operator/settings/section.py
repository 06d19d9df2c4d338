"""What the sections of the settings are made of: their base, their types, and names that only Hone may set.

A field of a section is a value of the chart, with its description and its default: both are written into the chart.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from hone_api.blocks.placement import QUALIFIED_NAME, LabelValue
from hone_api.blocks.pod_settings import is_reserved_key

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[int, Field(ge=1, le=7 * 24 * 3600)]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$", max_length=253)]
Text = Annotated[str, StringConstraints(max_length=1024)]
SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
ClassName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)]
Key = Annotated[str, StringConstraints(pattern=QUALIFIED_NAME, max_length=317)]
"""Of a label or an annotation."""
Labels = dict[Key, LabelValue]
Annotations = dict[Key, str]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=253)]

RESERVED_ENV_PREFIXES = ("KUBEFLOW_TRAINER_", "HONE_", "KUBERNETES_")
RESERVED_ENV = {"HF_ENDPOINT", "HOME", "USER", "PATH", "PYTHONPATH", "LD_PRELOAD", "LD_LIBRARY_PATH"}


class Section(BaseModel):
    """Unknown names are refused, so that a typing mistake does not become a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True)


def free_keys(keys: dict[str, str]) -> dict[str, str]:
    """Labels or annotations as they are.

    Raises:
        ValueError: one belongs to Kubernetes, Kueue or Hone.
    """
    if taken := sorted(filter(is_reserved_key, keys)):
        raise ValueError(f"{', '.join(taken)}: of Kubernetes, Kueue or Hone, choose other names")
    return keys


def free_variables(env: dict[str, str]) -> dict[str, str]:
    """Environment variables as they are.

    Raises:
        ValueError: Hone itself sets one.
    """
    taken = sorted(n for n in env if n in RESERVED_ENV or n.startswith(RESERVED_ENV_PREFIXES))
    if taken:
        raise ValueError(f"{', '.join(taken)}: set by Hone itself, choose other names")
    return env
