"""The Job that registers versions of a Model, and sets its aliases, in MLflow's model registry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone_api.base.schemes import SCHEMES, scheme_of
from hone_api.blocks.tracking import DIGEST_TAG, NUMBER_TAG, MlflowRegistry, RegisteredAlias, VersionToRegister
from hone_api.plan import RegisterPlan
from hone_api.words.states import DeliveryState
from hone_operator.desired.core import names
from hone_operator.desired.core.hub import secret_mounts
from hone_operator.desired.core.job import JobName, job_with_plan
from hone_operator.desired.core.modelref import STANDALONE
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Work

COMPONENT = "register"
CPU, MEMORY = "100m", "256Mi"
_READ_BY_MLFLOW = frozenset(scheme.name for scheme in SCHEMES if scheme.is_registered)


@dataclass(frozen=True)
class Registration:
    """What a Job changes in the registry."""

    registry: MlflowRegistry
    name: str
    """Of the registered model."""
    versions: Sequence[VersionToRegister]
    """To be registered, and those that get an alias."""
    aliases: Sequence[RegisteredAlias] = ()
    remove: Sequence[str] = ()

    @property
    def key(self) -> str:
        """Equal for equal work; begins with `place_key`."""
        versions = [version.to_json() for version in self.versions]
        aliases = [alias.to_json() for alias in self.aliases]
        work = names.digest(self.registry.to_json(), versions, aliases, list(self.remove), length=8)
        return f"{place_key(self.registry, self.name)}{work}"


def place_key(registry: MlflowRegistry, name: str) -> str:
    """What the keys of all work at one registered model begin with."""
    return names.digest(registry.uri, name, length=8)


def register(owner: Mapping[str, Any], work: Registration, number: int, platform: Platform) -> list[dict[str, Any]]:
    """ConfigMap and Job of attempt `number`. The pod mounts the Secret, and no volume."""
    meta = owner["metadata"]
    mounts, secret_path = secret_mounts(work.registry.secret_name)
    plan = RegisterPlan(
        model=meta["name"],
        uri=work.registry.uri,
        name=work.name,
        secret_path=secret_path,
        versions=list(work.versions),
        aliases=list(work.aliases),
        remove=list(work.remove),
        **platform.network(meta["namespace"]),
    )
    pod = Work(component=COMPONENT, verb="register", plan=plan, cpu=CPU, memory=MEMORY, mounts=tuple(mounts))
    labels = names.labels(COMPONENT, owner, **{names.STAGING_ATTEMPT: str(number), names.CONTENT: work.key})
    return job_with_plan(
        owner, JobName(names.register(meta["name"], meta["uid"], work.key, number), labels), pod, platform
    )


def source_of(version: Mapping[str, Any], awaits_delivery: bool) -> str | None:
    """Where the files of a ModelVersion are: at a delivery that arrived, else in the store.

    Of several deliveries one to a bucket, from which MLflow can load; otherwise the first.

    None: a delivery is to arrive first.

    Args:
        awaits_delivery: whether its Model delivers versions.
    """
    deliveries = (version.get("status") or {}).get("deliveries") or ()
    arrived = [
        entry["location"]
        for entry in deliveries
        if entry.get("state") == DeliveryState.DELIVERED and entry.get("location")
    ]
    if arrived:
        return str(next((place for place in arrived if scheme_of(str(place)) in _READ_BY_MLFLOW), arrived[0]))
    if awaits_delivery or version["spec"].get("deliveries"):
        return None
    forms = {artifact["format"]: artifact["uri"] for artifact in version["spec"].get("artifacts") or ()}
    return next((forms[form] for form in (*STANDALONE, "Adapter", *forms) if form in forms), None)


def as_registered(version: Mapping[str, Any], source: str, registry: MlflowRegistry) -> VersionToRegister:
    """The ModelVersion as the registry gets it. Its run is known there if the same server tracked it."""
    meta, spec = version["metadata"], version["spec"]
    lineage = spec.get("lineage") or {}
    base, run = lineage.get("baseModel") or {}, lineage.get("tracking") or {}
    digests = {f"hone.dataset.{d['name']}": d["digest"] for d in lineage.get("datasets") or ()}
    tags = {
        "hone.model_version": meta["name"],
        NUMBER_TAG: str(spec["version"]),
        "hone.job_uid": (lineage.get("job") or {}).get("uid"),
        "hone.base": "@".join(filter(None, (base.get("uri", "").partition("@")[0], base.get("commit")))),
        "hone.image": lineage.get("image"),
        DIGEST_TAG: next((artifact.get("digest") for artifact in spec.get("artifacts") or ()), None),
        "hone.run_id": run.get("runId"),
        **digests,
    }
    same = str(run.get("uri", "")).rstrip("/") == registry.uri.rstrip("/")
    return VersionToRegister(
        version=spec["version"],
        uid=meta["uid"],
        source=source,
        run_id=run.get("runId") if same else None,
        tags={name: value for name, value in tags.items() if value},
    )
