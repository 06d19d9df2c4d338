"""`python -m hone_trainer register`: versions of a model and its aliases in MLflow's model registry.

Whatever is there already is found by namespace, model, version and digest, so that repeating it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone_api.base.wording import counted
from hone_api.blocks.tracking import DIGEST_TAG, NUMBER_TAG, VERSION_TAG, RegisteredVersion, VersionToRegister
from hone_api.contract.report import RegisterResult
from hone_api.plan import RegisterPlan
from hone_api.words.failures import FailureCode
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.http import Resolver, resolve
from hone_trainer.endpoints.mlflow.run import entries
from hone_trainer.endpoints.mlflow.server import EXISTS, SECONDS, MlflowError, MlflowServer
from hone_trainer.errors import TrainerError

NAMESPACE_TAG, MODEL_TAG = "hone.namespace", "hone.model"


def register(plan: RegisterPlan, resolver: Resolver = resolve, seconds: float = SECONDS) -> RegisterResult:
    """Register the plan's versions, then set its aliases.

    Args:
        seconds: for one answer of the server.

    Raises:
        TrainerError: Destination…, SecretNotFound or SecretKeyNotFound.
    """
    server = MlflowServer(plan.uri, network_of(plan), plan.secret_path, resolver, seconds)
    model = _RegisteredModel(server, plan)
    model.create()
    numbers = {version.version: model.number_of(version) for version in plan.versions}
    for alias in plan.aliases:
        model.set_alias(alias.name, numbers[alias.version])
    for name in plan.remove:
        model.remove(name)
    words = counted(len(numbers), "version"), counted(len(plan.aliases), "alias", "aliases")
    print(f"{plan.name} at {server.host} has {words[0]} and {words[1]} of this plan", flush=True)
    return RegisterResult(
        versions=[RegisteredVersion(version=version, registered=number) for version, number in numbers.items()],
        aliases=plan.aliases,
        removed=plan.remove,
    )


@dataclass(frozen=True)
class _RegisteredModel:
    """A registered model on a server. A request that fails ends the Job, and the operator starts another one."""

    server: MlflowServer
    plan: RegisterPlan

    def call(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        """One request about this model."""
        return self.server.call(method, path, name=self.plan.name, **fields)

    def create(self) -> None:
        """Make sure that it exists."""
        try:
            self.call("POST", "registered-models/create")
        except MlflowError as error:
            if error.error_code != EXISTS:
                raise

    def number_of(self, version: VersionToRegister) -> str:
        """MLflow's number of this version, which is created if there is none.

        A ModelVersion that is restored from a backup has another uid, and is the same version of the same Model if its
        artifact has the same digest.
        """
        owner = {**self._owner, NUMBER_TAG: str(version.version)}
        where = " and ".join([f"name = '{self.plan.name}'", *(f"tags.`{k}` = '{v}'" for k, v in owner.items())])
        answer = self.server.call("GET", "model-versions/search", filter=where, max_results=100)
        same = [entry for entry in answer.get("model_versions") or () if _is_same(_tags(entry), version)]
        if same:
            return min((str(entry["version"]) for entry in same), key=int)
        fields: dict[str, Any] = {"source": version.source, "tags": entries({**version.tags, **self._own(version)})}
        if version.run_id:
            fields["run_id"] = version.run_id
        return str(self.call("POST", "model-versions/create", **fields)["model_version"]["version"])

    @property
    def _owner(self) -> Mapping[str, str]:
        return {NAMESPACE_TAG: self.plan.namespace or "", MODEL_TAG: self.plan.model}

    def _own(self, version: VersionToRegister) -> Mapping[str, str]:
        return {VERSION_TAG: version.uid, NUMBER_TAG: str(version.version), **self._owner}

    def set_alias(self, alias: str, number: str) -> None:
        """Let an alias point to a version.

        Raises:
            TrainerError: DestinationOccupied, it points to a version of another Model, which would lose it silently.
        """
        owner = self._owner_of(alias)
        if owner and owner.get(NAMESPACE_TAG) and owner != self._owner:
            of = f"Model {owner[MODEL_TAG]} of namespace {owner[NAMESPACE_TAG]}"
            words = f"{self.plan.name} at {self.server.host}: alias {alias} points to a version of {of}"
            raise TrainerError(
                FailureCode.DESTINATION_OCCUPIED, f"{words}: give one of them another registry.mlflow.name"
            )
        self.call("POST", "registered-models/alias", alias=alias, version=number)

    def remove(self, alias: str) -> None:
        """Remove an alias that points to a version of this Model; one that somebody else has set stays."""
        if self._owner_of(alias) == self._owner:
            self.call("DELETE", "registered-models/alias", alias=alias)

    def _owner_of(self, alias: str) -> Mapping[str, str] | None:
        """Whose version an alias points to; None: it points nowhere."""
        aliases = self.call("GET", "registered-models/get")["registered_model"].get("aliases", ())
        version = next((entry["version"] for entry in aliases if entry["alias"] == alias), None)
        if version is None:
            return None
        tags = _tags(self.call("GET", "model-versions/get", version=version)["model_version"])
        return {tag: tags.get(tag, "") for tag in self._owner}


def _tags(entry: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in entry.get("tags", ())}


def _is_same(tags: Mapping[str, str], version: VersionToRegister) -> bool:
    digest = version.tags.get(DIGEST_TAG)
    return tags.get(VERSION_TAG) == version.uid or (digest is not None and tags.get(DIGEST_TAG) == digest)
