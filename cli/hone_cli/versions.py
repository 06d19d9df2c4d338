"""Which ModelVersion a person means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from hone_api.base.meta import ALIAS_SCHEME
from hone_api.words.states import ApprovalState, ConditionType
from hone_cli.errors import CommandError

if TYPE_CHECKING:
    from hone_api.kinds.modelversion import ModelVersionSpec

_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9]([-a-z0-9]*[a-z0-9])?)(:(?P<version>[0-9]{1,7})|@(?P<alias>[a-z]([-a-z0-9]*[a-z0-9])?))?"
)


MODEL_HELP = (
    "A model (its newest version that is Ready), model:version, model@alias, or a ModelVersion. "
    f"{ALIAS_SCHEME}model@alias, as jobs name it, is the same."
)
"""Of an argument that names a version."""


class Versions(Protocol):
    """The ModelVersions of a namespace."""

    namespace: str

    def model_version(self, name: str) -> dict[str, Any] | None:
        """The ModelVersion of this name; None if it does not exist."""
        ...

    def model_versions(self, model: str) -> list[dict[str, Any]]:
        """All of a model."""
        ...

    def unfinished_jobs(self, model: str) -> list[str]:
        """Jobs that will make a version of a model, each with its phase."""
        ...

    def model(self, name: str) -> dict[str, Any] | None:
        """The Model, which has the aliases; None: there is none of this name."""
        ...


def spec_of(version: Mapping[str, Any]) -> ModelVersionSpec:
    """The spec of a ModelVersion.

    Raises:
        CommandError: this version of hone does not know it.
    """
    from pydantic import ValidationError

    from hone_api.kinds.modelversion import ModelVersionSpec

    try:
        return ModelVersionSpec.model_validate(version["spec"])
    except ValidationError as error:
        raise CommandError(
            f"ModelVersion {version['metadata']['name']} is not what this version of hone knows: install the version "
            f"of hone that the cluster runs ({error.error_count()} fields differ)"
        ) from None


def chosen(versions: Versions, reference: str) -> dict[str, Any]:
    """The ModelVersion of `model`, `model:3`, `model@alias` or `model-v3`; the second and third also after models://.

    Of a model alone it is the newest that is Ready, or else the newest.
    A name that is both a model's and a ModelVersion's means the ModelVersion.

    Raises:
        CommandError: there is none.
    """
    match = _read(reference)
    if not match:
        raise CommandError(
            f"{reference!r} is neither model, model:version, model@alias nor the name of a ModelVersion; "
            f"{ALIAS_SCHEME} may precede model:version and model@alias"
        )
    name, number = match["name"], match["version"]
    if alias := match["alias"]:
        return _of_alias(versions, name, alias)
    if number is None and (version := versions.model_version(name)):
        return version
    of_model = sorted(versions.model_versions(name), key=lambda v: int(v["spec"]["version"]))
    if number is not None:
        of_model = [v for v in of_model if v["spec"]["version"] == int(number)]
        usual = [v for v in of_model if v["metadata"]["name"] == f"{name}-v{int(number)}"]
        of_model = usual or of_model  # as the operator does, if somebody has made another one of this number
    if not of_model:
        if jobs := versions.unfinished_jobs(name):
            words = ", ".join(f"FineTuneJob {job}" for job in jobs[:5])
            raise CommandError(f"there is no ModelVersion for {reference} yet: {words}")
        raise CommandError(
            f"namespace {versions.namespace} has no ModelVersion for {reference}: "
            f"kubectl get modelversions.hone.dev --namespace {versions.namespace}"
        )
    return next((v for v in reversed(of_model) if _is_ready(v)), of_model[-1])


def _read(reference: str) -> re.Match[str] | None:
    """Its parts. Jobs name an alias by models://model@alias, so that is read as well; models://model means nothing."""
    match = _REFERENCE.fullmatch(reference.removeprefix(ALIAS_SCHEME))
    if match and reference.startswith(ALIAS_SCHEME) and not (match["version"] or match["alias"]):
        return None
    return match


class VersionChoice(NamedTuple):
    """The version that a server gets."""

    version: dict[str, Any]
    why: str | None = None
    """Which it is and why, for people; None: they named it."""


