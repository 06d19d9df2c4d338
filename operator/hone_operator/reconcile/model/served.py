"""What servers of a namespace may load by the aliases of its Models: adapters of approved versions alone. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from pydantic import ValidationError

from hone_api.base.reading import read_known
from hone_api.contract.served import MAX_APPROVED, ServedAdapter, ServedAlias, ServedAliases, key_of
from hone_api.kinds.modelversion import Artifact, ModelVersionSpec
from hone_api.verdicts.servable import least_lora_rank
from hone_api.words.states import ApprovalState
from hone_operator.reconcile.model.aliases import unusable

Body = Mapping[str, Any]


def content(models: Iterable[Body], versions: Mapping[str, Iterable[Body]]) -> dict[str, str]:
    """Data of the ConfigMap: one key for each Model with an alias.

    Args:
        versions: the ModelVersions of each model, by its name.
    """
    data = {}
    for model in models:
        name = model["metadata"]["name"]
        entries = (model.get("status") or {}).get("aliases") or ()
        if not entries or model["metadata"].get("deletionTimestamp"):
            continue
        try:
            aliases = _served(entries, versions.get(name, ()))
        except (ValidationError, KeyError):  # a status that this version of Hone did not write: nothing of it is served
            continue
        data[key_of(name)] = aliases.model_dump_json(by_alias=True, exclude_none=True)
    return data


def _served(entries: Sequence[Body], versions: Iterable[Body]) -> ServedAliases:
    by_name = {version["metadata"]["name"]: version for version in versions}
    pointed = {n for e in entries for n in (e["version"], *(h["version"] for h in e.get("history") or ()))}
    candidates = [version for version in by_name.values() if _is_approved(version)]
    candidates.sort(key=lambda version: (version["spec"]["version"] not in pointed, -version["spec"]["version"]))
    read = (adapter_of(version) for version in candidates)
    adapters = islice((adapter for adapter in read if isinstance(adapter, ServedAdapter)), MAX_APPROVED)
    return ServedAliases(
        aliases=[_alias(entry, by_name.get(entry["modelVersion"])) for entry in entries],
        approved=list(dict.fromkeys(adapter.digest for adapter in adapters)),
    )


def _alias(entry: Body, version: Body | None) -> ServedAlias:
    adapter = adapter_of(version) if version else f"ModelVersion {entry['modelVersion']} is gone"
    served = ServedAlias(name=entry["name"], version=entry["version"], model_version=entry["modelVersion"])
    if isinstance(adapter, ServedAdapter):
        return served.model_copy(update={"adapter": adapter})
    return served.model_copy(update={"why": adapter})


def adapter_of(version: Body) -> ServedAdapter | str:
    """The adapter of a version that may be served; otherwise why none may be."""
    name = version["metadata"]["name"]
    if problem := unusable(version["spec"].get("version", 0), version):
        return problem.message
    if not _is_approved(version):
        return f"ModelVersion {name} is not approved"
    try:
        spec, _ = read_known(ModelVersionSpec, version["spec"])
    except ValidationError:
        return f"ModelVersion {name} was written by another version of Hone"
    rank, artifact = least_lora_rank(spec), _adapter(spec)
    if rank is None or artifact is None:
        return f"ModelVersion {name} has no adapter that vLLM loads: see its condition Servable"
    location = spec.lineage.base_model.location
    if location is None:
        return f"ModelVersion {name} does not say where its base is"
    return ServedAdapter(uri=artifact.uri, digest=artifact.digest, base=location, rank=rank)


def _is_approved(version: Body) -> bool:
    return bool((version["spec"].get("approval") or {}).get("state") == ApprovalState.APPROVED)


def _adapter(spec: ModelVersionSpec) -> Artifact | None:
    return next((artifact for artifact in spec.artifacts if artifact.format == "Adapter"), None)
