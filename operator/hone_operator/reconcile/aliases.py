"""Aliases of a Model: which ModelVersion each points to, since when, and where it pointed before. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hone_api.model import MAX_HISTORY, ModelSpec
from hone_api.states import AnyReason, ConditionType, Reason
from hone_api.status_json import AliasStatusJson, AliasTargetJson
from hone_operator.desired import names
from hone_operator.reconcile.conditions import condition, is_true

Body = Mapping[str, Any]


def by_number(model: str, versions: Iterable[Body]) -> dict[int, Body]:
    """The ModelVersions of a model by version number.

    Of two with the same number, only a person can have made one: the one with the usual name counts, else the older.
    """
    here = [v for v in versions if v["spec"].get("modelName") == model and isinstance(v["spec"].get("version"), int)]
    usual = {n: names.model_version(model, n) for n in {v["spec"]["version"] for v in here}}
    here.sort(key=lambda v: (v["metadata"]["name"] != usual[v["spec"]["version"]], v["metadata"]["creationTimestamp"]))
    versions_by_number: dict[int, Body] = {}
    for version in here:
        versions_by_number.setdefault(version["spec"]["version"], version)
    return versions_by_number


class Unusable(NamedTuple):
    """Why nothing may point to a version."""

    reason: AnyReason
    message: str
    final: bool = False
    """Only a person can change it."""


def unusable(number: int, body: Body | None) -> Unusable | None:
    """Why an alias cannot point to this version; None: it can."""
    if body is None or body["metadata"].get("deletionTimestamp"):
        return Unusable(Reason.MODEL_VERSION_NOT_FOUND, f"version {number} does not exist")
    name, why = body["metadata"]["name"], condition(body, ConditionType.READY)
    if (body["spec"].get("approval") or {}).get("state") == "Rejected":
        return Unusable(Reason.MODEL_VERSION_REJECTED, f"ModelVersion {name} is rejected", final=True)
    if is_true(body, ConditionType.STALLED):
        words = f"ModelVersion {name} cannot be used: {why.get('reason')}: {why.get('message')}"
        return Unusable(Reason.WAITING_FOR_MODEL_VERSION, words, final=True)
    if why.get("status") != "True":
        words = f"ModelVersion {name} is not Ready ({why.get('reason', 'not seen yet')})"
        return Unusable(Reason.WAITING_FOR_MODEL_VERSION, words)
    return None


@dataclass(frozen=True)
class Aliases:
    """What is decided about all aliases of a Model, in one status."""

    entries: list[AliasStatusJson]
    problems: dict[str, Unusable]
    """By alias: why it does not point where it should."""
    moved: list[str]
    """What is new, for Events."""
    lost: list[str]
    """Aliases that point nowhere any more, for Events."""


def decide(spec: ModelSpec, versions: Mapping[int, Body], before: Iterable[AliasStatusJson], now: str) -> Aliases:
    """Where each alias points. One whose version cannot be used stays where it was, as long as that can be used."""
    old = {entry["name"]: entry for entry in before}
    out = Aliases([], {}, [], [])
    for pinned in sorted(spec.aliases or (), key=lambda alias: alias.name):
        problem = unusable(pinned.version, versions.get(pinned.version))
        number: int | None = pinned.version
        earlier = old.get(pinned.name)
        if problem:
            out.problems[pinned.name] = problem
            number = _still(earlier, versions)
        _point(out, pinned.name, number, earlier, versions, now)
    return out


def _still(earlier: AliasStatusJson | None, versions: Mapping[int, Body]) -> int | None:
    """The version to which an alias points until its new one can be used."""
    if earlier is None or unusable(earlier["version"], versions.get(earlier["version"])):
        return None
    return earlier["version"]


def _point(
    out: Aliases,
    name: str,
    number: int | None,
    earlier: AliasStatusJson | None,
    versions: Mapping[int, Body],
    now: str,
) -> None:
    if number is None:
        if earlier:
            out.lost.append(f"Alias {name} points nowhere any more; it was {earlier['modelVersion']}.")
        return
    target = versions[number]["metadata"]["name"]
    if earlier and (earlier["version"], earlier["modelVersion"]) == (number, target):
        out.entries.append({**earlier, "writer": "Spec"})
        return
    history: list[AliasTargetJson] = list(earlier.get("history") or ()) if earlier else []
    if earlier:
        history.insert(0, {"version": earlier["version"], "since": earlier["since"], "until": now})
    entry: AliasStatusJson = {
        "name": name,
        "version": number,
        "modelVersion": target,
        "since": now,
        "writer": "Spec",
        "history": history[:MAX_HISTORY],
    }
    out.entries.append(entry)
    out.moved.append(f"Alias {name} points to {target}" + (f", before {earlier['modelVersion']}." if earlier else "."))