def to_serve(versions: Versions, reference: str) -> VersionChoice:
    """The ModelVersion of `model`, `model:3`, `model@alias` or `model-v3` for a server.

    Of a model alone it is the newest approved version that is Ready, whatever came later. Only if none is approved, it
    is the newest that is Ready.

    Raises:
        CommandError: there is none, or one is approved and none of these is Ready.
    """
    match = _read(reference)
    if not match or match["version"] or match["alias"] or versions.model_version(match["name"]):
        return VersionChoice(ready(chosen(versions, reference)))
    of_model = _newest_first(versions.model_versions(match["name"]), match["name"])
    approved = [v for v in of_model if is_approved(v)]
    if not approved:
        present = [v for v in of_model if _is_ready(v)] or [chosen(versions, reference)]
        newest = ready(present[0])
        why = f"the newest version of model {reference} that is Ready; none is approved"
        return VersionChoice(newest, f"Chose ModelVersion {_name(newest)}: {why}.")
    newest = ready(next((v for v in approved if _is_ready(v)), approved[0]))
    why = f"the newest approved version of model {reference}"
    if behind := [_name(v) for v in approved[: approved.index(newest)]]:
        why += f" that is Ready, which is not true of {', '.join(behind)}"
    if later := [_name(v) for v in of_model[: of_model.index(newest)] if not is_approved(v)]:
        why += f"; not approved: {', '.join(later)}"
    return VersionChoice(newest, f"Chose ModelVersion {_name(newest)}: {why}.")


def _newest_first(of_model: Sequence[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """Of two with one number, the one with the usual name alone, as for the operator: somebody made the other one."""
    names = {_name(version) for version in of_model}
    usual = [
        version
        for version in of_model
        if (name := f"{model}-v{int(version['spec']['version'])}") not in names or name == _name(version)
    ]
    return sorted(usual, key=lambda version: int(version["spec"]["version"]), reverse=True)


def is_approved(version: Mapping[str, Any]) -> bool:
    """Whether a person approved it."""
    return (version["spec"].get("approval") or {}).get("state") == ApprovalState.APPROVED


def _name(version: Mapping[str, Any]) -> str:
    return str(version["metadata"]["name"])


def alias_of(reference: str) -> tuple[str, str]:
    """Model and alias of `model@alias` or `models://model@alias`.

    Raises:
        CommandError: it is something else.
    """
    match = _read(reference)
    if not match or not match["alias"]:
        raise CommandError(f"{reference!r} is not model@alias: --follow serves what an alias means at any time")
    return match["name"], match["alias"]


def _of_alias(versions: Versions, name: str, alias: str) -> dict[str, Any]:
    """The ModelVersion that the alias points to."""
    pointing = (((versions.model(name) or {}).get("status") or {}).get("aliases")) or []
    target = next((a["modelVersion"] for a in pointing if a["name"] == alias), None)
    if target is None:
        aliases = ", ".join(f"{name}@{a['name']}" for a in pointing) or "none"
        raise CommandError(
            f"model {name} in namespace {versions.namespace} has no alias {alias}; it has {aliases}. "
            f"kubectl get models.hone.dev {name} --namespace {versions.namespace}"
        )
    if (version := versions.model_version(target)) is None:
        raise CommandError(f"{name}@{alias} is ModelVersion {target}, which is gone")
    return version


def ready(version: dict[str, Any]) -> dict[str, Any]:
    """The same version.

    Raises:
        CommandError: it is not Ready: its files are not there, or not those that were recorded.
    """
    if not _is_ready(version):
        meta = version["metadata"]
        message = (condition(version, ConditionType.READY) or {}).get("message")
        raise CommandError(
            f"ModelVersion {meta['name']} is not Ready: {message or 'the operator has not seen it yet.'} See "
            f"kubectl describe modelversions.hone.dev {meta['name']} --namespace {meta['namespace']}"
        )
    return version


def condition(version: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any] | None:
    """The condition of this type; None: the operator has not set it."""
    conditions = (version.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind), None)


def _is_ready(version: Mapping[str, Any]) -> bool:
    return (condition(version, ConditionType.READY) or {}).get("status") == "True"
