"""Limits of the platform team for tenants: which Secrets and models, how many GPUs, and where pods run.

The chart's admission policy enforces the same at the API server. This module also covers objects that are older than
the policy, and clusters without it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hone_api.base.meta import alias_of
from hone_api.blocks.delivery import Delivery
from hone_api.blocks.imports import ModelImport
from hone_api.blocks.tracking import MlflowRegistry
from hone_api.words.failures import FailureCode
from hone_api.words.states import ConditionType
from hone_operator.desired.core.platform import Platform
from hone_operator.reconcile.core.conditions import condition
from hone_operator.settings.tenants import TenantSettings

CODE = FailureCode.NOT_ALLOWED
CONTROL_PLANE = frozenset({"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"})
"""Keys that no prefix covers: they must be listed by name."""


def secret_names(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, name) of every Secret that a spec names."""
    rest: list[tuple[str, Any]] = [("spec", spec)]
    while rest:
        path, value = rest.pop()
        if isinstance(value, Mapping):
            for key, each in value.items():
                if key == "secretName" and isinstance(each, str):
                    yield f"{path}.{key}", each
                else:
                    rest.append((f"{path}.{key}", each))
        elif isinstance(value, list):
            rest += [(f"{path}[{number}]", each) for number, each in enumerate(value)]


def problems(body: Mapping[str, Any], platform: Platform) -> list[str]:
    """Every field of an object with a value that is not allowed; empty once its present generation was accepted.

    An object that was accepted under other limits continues: a tighter limit ends no run.
    """
    accepted = condition(body, ConditionType.ACCEPTED)
    same = body["kind"] == "FineTuneJob" or accepted.get("observedGeneration") == body["metadata"].get("generation")
    if accepted.get("status") == "True" and same:
        return []
    spec, bounds = body["spec"], platform.tenants
    of_all = [*_secrets(spec, bounds), *placement(spec.get("scheduling") or {}, bounds)]
    if body["kind"] != "FineTuneJob":
        return of_all
    resources = spec.get("resources") or {}
    return [
        *of_all,
        *_model(spec, bounds),
        *_gpus(resources, bounds),
        *_claims(resources, bounds),
        *_pod(spec.get("pod") or {}, bounds, platform.store.claim_name),
        *_destinations("spec.output.push", (spec.get("output") or {}).get("push") or [], bounds),
    ]


def delivery(target: Delivery, bounds: TenantSettings) -> Iterator[str]:
    """Why this delivery is not allowed; empty if it is. Whoever edits a ModelVersion can name any Secret."""
    entry = target.to_json()
    yield from _secrets({"deliveries": [entry]}, bounds)
    yield from _destinations("spec.deliveries", [entry], bounds)


def registry(target: MlflowRegistry, bounds: TenantSettings) -> Iterator[str]:
    """Why this registry is not allowed; empty if it is. Whoever edits a Model can name any Secret."""
    return _secrets({"registry": {"mlflow": target.to_json()}}, bounds)


def import_problems(entry: ModelImport, bounds: TenantSettings) -> Iterator[str]:
    """Why this import is not allowed; empty if it is."""
    yield from _secrets({"imports": [entry.to_json()]}, bounds)
    for uri in (entry.uri, entry.base.uri if entry.base else None):
        if uri and not any(_matches(uri, allowed) for allowed in bounds.models):
            yield f"spec.imports {uri} {_denial('tenants.models', bounds.models)}"


def watch_problems(uri: str, secret: str | None, bounds: TenantSettings) -> Iterator[str]:
    """Why the hub is not asked about this base; empty if it is. A job that was refused can name any Secret."""
    spec = {"model": {"uri": uri, **({"secretName": secret} if secret else {})}}
    yield from _secrets(spec, bounds)
    yield from _model(spec, bounds)


def _model(spec: Mapping[str, Any], bounds: TenantSettings) -> Iterator[str]:
    """A ModelVersion is always allowed: its own base was."""
    uri = spec["model"].get("uri")
    if uri and alias_of(uri) is None and not any(_matches(uri, entry) for entry in bounds.models):
        yield f"spec.model.uri {uri} {_denial('tenants.models', bounds.models)}"


def _claims(resources: Mapping[str, Any], bounds: TenantSettings) -> Iterator[str]:
    allowed = bounds.resource_claim_templates
    for number, claim in enumerate(resources.get("claims") or []):
        name = claim["resourceClaimTemplateName"]
        if not any(_matches(name, entry) for entry in allowed):
            value = _denial("tenants.resourceClaimTemplates", allowed)
            yield f"spec.resources.claims[{number}].resourceClaimTemplateName {name} {value}"


