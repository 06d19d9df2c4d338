"""What the platform and a job set on pods, merged: a job's value wins over the chart's of the same key, and what Hone
itself sets wins over both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from hone_api.blocks.placement import Toleration
from hone_api.blocks.pod_settings import PodSettings, PodVolume
from hone_operator.settings.pods import PodsSettings


@dataclass(frozen=True)
class ExtraVolume:
    """A volume that a job adds, and where it is mounted."""

    name: str
    path: PurePosixPath
    source: Mapping[str, Any]
    read_only: bool


def volumes(settings: PodSettings | None) -> list[ExtraVolume]:
    """The volumes that a job adds. Only scratch space can be written."""
    asked = (settings.volumes if settings else None) or []
    return [
        ExtraVolume(f"extra-{number}", PurePosixPath(each.mount_path), _source(each), each.scratch is None)
        for number, each in enumerate(asked)
    ]


def _source(volume: PodVolume) -> dict[str, Any]:
    if volume.claim_name:
        return {"persistentVolumeClaim": {"claimName": volume.claim_name, "readOnly": True}}
    if volume.config_map_name:
        return {"configMap": {"name": volume.config_map_name, "defaultMode": 0o444}}
    if volume.secret_name:
        return {"secret": {"secretName": volume.secret_name, "defaultMode": 0o440}}
    assert volume.scratch
    medium = {"medium": "Memory"} if volume.scratch.medium == "Memory" else {}
    return {"emptyDir": {"sizeLimit": volume.scratch.size, **medium}}


def plain_environment(settings: PodSettings | None) -> dict[str, str]:
    """The variables of a job that have a value."""
    return {each.name: each.value for each in (settings.env if settings else None) or () if each.value is not None}


def secret_environment(settings: PodSettings | None) -> dict[str, dict[str, Any]]:
    """The sources of a job's variables that are keys of Secrets, by name."""
    return {
        each.name: {"secretKeyRef": {"name": each.secret_name, "key": each.key}}
        for each in (settings.env if settings else None) or ()
        if each.secret_name is not None
    }


def labels_of(defaults: PodsSettings, settings: PodSettings | None, own: Mapping[str, str]) -> dict[str, str]:
    """Labels of a pod."""
    return {**defaults.labels, **((settings.labels if settings else None) or {}), **own}


def annotations_of(defaults: PodsSettings, settings: PodSettings | None, own: Mapping[str, str]) -> dict[str, str]:
    """Annotations of a pod."""
    return {**defaults.annotations, **((settings.annotations if settings else None) or {}), **own}


def spec_fields(
    defaults: PodsSettings, settings: PodSettings | None, runtime: str, own: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields of a pod's spec that defaults and job decide together.

    Args:
        runtime: the platform's RuntimeClass; empty: the nodes' default.
        own: fields of the spec from spec.scheduling, and the ServiceAccount of what signs.
    """
    out: dict[str, Any] = {}
    if selector := {**defaults.node_selector, **own.get("nodeSelector", {})}:
        out["nodeSelector"] = selector
    more = [each for each in map(Toleration.to_json, defaults.tolerations) if each not in own.get("tolerations", ())]
    if tolerations := [*own.get("tolerations", ()), *more]:
        out["tolerations"] = tolerations
    if runtime := (settings.runtime_class_name if settings else None) or runtime:
        out["runtimeClassName"] = runtime
    asked = own.get("serviceAccountName") or (settings.service_account_name if settings else None)
    if account := asked or defaults.service_account_name:
        # The API server fills in the old name of the field, and a Job that differs from ours is not taken for ours.
        out |= {"serviceAccountName": account, "serviceAccount": account}
    return out
