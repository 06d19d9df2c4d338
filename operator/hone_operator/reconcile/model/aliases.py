"""Aliases of a Model: which ModelVersion each points to, since when, and where it pointed before. Pure."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from hone_api.contract.status_json import AliasStatusJson, AliasTargetJson, FormerAliasJson
from hone_api.kinds.model import MAX_HISTORY, ModelSpec
from hone_api.verdicts.gates import Unusable
from hone_api.words.states import ApprovalState, ConditionType, Reason
from hone_operator.desired.core import names
from hone_operator.reconcile.core.conditions import condition, is_true

Body = Mapping[str, Any]
Writer = Literal["Spec", "Promotion"]


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


def at(model: Body | None, version: str) -> str | None:
    """The aliases of a Model that point to the ModelVersion of this name, for display; None if there is none."""
    entries = ((model or {}).get("status") or {}).get("aliases") or ()
    return ",".join(entry["name"] for entry in entries if entry.get("modelVersion") == version)[:253] or None


def unusable(number: int, body: Body | None) -> Unusable | None:
    """Why an alias cannot point to this version; None: it can."""
    if body is None or body["metadata"].get("deletionTimestamp"):
        return Unusable(Reason.MODEL_VERSION_NOT_FOUND, f"version {number} does not exist")
    name, why = body["metadata"]["name"], condition(body, ConditionType.READY)
    if (body["spec"].get("approval") or {}).get("state") == ApprovalState.REJECTED:
        return Unusable(Reason.MODEL_VERSION_REJECTED, f"ModelVersion {name} is rejected", final=True)
    if is_true(body, ConditionType.STALLED):
        words = f"ModelVersion {name} cannot be used: {why.get('reason')}: {why.get('message')}"
        return Unusable(Reason.WAITING_FOR_MODEL_VERSION, words, final=True)
    if why.get("status") != "True":
        words = f"ModelVersion {name} is not Ready ({why.get('reason', 'not seen yet')})"
        return Unusable(Reason.WAITING_FOR_MODEL_VERSION, words, passing=True)
    return None


def digest_of(version: Body) -> str | None:
    """Digest of a version's artifact; of several, the SHA-256 of their digests. None: it has none."""
    digests = sorted(str(a["digest"]) for a in version["spec"].get("artifacts") or () if "digest" in a)
    if len(digests) < 2:
        return next(iter(digests), None)
    return f"sha256:{hashlib.sha256(chr(10).join(digests).encode()).hexdigest()}"


def swapped_versions(
    versions: Mapping[int, Body], before: Iterable[AliasStatusJson], former: Iterable[FormerAliasJson]
) -> dict[int, Unusable]:
    """Versions with a number to which an alias has pointed when it had other files: nothing may point to them.

    Numbers are not used again. Whoever got one used again, by whatever means, does not decide what an alias means.
    """
    entries: list[AliasStatusJson | AliasTargetJson] = [*before]
    entries += [past for entry in (*before, *former) for past in entry.get("history") or ()]
    pointed = {entry["version"]: entry["digest"] for entry in reversed(entries) if "digest" in entry}
    out = {}
    for number in pointed.keys() & versions.keys():
        if (digest := digest_of(versions[number])) != pointed[number]:
            words = (
                f"version {number} has the digest {digest}, and had {pointed[number]} when an alias pointed to it: "
                "train or import the model again, which makes a version with a number of its own"
            )
            out[number] = Unusable(Reason.MODEL_VERSION_NOT_FOUND, words, final=True)
    return out


@dataclass(frozen=True)
class Promotable:
    """The versions of a model that a promotion may use."""

    eligible: Sequence[int] = ()
    """Numbers of those to which its aliases may move, newest first."""
    stay: Sequence[int] = ()
    """Numbers of those at which an alias stays: eligible ones, also while they are not Ready, and those in use."""
    awaited: Unusable | None = None
    """Why no alias moves: the status of the Model is lost, and the version that was in use is not Ready yet."""


@dataclass(frozen=True)
class Aliases:
    """What is decided about all aliases of a Model, in one status."""

    entries: list[AliasStatusJson]
    former: list[FormerAliasJson]
    """Where the aliases that point nowhere pointed."""
    problems: Mapping[str, Unusable]
    """By alias: why it does not point where it should."""
    moved: list[str]
    """What is new, for Events."""
    lost: list[str]
    """Aliases that point nowhere any more, for Events."""


@dataclass(frozen=True)
class Aim:
    """Where each alias of a spec should point."""

    targets: dict[str, tuple[int | None, Writer]]
    """Numbers of versions by alias; None: nowhere."""
    problems: dict[str, Unusable]

    @property
    def points(self) -> dict[str, int]:
        """Without those that point nowhere."""
        return {name: number for name, (number, _) in self.targets.items() if number is not None}