def _gpus(resources: Mapping[str, Any], bounds: TenantSettings) -> Iterator[str]:
    gpus = resources.get("nodes", 1) * resources.get("gpusPerNode", 0)
    if bounds.max_gpus and gpus > bounds.max_gpus:
        yield (
            f"spec.resources asks for {gpus} GPUs over all nodes, and a job may have {bounds.max_gpus} here "
            "(tenants.maxGpus of the chart): lower nodes or gpusPerNode, or ask the platform team"
        )


def _destinations(field: str, entries: Sequence[Mapping[str, Any]], bounds: TenantSettings) -> Iterator[str]:
    for uri in (entry["uri"] for entry in entries):
        if not any(_matches(uri, entry) for entry in bounds.destinations):
            yield f"{field} {uri} {_denial('tenants.destinations', bounds.destinations)}"


def _pod(pod: Mapping[str, Any], bounds: TenantSettings, store: str) -> Iterator[str]:
    for field, value, allowed in (
        ("serviceAccountName", "tenants.serviceAccounts", bounds.service_accounts),
        ("runtimeClassName", "tenants.runtimeClasses", bounds.runtime_classes),
    ):
        if (name := pod.get(field)) and not any(_matches(name, entry) for entry in allowed):
            yield f"spec.pod.{field} {name} {_denial(value, allowed)}"
    for number, variable in enumerate(pod.get("env") or []):
        if not any(_matches(variable["name"], entry) for entry in bounds.env):
            yield f"spec.pod.env[{number}] {variable['name']} {_denial('tenants.env', bounds.env)}"
    for field in ("labels", "annotations"):
        for key in pod.get(field) or {}:
            if "/" in key and not any(_matches(key, entry) for entry in bounds.pod_keys):
                yield f"spec.pod.{field} {key} {_denial('tenants.podKeys', bounds.pod_keys)}"
    for number, volume in enumerate(pod.get("volumes") or []):
        if volume.get("claimName") == store:
            yield (
                f"spec.pod.volumes[{number}].claimName cannot be {store}: it is the store. "
                "Name a model or a Dataset in the spec, or mount another claim"
            )


def _secrets(spec: Mapping[str, Any], bounds: TenantSettings) -> Iterator[str]:
    prefix = bounds.secret_prefix
    for field, name in sorted(secret_names(spec)):
        if not name.startswith(prefix):
            yield (
                f"{field}: Secrets for Hone are called {prefix}… here, and this one is called {name}: copy it to a "
                f"Secret called {prefix}{name} and name that one, or ask the platform team to set tenants.secretPrefix"
            )


def placement(scheduling: Mapping[str, Any], bounds: TenantSettings) -> Iterator[str]:
    """Fields of spec.scheduling with a value that is not allowed."""
    if (name := scheduling.get("priorityClassName")) and not _class_allowed(name, bounds):
        yield f"spec.scheduling.priorityClassName {name} {_denial('tenants.priorityClasses', bounds.priority_classes)}"
    if (name := scheduling.get("workloadPriorityClass")) and not any(
        _matches(name, entry) for entry in bounds.workload_priority_classes
    ):
        value = _denial("tenants.workloadPriorityClasses", bounds.workload_priority_classes)
        yield f"spec.scheduling.workloadPriorityClass {name} {value}"
    for key in scheduling.get("nodeSelector") or {}:
        if not _key_allowed(key, bounds.node_selector_keys):
            yield f"spec.scheduling.nodeSelector {key} {_denial('tenants.nodeSelectorKeys', bounds.node_selector_keys)}"
    for number, toleration in enumerate(scheduling.get("tolerations") or []):
        field, key = f"spec.scheduling.tolerations[{number}]", toleration.get("key")
        if not key:
            yield f"{field} has no key and would tolerate every taint, the control plane's included: name the key"
        elif not _key_allowed(key, bounds.toleration_keys):
            yield f"{field} {key} {_denial('tenants.tolerationKeys', bounds.toleration_keys)}"


def _denial(value: str, allowed: Sequence[str]) -> str:
    listed = ", ".join(allowed) or "none"
    return f"is not allowed here ({value} of the chart: {listed}): choose another, or ask the platform team"


def _class_allowed(name: str, bounds: TenantSettings) -> bool:
    return not name.startswith("system-") and any(_matches(name, entry) for entry in bounds.priority_classes)


def _key_allowed(key: str, allowed: Sequence[str]) -> bool:
    if key in CONTROL_PLANE:
        return key in allowed
    return any(_matches(key, entry) for entry in allowed)


def _matches(text: str, entry: str) -> bool:
    return text.startswith(entry[:-1]) if entry.endswith("*") else text == entry
