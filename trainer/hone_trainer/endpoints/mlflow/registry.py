"""`python -m hone_trainer register`: versions of a model and its aliases in MLflow's model registry.

Whatever is there already is found by the uid of the ModelVersion, so that repeating it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone_api.plan import RegisterPlan
from hone_api.report import RegisterResult
from hone_api.tracking import VERSION_TAG, RegisteredVersion, VersionToRegister
from hone_api.wording import counted
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.http import Resolver, resolve
from hone_trainer.endpoints.mlflow.run import entries
from hone_trainer.endpoints.mlflow.server import EXISTS, SECONDS, MlflowError, MlflowServer

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
        model.call("POST", "registered-models/alias", alias=alias.name, version=numbers[alias.version])
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
        """MLflow's number of this version, which is created if there is none."""
        where = f"name = '{self.plan.name}' and tags.`{VERSION_TAG}` = '{version.uid}'"
        answer = self.server.call("GET", "model-versions/search", filter=where, max_results=10)
        if existing := answer.get("model_versions"):
            return min((str(entry["version"]) for entry in existing), key=int)
        fields: dict[str, Any] = {"source": version.source, "tags": entries({**version.tags, **self._own(version.uid)})}
        if version.run_id:
            fields["run_id"] = version.run_id
        return str(self.call("POST", "model-versions/create", **fields)["model_version"]["version"])

    def _own(self, uid: str) -> Mapping[str, str]:
        return {VERSION_TAG: uid, NAMESPACE_TAG: self.plan.namespace or "", MODEL_TAG: self.plan.model}

    def remove(self, alias: str) -> None:
        """Remove an alias that points to a version of this Model; one that somebody else has set stays."""
        aliases = self.call("GET", "registered-models/get")["registered_model"].get("aliases", ())
        version = next((entry["version"] for entry in aliases if entry["alias"] == alias), None)
        if version is None:
            return
        tags = self.call("GET", "model-versions/get", version=version)["model_version"].get("tags", ())
        values = {tag["key"]: tag["value"] for tag in tags}
        if (values.get(NAMESPACE_TAG), values.get(MODEL_TAG)) == (self.plan.namespace, self.plan.model):
            self.call("DELETE", "registered-models/alias", alias=alias)