def aim(spec: ModelSpec, versions: Mapping[int, Body], points: Mapping[str, int], may: Promotable) -> Aim:
    """Where each alias should point.

    A pinned one whose version cannot be used stays where it was, as long as that can be. No alias leaves a version that
    is not Ready for a while: otherwise each new key would move all of them, and forget where they were.

    Args:
        versions: ModelVersions by number.
        points: the number that each alias has now.
    """
    out = Aim({}, {})
    for pinned in spec.aliases or ():
        number: int | None = pinned.version
        if problem := unusable(pinned.version, versions.get(pinned.version)):
            out.problems[pinned.name] = problem
            number = _still(points.get(pinned.name), [n for n, v in versions.items() if _may_stay(n, v)])
        out.targets[pinned.name] = (number, "Spec")
    if promotion := spec.promotion:
        for name in set(promotion.aliases) - out.targets.keys():
            number = _promoted(points.get(name), may, promotion.policy == "Automatic")
            out.targets[name] = (number, "Promotion")
            if problem := unusable(number, versions[number]) if number is not None else may.awaited:
                out.problems[name] = problem
    return out


def decide(
    aimed: Aim,
    versions: Mapping[int, Body],
    before: Iterable[AliasStatusJson],
    former: Iterable[FormerAliasJson],
    now: str,
) -> Aliases:
    """The entries of all aliases, each with where it pointed before."""
    old, histories = {entry["name"]: entry for entry in before}, {entry["name"]: entry["history"] for entry in former}
    out = Aliases([], [], aimed.problems, [], [])
    for name, (number, writer) in sorted(aimed.targets.items()):
        _point(out, Move(name, number, writer, now), old.get(name), histories.get(name, ()), versions)
    return out


class Move(NamedTuple):
    """Where an alias should point."""

    name: str
    number: int | None
    """None: nowhere."""
    writer: Writer
    time: str


def _may_stay(number: int, body: Body) -> bool:
    problem = unusable(number, body)
    return problem is None or problem.passing


def _promoted(earlier: int | None, may: Promotable, moves: bool) -> int | None:
    """Where an alias of the promotion points: to the newest version, if it moves by itself; otherwise where it was."""
    stays = _still(earlier, may.stay)
    newest = next(iter(may.eligible), None)
    if not moves or newest is None:
        return stays
    return newest if stays is None or stays in may.eligible else max(newest, stays)


def _still(earlier: int | None, may: Sequence[int]) -> int | None:
    """The version to which an alias points, if it still may."""
    return earlier if earlier in may else None


def _point(
    out: Aliases,
    move: Move,
    earlier: AliasStatusJson | None,
    former: Sequence[AliasTargetJson],
    versions: Mapping[int, Body],
) -> None:
    name, left = move.name, _left(earlier, former, move.time)
    if move.number is None:
        if earlier:
            out.lost.append(f"Alias {name} points nowhere any more; it was {earlier['modelVersion']}.")
        if left:
            out.former.append({"name": name, "history": left})
        return
    body = versions[move.number]
    target = body["metadata"]["name"]
    stays = earlier is not None and (earlier["version"], earlier["modelVersion"]) == (move.number, target)
    history = list(earlier.get("history") or ()) if earlier and stays else left
    entry: AliasStatusJson = {
        "name": name,
        "version": move.number,
        "modelVersion": target,
        "since": earlier["since"] if earlier and stays else move.time,
        "writer": move.writer,
        "history": history[:MAX_HISTORY],
    }
    if digest := digest_of(body):
        entry["digest"] = digest
    by = (body["spec"].get("approval") or {}).get("by")
    if move.writer == "Promotion" and by:
        entry["approvedBy"] = by
    out.entries.append(entry)
    if not stays:
        words = f"Alias {name} points to {target}" + (f", before {earlier['modelVersion']}" if earlier else "")
        out.moved.append(f"{words}: gates passed, approved by {by}." if "approvedBy" in entry else f"{words}.")


def _left(earlier: AliasStatusJson | None, former: Sequence[AliasTargetJson], now: str) -> list[AliasTargetJson]:
    """Where an alias pointed before, if it leaves its version now, newest first."""
    if earlier is None:
        return list(former)
    left: AliasTargetJson = {"version": earlier["version"], "since": earlier["since"], "until": now}
    if "digest" in earlier:
        left["digest"] = earlier["digest"]
    return [left, *(earlier.get("history") or ())][:MAX_HISTORY]
